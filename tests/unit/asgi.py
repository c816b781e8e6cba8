"""One request to the API in process; every answer is checked against the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from jsonschema import Draft202012Validator

from rebound.adapters.api import openapi
from rebound.adapters.api.access import Access
from rebound.adapters.api.app import Api, create_app
from rebound.attempting import Policy
from rebound.domain.task import Task
from rebound.engine import Engine
from rebound.ports import Receipt, Store

URL = "http://one.test/hook"
VALID: Mapping[str, Any] = {"source": "tests", "destination": {"url": URL}}


class Nowhere:
    """A producer for an engine that never delivers."""

    async def send(self, task: Task, /) -> Receipt:
        raise AssertionError("nothing is delivered here")

    async def aclose(self) -> None: ...


class Settings(NamedTuple):
    max_payload_bytes: int = 1_048_576
    max_batch_bytes: int = 16_777_216
    call_over_http: bool = False


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def error(self) -> str:
        return str(self.json["error"])


def make_engine(store: Store, settings: Settings = Settings()) -> Engine:  # noqa: B008
    nowhere = {kind: Nowhere() for kind in ("http", "kafka")}
    policy = Policy(max_payload=settings.max_payload_bytes)
    return Engine(store, nowhere, policy, missing={"call": None})


def make_api(
    engine: Engine,
    settings: Settings = Settings(),  # noqa: B008
    not_ready: str | None = None,
    access: Access | None = None,
) -> Api:
    return create_app(engine, config=settings, not_ready=lambda: not_ready, access=access)


async def call(
    app: Api,
    method: str,
    target: str,
    body: Any = b"",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
) -> Reply:
    """Send a request and return its answer; a `body` that is not bytes goes as JSON."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    path, _, query = target.partition("?")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope = {
        "type": "http", "method": method, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in pairs],
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, end = sent
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    reply = Reply(start["status"], found, end["body"])
    _check(method.lower(), path, reply)
    return reply


def _check(method: str, path: str, reply: Reply) -> None:
    if reply.status != 204:
        assert "content-length" in reply.headers
    if method == "head":
        return
    assert reply.headers.get("content-length", "0") == str(len(reply.body))
    operation = _operation(method, path)
    if operation is None:
        assert reply.status in (404, 405)
        validator("Error").validate(reply.json)
        return
    declared = operation["responses"][str(reply.status)]
    if "content" not in declared:
        assert reply.body == b""
        return
    kind, content = next(iter(declared["content"].items()))
    assert reply.headers["content-type"].partition(";")[0] == kind
    if "$ref" in content["schema"]:
        validator(content["schema"]["$ref"].rpartition("/")[2]).validate(reply.json)


def _operation(method: str, path: str) -> Any:
    for template, operations in document()["paths"].items():
        pattern = re.escape(template).replace(r"\{id\}", "[^/]+")
        if re.fullmatch(pattern, path) and method in operations:
            return operations[method]
    return None


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(openapi.text())
    return found


@cache
def validator(name: str) -> Draft202012Validator:
    """Checks JSON values against the schema of this name."""
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document()["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
