"""A second opinion on a task: jsonschema over the OpenAPI document, and what no schema can say.

It shares no code with what it judges.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator, validators

MAX_PAYLOAD = 1024**2
MAX_BODY = 2 * MAX_PAYLOAD + 65_536
MAX_DEPTH = 5_000
"""Beyond this no parser goes; between a few hundred and this nothing is promised."""
_OURS = re.compile(
    "host|content[-_]length|transfer[-_]encoding|(proxy[-_])?connection|keep[-_]alive|te|trailer"
    "|upgrade|expect|x[-_]message[-_]key|x[-_]rebound[-_].*",
    re.I,
)
_OURS_IN_KAFKA = re.compile(
    r"rebound-(?!(failures|group|expires|error|timestamp)\Z).*", re.I | re.S
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Verdict(NamedTuple):
    """What should be answered: a `code` of an error, or None for a task that is taken."""

    code: str | None
    fields: tuple[str, ...] = ("",)
    """With one of these the message has to begin."""
    repeated: bool = False
    """A name stands twice: of those, every one has to be valid, or only the last."""

    def fits(self, status: int, answer: Mapping[str, Any]) -> bool:
        """True where the answer says the same."""
        if status in (200, 201) or answer.get("code") == "DUPLICATE_TASK":
            return self.code is None
        text = answer.get("error", "")
        named = self.repeated or text.startswith(self.fields)
        right = answer.get("code") == self.code or (self.repeated and self.code is None)
        short = 0 < len(text.encode()) <= 5_000
        return 400 <= status < 500 and right and named and short


class Oracle:
    """Judges the bodies of `POST /tasks` by the OpenAPI `document`."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        components = _in_python(document["components"])
        checker = Draft202012Validator.TYPE_CHECKER.redefine(
            "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
        )
        strict = validators.extend(Draft202012Validator, type_checker=checker)
        self._known = components["schemas"]["Task"]["properties"]
        self._task = strict({"$ref": "#/components/schemas/Task", "components": components})

    def judge(self, body: bytes) -> Verdict:
        """The verdict on `body`."""
        if len(body) > MAX_BODY:
            return Verdict("PAYLOAD_TOO_LARGE")
        try:
            task, repeated = _parsed(body)
        except (ValueError, RecursionError):
            return Verdict("INVALID_BODY")
        if not isinstance(task, dict):
            return Verdict("VALIDATION_ERROR")
        if _size(task) > MAX_PAYLOAD:
            return Verdict("PAYLOAD_TOO_LARGE", ("message_data",))
        wrong = [*self._by_schema(task), *_by_rules(task)]
        return Verdict("VALIDATION_ERROR" if wrong else None, tuple(wrong), repeated)

    def _by_schema(self, task: dict[str, Any]) -> Iterator[str]:
        for name in task.keys() - self._known.keys():
            yield name[:300]
        for name in {"source", "destination"} - {k for k, v in task.items() if v is not None}:
            yield name
        for error in self._task.iter_errors(task):
            if error.absolute_path:
                yield str(error.absolute_path[0])
                if error.absolute_path[0] == "destination":
                    yield "destination_type"


def _in_python(schema: Any) -> Any:
    """A copy whose patterns mean to Python what they mean to ECMAScript, where $ is the end."""
    if isinstance(schema, list):
        return [_in_python(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: _in_python(one) for name, one in schema.items()}
    if isinstance(copy.get("pattern"), str):
        copy["pattern"] = re.sub(r"\$(?=\)|$)", r"\\Z", copy["pattern"])
    return copy


def _parsed(body: bytes) -> tuple[Any, bool]:
    text = body.decode()
    if text.count("[") > MAX_DEPTH or text.count("{") > MAX_DEPTH:
        raise ValueError("too deep")
    repeated = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        repeated = repeated or len({name for name, _ in pairs}) < len(pairs)
        _no_surrogates([*map(list, pairs)])
        return dict(pairs)

    value = json.loads(text, parse_constant=_refuse, parse_int=_whole, object_pairs_hook=members)
    _no_surrogates(value)
    return value, repeated


def _no_surrogates(value: Any) -> None:
    if any(_SURROGATE.search(one) for one in _texts(value)):
        raise ValueError("a lone surrogate")


def _refuse(name: str) -> None:
    raise ValueError(name)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 300 else float("inf")


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            yield from value
            yield from _texts([*value.values()])


def _size(task: Mapping[str, Any]) -> int:
    data = task.get("message_data", "")
    if not isinstance(data, str):
        return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    if task.get("message_encoding") != "base64":
        return len(data.encode())
    try:
        return len(base64.b64decode(data, validate=True))
    except ValueError:
        return 0


# -- what no schema says -----------------------------------------------------------------------


def _by_rules(task: Mapping[str, Any]) -> Iterator[str]:
    """Fields that break a rule; where a type is wrong the schema has said so."""
    for name, rule in {
        "destination": _goes,
        "dead_destination": _goes,
        "message_key": _fits,
    }.items():
        with contextlib.suppress(TypeError, ValueError, AttributeError, LookupError):
            if task.get(name) and not rule(task[name]):
                yield name


def _goes(place: Mapping[str, Any]) -> bool:
    kind = (place.get("url") or "kafka://").partition("://")[0].lower()
    pairs = place.get("headers") or {}
    ours = _OURS_IN_KAFKA if kind == "kafka" else _OURS
    for header, value in pairs.items() if isinstance(pairs, dict) else pairs:
        text = value["base64"] if isinstance(value, dict) else value or ""
        if ours.fullmatch(header) or len(header.encode()) + len(text.encode()) > 8192:
            return False
    if kind in ("http", "https"):
        return _host_is_valid(place["url"])
    brokers = place.get("host") or place["url"].partition("://")[2].partition("/")[0]
    names = [name.rpartition(":")[0] or name for name in brokers.split(",") if name]
    short = len(f"kafka://{brokers}:1/{place.get('topic', '')}") <= 2048
    return short and all(name[0] == "[" or _name_is_valid(name) for name in names)


def _fits(key: Any) -> bool:
    return len(base64.b64decode(key["base64"]) if isinstance(key, dict) else key.encode()) <= 1024


def _host_is_valid(url: str) -> bool:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if not authority.isascii():
        plain = unicodedata.normalize("NFKC", re.sub("[@:]", "", authority))
        if set(plain) & set("/?#@:"):
            return False
    login, _, place = authority.rpartition("@")
    if set(login) & set("[]"):
        return False
    bracketed = re.fullmatch(r"\[([0-9a-fA-F:.]+)(%25[\w.~-]+)?\](?::([0-9]*))?", place)
    host, _, port = place.partition(":")
    try:
        if bracketed:
            ipaddress.IPv6Address(bracketed[1])
            port = bracketed[3] or ""
        else:
            host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        return False
    named = bracketed or _name_is_valid(host)
    return bool(named and re.fullmatch("(0*[1-9][0-9]{0,4})?", port)) and int(port or 80) <= 65535


def _name_is_valid(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if re.fullmatch("[0-9]+|0x[0-9a-f]*", labels[-1], re.I):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
    return len(host) <= 253 and all(re.fullmatch(r"[\w-]{1,63}", one) for one in labels)
