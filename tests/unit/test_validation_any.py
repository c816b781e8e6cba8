"""Whatever comes in: one of two errors, or a task whose every field is legal."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound.domain import meaning, validation
from rebound.domain.backoff import STRATEGIES, Backoff
from rebound.domain.destination import Base64, Destination
from rebound.domain.errors import InvalidBody, ValidationError
from rebound.domain.task import Task
from tests.unit.door import read, taken

encode = msgspec.json.encode
LIMIT = 65536


def assert_legal(one: Task) -> None:
    assert 1 <= len(one.source) <= 255
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", one.source)
    for name in (one.id or "x", one.lane or "x"):
        assert 1 <= len(name) <= 255
        assert all("!" <= c <= "~" for c in name)
    assert type(one.max_retries) is type(one.failures) is type(one.attempt) is int
    assert 0 <= one.max_retries <= 100
    assert 0 <= one.failures <= 100
    assert 0.001 <= one.base_delay <= 86400
    assert one.delay is None or 0 <= one.delay <= 31_536_000
    assert one.ttl is None or 0.001 <= one.ttl <= 31_536_000
    assert type(one.is_priority) is bool
    assert len(one.client_id) <= 255
    assert one.message_encoding in ("text", "base64")
    assert one.destination.place.kind == (one.destination_type or one.destination.place.kind)
    assert len(validation.message(one)) <= LIMIT
    assert len(meaning.digest(one)) == 16
    assert all(getattr(one, f) in (None, 0, ()) for f in validation.ENGINE_FIELDS)
    assert math.isfinite(one.accepted().first_wait(0.5))
    assert len(one.accepted().queue) <= 511


def check(data: bytes) -> Task | None:
    """What becomes of `data`; any other error than the two is a bug."""
    try:
        one = validation.check(read(data), max_payload=LIMIT)
    except InvalidBody:
        return None
    except ValidationError as error:
        reason = str(error)
        if len(reason.encode()) > 5000:
            raise AssertionError("an error should not repeat what came in") from error
        return None
    assert_legal(one)
    return one


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    check(data)


texts = st.text(max_size=20) | st.sampled_from(["http://a.test", "kafka://h/t", "x", "0", "null"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts
    | st.sampled_from([0, 1, 5, 100, 0.001, 86400])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*Task.__struct_fields__, "extra"]) | texts
parts = st.dictionaries(
    st.sampled_from([*Destination.__struct_fields__, *Backoff.__struct_fields__, "base64"]),
    values,
    max_size=4,
)


@given(values)
def test_any_json(value: Any) -> None:
    check(json.dumps(value).encode())


@given(st.dictionaries(names, values | parts, max_size=6), st.booleans())
def test_any_object_with_the_names_of_a_task(fields: dict[str, Any], least: bool) -> None:
    if least:
        fields = {"source": "s", "destination": {"url": "http://a.test"}, **fields}
    check(json.dumps(fields, ensure_ascii=least).encode(errors="surrogatepass"))


@given(st.dictionaries(names, values | parts | st.binary(max_size=3), max_size=4))
def test_any_python_values(fields: dict[str, Any]) -> None:
    known = {k: v for k, v in fields.items() if k in Task.__struct_fields__}
    try:
        one = Task(**{"source": "s", "destination": Destination(url="http://a.test"), **known})
        one = validation.check(taken(one), max_payload=LIMIT)
    except ValidationError:
        return
    assert_legal(one)


@given(st.data())
def test_a_valid_task_with_one_byte_changed(data: st.DataObject) -> None:
    body = bytearray(
        b'{"source":"s","destination":{"url":"http://a.test","headers":{"A":"1"}},'
        b'"max_retries":5,"message_data":{"a":[1,"\\u00fc"]},"backoff":{"jitter":0.5}}'
    )
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    check(bytes(body))


# -- legal tasks -------------------------------------------------------------------------------

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
readable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255)
year = st.floats(0.001, 31_536_000)
destinations = st.one_of(
    st.builds(
        Destination,
        url=st.sampled_from(["http://a.test", "https://u:p@A.test:8443/x?y#z", "http://[::1]:80/"]),
        method=st.none() | st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "GET"]),
        headers=st.none() | st.dictionaries(st.sampled_from(["A", "b", "X-C"]), st.just("v")),
        timeout=st.none() | st.floats(0.001, 300),
        fatal_statuses=st.none() | st.lists(st.sampled_from(["4xx", "5xx", 300, 599]), max_size=3),
    ),
    st.builds(
        Destination,
        host=st.just("h"),
        port=st.integers(1, 65535) | st.integers(1, 65535).map(str) | st.just(""),
        topic=st.just("t"),
        headers=st.none() | st.just([("a", "b"), ("a", None), ("c", Base64("AAE="))]),
        partition=st.none() | st.integers(0, 2**31 - 1),
    ),
)
backoffs = st.builds(
    Backoff,
    strategy=st.none() | st.sampled_from([*STRATEGIES]),
    factor=st.none() | st.floats(1, 100),
    max_delay=st.none() | year,
    jitter=st.none() | st.sampled_from(["none", "full", "equal"]) | st.floats(0, 1),
).map(lambda b: replace(b, schedule=[1.0, 2.0]) if b.strategy == "schedule" else b)
tasks = st.builds(
    Task,
    id=visible,
    source=readable,
    destination=destinations,
    dead_destination=st.none() | destinations,
    max_retries=st.integers(0, 100),
    base_delay=st.floats(0.001, 86400),
    delay=st.none() | st.floats(0, 31_536_000),
    backoff=st.none() | backoffs,
    ttl=st.none() | year,
    failures=st.integers(0, 100),
    client_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=255),
    is_priority=st.booleans(),
    message_data=st.text(st.characters(exclude_categories=["Cs"])),
    message_key=st.just(msgspec.UNSET)
    | st.none()
    | st.text(st.characters(codec="utf-8"), max_size=99),
    lane=st.none() | visible,
)


@given(tasks)
@settings(max_examples=50)
def test_every_legal_task_comes_back_as_it_was_sent(one: Task) -> None:
    again = read(encode(one))
    assert again == one
    assert taken(one) == one
    assert check(encode(one)) == one
    assert meaning.digest(again) == meaning.digest(one)


@given(tasks, values)
@settings(max_examples=50)
def test_every_json_message_is_sent_as_its_text(one: Task, value: Any) -> None:
    text = json.dumps(value)
    body = encode(replace(one, message_data=""))
    joined = body[:-1] + b',"message_data":' + text.encode() + b"}"
    if "NaN" in text or "Infinity" in text or re.search(r"\\ud[89a-f]", text):
        return
    sent = validation.message(read(joined))
    assert sent == (value.encode() if isinstance(value, str) else text.encode())
