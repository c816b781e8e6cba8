"""The OpenAPI 3.1 document, generated from the types that validate and answer.

`python -m rebound.adapters.api.openapi > openapi.yaml` writes its snapshot.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from rebound import __version__
from rebound.adapters.api import shapes, view
from rebound.adapters.api.calls import CALLS, DESCRIPTION, Call, Parameter
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination
from rebound.domain.explaining import ENGINE_FIELDS
from rebound.domain.task import Task

TASK: Final = (
    "One message to deliver, with the policy for retrying it. Durations are seconds. `null` means"
    " not given, except in `message_data` and `message_key`."
)
SUMMARY: Final = ("message_data", "attempts")
"""What a listing leaves out."""
_ANSWERS: Final = (
    view.TaskView, view.Scheduled, view.BatchResults, view.Page, view.Error, view.Healthy,
    view.Unhealthy, view.Alive, view.Ready, view.NotReady,
)  # fmt: skip
_INNER: Final = (Destination, Base64, Backoff, view.AttemptView, view.BatchResult)
_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_REF: Final = "#/components/schemas/"

Schema = dict[str, Any]


@cache
def text() -> bytes:
    """The document as JSON."""
    return view.encode(document())


def document() -> Schema:
    """The whole document."""
    paths: dict[str, Schema] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rebound",
            "version": __version__,
            "summary": "Durable retries for webhooks, API calls and messages",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        # Either, or none where the service has no keys.
        "security": [*({name: []} for name in _KEYS), {}],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _KEYS},
    }


# -- calls -----------------------------------------------------------------------------------


def _operation(call: Call) -> Schema:
    operation: Schema = {"operationId": call.name, "summary": call.summary}
    if call.parameters:
        operation["parameters"] = [_parameter(p) for p in call.parameters]
    if call.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(call.body)}},
        }
    operation["responses"] = {
        str(status): _response(status, description, body)
        for status, (description, body) in sorted(call.answers.items())
    }
    if 401 not in call.answers:
        operation["security"] = []
    return operation


def _parameter(parameter: Parameter) -> Schema:
    schema = (
        _portable(msgspec.json.schema(parameter.type, ref_template=_REF + "{name}"))
        if parameter.type
        else _ref(parameter.schema)
    )
    if parameter.where == "query" and schema.get("type") != "string":
        schema = {"anyOf": [schema, {"enum": [""]}]}  # counts as absent
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": schema,
    }


def _response(status: int, description: str, body: str | None) -> Schema:
    response: Schema = {"description": description}
    if status in (429, 503) and body == "Error":
        response["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}
        }
    if status == 401:
        response["headers"] = {
            "WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}}
        }
    match body:
        case None:
            pass
        case "html":
            response["content"] = {"text/html": {"schema": {"type": "string"}}}
        case "object":
            response["content"] = {"application/json": {"schema": {"type": "object"}}}
        case _:
            response["content"] = {"application/json": {"schema": _ref(body)}}
    return response


# -- types -----------------------------------------------------------------------------------


def _schemas() -> dict[str, Schema]:
    types = (Task, *_ANSWERS)
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    for kind in (*types, *_INNER):
        _describe(schemas[kind.__name__], kind)
    for schema in schemas.values():
        # What comes after the first sentence is about Python.
        first = re.split(r"[.;](?=\s|$)", _flat(schema.get("description", "")))[0]
        schema["description"] = f"{first}."
    task = schemas["Task"]
    task["description"] = TASK
    for field in ENGINE_FIELDS:
        del task["properties"][field]
    for name in ("Task", "Destination", "Backoff"):
        _nullable(schemas[name])
    shapes.refine(schemas)
    for kind in _ANSWERS:
        answered = schemas[kind.__name__]
        answered["required"] = list(answered["properties"])
    schemas["TaskSummary"] = _without(schemas["TaskView"], SUMMARY)
    schemas["Page"]["properties"]["tasks"]["items"] = _ref("TaskSummary")
    schemas["Batch"] = {
        "type": "object",
        "description": "Tasks that stand each for itself: anything else gets its own error.",
        "properties": {
            "tasks": {
                "type": "array",
                "items": {"anyOf": [_ref("Task"), {}]},
                "minItems": 1,
                "maxItems": 1000,
            }
        },
        "required": ["tasks"],
        "additionalProperties": False,
    }
    used = _reachable(schemas, ["Batch", "TaskSummary", *(k.__name__ for k in types)])
    return {name: _portable(schemas[name]) for name in sorted(used)}


def _describe(schema: Schema, kind: type[Struct]) -> None:
    """Add the docstrings below the type's fields."""
    for field, words in _field_docs(kind).items():
        if field in schema["properties"]:
            schema["properties"][field]["description"] = words


def _field_docs(kind: type[Struct]) -> Mapping[str, str]:
    """The string below each annotated field, by field."""
    try:
        source = inspect.getsource(kind)
    except OSError:
        return {}
    found: dict[str, str] = {}
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = _flat(words)
    return found


def _nullable(schema: Schema) -> None:
    """Let every member be null that need not be given."""
    for name, member in schema["properties"].items():
        if name in schema["required"] or name == "message_data":
            continue
        default = member.pop("default", None)
        description = member.pop("description", None)
        options = member.get("anyOf", [dict(member)])
        if {"type": "null"} not in options:
            options = [*options, {"type": "null"}]
        member.clear()
        member["anyOf"] = options
        if default is not None and options[0].get("minLength", 0) <= len(str(default)):
            member["default"] = default
        if description:
            member["description"] = description


def _without(schema: Schema, names: Iterable[str]) -> Schema:
    kept = {k: v for k, v in schema["properties"].items() if k not in names}
    return {
        **schema,
        "title": "TaskSummary",
        "description": f"A task as listed, without {' and '.join(names)}.",
        "properties": kept,
        "required": list(kept),
    }


def _reachable(schemas: Mapping[str, Schema], names: list[str]) -> set[str]:
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names.extend(_refs(schemas[name]))
    return found


def _refs(part: object) -> Iterable[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].removeprefix(_REF)
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _refs(inner)


def _portable(part: Any) -> Any:
    """A copy in JSON Schema's dialect of regular expressions, and plain lists as enums."""
    if isinstance(part, list):
        return [_portable(p) for p in part]
    if not isinstance(part, dict):
        return part
    copy = {k: _portable(v) for k, v in part.items()}
    pattern = copy.get("pattern")
    if isinstance(pattern, str):
        pattern = pattern.removeprefix(r"\A").removesuffix(r"\Z")
        words = pattern.removeprefix("(").removesuffix(")").split("|")
        if pattern.startswith("(") and all(word.isalnum() for word in words):
            del copy["pattern"]
            copy["enum"] = words
        else:
            copy["pattern"] = f"^{pattern}$"
    return copy


def _flat(words: str) -> str:
    return " ".join(words.split())


def _ref(name: str) -> Schema:
    return {"$ref": _REF + name}


def main() -> None:
    """Print the document as YAML."""
    import yaml

    plain = msgspec.json.decode(text())
    sys.stdout.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))


if __name__ == "__main__":
    main()
