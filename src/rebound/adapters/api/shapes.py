"""What goes together in a task, as JSON Schema: msgspec describes each field by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rebound.domain.backoff import STRATEGIES
from rebound.domain.destination import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL
from rebound.domain.validation import MAX_KEY

Schema = dict[str, Any]

REF: Final = "#/components/schemas/"
BASE64: Final = r"\A([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z"
_PORT: Final = (
    "(?=[0-9]{1,5}([^0-9]|$))0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}"
    "|655[0-2][0-9]|6553[0-5])"
)
_HOST: Final = r"([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])"
_BROKER: Final = f"{_HOST}(:{_PORT})?"
_BROKERS: Final = f"{_BROKER}(,{_BROKER})*"
_TOPIC: Final = r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}"
_IN_URL: Final = r"""[^\x00-\x20\x7f-\xa0\\\"<>^`{|}]"""
_NO_NUMBER: Final = (  # a host such as 0 or 127.1, which is an address to many a resolver
    r"(?!([^/?#]*@)?(?!([0-9]{1,3}\.){3}[0-9]{1,3}([:/?#]|$))([^/?#:@]*\.)?([0-9]+|0[xX][0-9a-fA-F]*)\.?"
    "([:/?#]|$))"
)
_SCHEME: Final = {"http": "[hH][tT][tT][pP][sS]?", "kafka": "[kK][aA][fF][kK][aA]"}
_NULL: Final = {"type": "null"}
_EMPTY: Final = {"enum": ["", None]}
_NO_TOPIC: Final = dict.fromkeys(("host", "port", "topic"), _EMPTY)
_NOT_HTTP: Final = dict.fromkeys(("method", "timeout", "fatal_statuses"), _NULL)
_NOT_KAFKA: Final = dict.fromkeys(("partition", "timestamp"), _NULL)
_NOWHERE: Final = {"url": _EMPTY, **_NO_TOPIC, **_NOT_HTTP, **_NOT_KAFKA, "headers": _NULL}
_BY_KIND: Final = {
    "http": ("HttpDestination",),
    "kafka": ("KafkaDestination", "KafkaTopic"),
}
"""The schemas of a destination by its kind; `call` is not served yet."""


def refine(schemas: dict[str, Schema]) -> None:
    """Say in the schemas of what is sent which members go together, and as which text."""
    schemas["Base64"]["properties"]["base64"]["pattern"] = BASE64
    # Tasks that are shown may have come another way, with what is refused here.
    shown = schemas["TaskView"]["properties"]
    for name in ("Backoff", "Destination"):
        schemas[f"{name}View"] = schemas[name] | {"title": f"{name}View"}
    for name in ("backoff", "destination", "dead_destination"):
        of = name.removeprefix("dead_").capitalize()
        shown[name]["anyOf"][0] = _ref(f"{of}View")
    schemas["Backoff"] |= _backoff(schemas["Backoff"]["properties"])
    _destinations(schemas)
    task = schemas["Task"]
    task["properties"]["message_key"]["anyOf"][0]["maxLength"] = MAX_KEY
    task["properties"]["destination_type"]["anyOf"][0] = {"enum": [*_BY_KIND]}
    absent = {"type": "object", "properties": _NOWHERE, "additionalProperties": False}
    task["properties"]["dead_destination"]["anyOf"].insert(1, absent)
    encoded = {"message_data": {"type": "string", "pattern": BASE64}}
    task["allOf"] = [_where("message_encoding", "base64", encoded)]
    for kind, names in _BY_KIND.items():
        task["allOf"].append(_where("destination_type", kind, {"destination": _one_of(names)}))


def _destinations(schemas: dict[str, Schema]) -> None:
    general = schemas["Destination"]
    named, listed, _ = general["properties"]["headers"]["anyOf"]
    named["maxProperties"] = listed["maxItems"] = MAX_HEADERS
    fields = general["properties"]
    http = {
        **fields,
        "url": _url("http", f"{_NO_NUMBER}{_IN_URL}+"),
        "headers": _headers(fields),
        **_NO_TOPIC,
    }
    kafka = {**fields, **_NOT_HTTP, "url": _url("kafka", f"({_BROKERS})?/{_TOPIC}"), **_NO_TOPIC}
    topic = {
        **fields, **_NOT_HTTP, "url": _EMPTY,
        "host": {"type": "string", "pattern": rf"\A({_BROKER},)*{_HOST}\Z",
                 "format": "kafka-brokers"},
        "port": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535},
                           {"type": "string", "pattern": rf"\A({_PORT})?\Z", "maxLength": 5},
                           _NULL]},
        "topic": {"type": "string", "pattern": rf"\A{_TOPIC}\Z"},
    }  # fmt: skip
    for name, words, needed, members in (
        ("HttpDestination", "An HTTP endpoint.", ["url"], http | _NOT_KAFKA),
        ("KafkaDestination", "A Kafka topic by its URL.", ["url"], kafka),
        ("KafkaTopic", "A Kafka topic by its parts.", ["host", "topic"], topic),
    ):
        schemas[name] = {
            **general, "title": name, "description": words, "properties": members,
            "required": needed,
        }  # fmt: skip
    kinds = [name for names in _BY_KIND.values() for name in names]
    schemas["Destination"] = {
        "title": "Destination", "description": general["description"], **_one_of(kinds),
    }  # fmt: skip


def _url(kind: str, rest: str) -> Schema:
    form: Schema = {"type": "string", "pattern": rf"\A{_SCHEME[kind]}://{rest}\Z"}
    return form | {"maxLength": MAX_URL, "format": {"http": "iri", "kafka": "kafka-url"}[kind]}


def _headers(fields: Schema) -> Schema:
    """What HTTP headers may be, which is less than what Kafka's may."""
    named = {
        "type": "object",
        "propertyNames": {"pattern": r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"},
        "additionalProperties": {
            "type": "string",
            "pattern": r"\A[^\x00-\x08\x0a-\x1f\x7f]*\Z",
            "maxLength": MAX_HEADER_BYTES,
        },
        "maxProperties": MAX_HEADERS,
    }
    return {**fields["headers"], "anyOf": [named, {"type": "array", "maxItems": 0}, _NULL]}


def _backoff(fields: Schema) -> Schema:
    """With the strategy `schedule` there is a schedule, with the others there is none."""
    listed = fields["schedule"]["anyOf"][0]
    others = [s for s in STRATEGIES if s != "schedule"]
    given = {"strategy": {"enum": ["schedule"]}, "schedule": listed}
    left_out = {"strategy": {"enum": [*others, None]}, "schedule": _NULL}
    return {
        "properties": fields
        | {"strategy": fields["strategy"] | {"anyOf": [{"enum": [*STRATEGIES]}, _NULL]}},
        "anyOf": [{"properties": given, "required": [*given]}, {"properties": left_out}],
    }


def _where(name: str, value: str, then: Schema) -> Schema:
    given = {"properties": {name: {"const": value}}, "required": [name]}
    return {"if": given, "then": {"properties": then}}


def _one_of(names: Sequence[str]) -> Schema:
    refs = [_ref(name) for name in names]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _ref(name: str) -> Schema:
    return {"$ref": REF + name}
