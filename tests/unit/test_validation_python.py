"""Tasks as Python programs make them: checked like JSON, though a constructor checks nothing."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from rebound.domain import meaning, validation
from rebound.domain.attempt import Leg, State
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination, DestinationType
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from tests.unit.door import taken

AT = Destination(url="http://a.test/hook")
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def made(**fields: Any) -> Task:
    given = Task(**{"source": "s", "destination": AT, **fields})
    return validation.check(taken(given), max_payload=1_048_576)


def refused(**fields: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        made(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("text", b"text"),
        ('{"order_id": 123}', b'{"order_id": 123}'),
        (
            {"order_id": 123, "ü": [1.5, None, True]},
            '{"order_id":123,"ü":[1.5,null,true]}'.encode(),
        ),
        ([], b"[]"),
        ((1, 2), b"[1,2]"),
        (5, b"5"),
        (0.1, b"0.1"),
        (False, b"false"),
        (None, b"null"),
        (2**70, str(2**70).encode()),
        (msgspec.Raw(b'{"a": 1}'), b'{"a": 1}'),
        (msgspec.Raw(b'"a"'), b"a"),
    ],
)
def test_a_string_is_sent_as_it_is_and_any_other_value_as_compact_json(
    data: Any, sent: bytes
) -> None:
    assert validation.message(made(message_data=data)) == sent


@pytest.mark.parametrize(
    "data",
    [
        b"bytes", bytearray(b"x"), math.nan, math.inf, {"a": math.nan}, [[-math.inf]], {1: 2},
        {None: 1}, {1, 2}, datetime.datetime(2026, 1, 1), datetime.date(2026, 1, 1), object(),
        uuid.UUID(int=5), decimal.Decimal("1.5"), 1j, {"a": [b"x"]}, "\ud800", {"a": "\udfff"},
        {"\ud800": 1}, CYCLE, deep(100_000), len,
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_what_json_has_no_word_for_is_refused_as_a_message(data: Any) -> None:
    assert refused(message_data=data).field == "message_data"


@pytest.mark.parametrize(
    "data",
    [
        msgspec.Raw(b""), msgspec.Raw(b"{bad"), [10**5000],
        msgspec.Raw(b'["\xff"]'), msgspec.Raw(b'"\xff"'),
    ],
)  # fmt: skip
def test_what_cannot_be_written_at_all_is_refused(data: Any) -> None:
    assert "cannot be written as JSON" in str(refused(message_data=data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("source", v) for v in (b"abc", 5, None, "", datetime.date(2026, 1, 1))),
        *(("id", v) for v in (uuid.UUID(int=5), 5, b"x", "a b")),
        *(("max_retries", v) for v in ("5", 5.0, True, decimal.Decimal(5), 10**400)),
        *(("base_delay", v) for v in ("5", True, math.nan, math.inf, datetime.timedelta(1))),
        *(("delay", v) for v in (math.nan, -math.inf, "0", False)),
        *(("ttl", v) for v in (math.nan, math.inf, b"1", 0)),
        *(("is_priority", v) for v in (0, 1, "true")),
        *(("client_id", v) for v in (b"c", 5)),
        *(("message_key", v) for v in (b"k", 5, "\ud800")),
        *(("destination", v) for v in ("http://a.test", None, b"x")),
        *(("backoff", v) for v in ("fixed", 5, object())),
        *(("lane", v) for v in (b"x", "")),
        *(("attempt", v) for v in ("1", 1.0)),
        *(("leg", v) for v in (Leg.MAIN, "dead", "x")),
        ("lease", 5),
        ("dead_attempt", 1),
        ("attempts", [5]),
        ("created_at", 5.0),
    ],
)
def test_a_field_of_the_wrong_python_type_is_named(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.field == field
    assert str(error).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("destination", "field"),
    [
        (Destination(url=b"http://a"), "destination.url"),  # type: ignore[arg-type]
        (Destination(url="http://a", timeout=math.nan), "destination.timeout"),
        (Destination(url="http://a", headers={5: "x"}), "destination.headers"),  # type: ignore[dict-item]
        (Destination(url="http://a", headers={"a": b"x"}), "destination.headers"),  # type: ignore[dict-item]
        (Destination(url="http://a", method="get"), "destination.method"),
        (Destination(url="http://a/\ud800"), "destination.url"),
        (Destination(host="h", port=9.0, topic="t"), "destination.port"),  # type: ignore[arg-type]
        (Destination(), "destination"),
    ],
)
def test_so_is_one_of_the_destination(destination: Destination, field: str) -> None:
    assert refused(destination=destination).field == field


def test_and_one_of_the_backoff() -> None:
    assert refused(backoff=Backoff(jitter=math.nan)).field == "backoff.jitter"
    assert refused(backoff=Backoff(factor=True)).field == "backoff.factor"
    wrong = Backoff(strategy="schedule", schedule=[math.inf])
    assert refused(backoff=wrong).field == "backoff.schedule"


def test_what_is_no_task_is_refused() -> None:
    for wrong in (None, {"source": "s"}, "task", AT):
        with pytest.raises(ValidationError, match=r"^expected a Task, got "):
            taken(wrong)  # type: ignore[arg-type]


def test_none_means_not_given_as_null_does() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("client_id", "max_retries", "id", "is_priority"))
    bare = Destination(url=AT.url, host=None, port=None)  # type: ignore[arg-type]
    assert made(**nothing, destination=bare) == made()
    assert made(message_key=None).message_key is None


def test_plain_dicts_do_for_destination_and_backoff() -> None:
    one = made(destination={"url": AT.url}, backoff={"strategy": "fixed"})
    assert (one.destination, one.backoff) == (AT, Backoff(strategy="fixed"))
    assert refused(destination={"ulr": "x"}).field == "destination.ulr"


def test_nothing_strange_hides_in_a_dict_beside_a_message_that_is_one() -> None:
    strange = {"url": AT.url, "timeout": math.nan}
    assert refused(destination=strange, message_data={}).field == "destination"
    assert refused(backoff={"jitter": math.nan}, message_data={"a": 1}).field == "backoff"
    assert refused(ttl=math.inf, message_data=1.5).field == "ttl"


def test_the_enums_are_as_good_as_their_strings() -> None:
    assert made(destination_type=DestinationType.HTTP).destination_type == "http"
    folded = Destination(host="h", port=9092, topic="t")
    one = made(destination=folded, destination_type=DestinationType.KAFKA)
    assert one.destination.address == "kafka://h:9092/t"
    key = made(message_key=Base64("AAE=")).message_key
    assert key == Base64("AAE=")


def test_whole_numbers_do_for_seconds() -> None:
    one = made(base_delay=5, delay=0, ttl=7, destination=Destination(url=AT.url, timeout=3))
    assert (one.base_delay, one.delay, one.ttl, one.destination.timeout) == (5.0, 0.0, 7.0, 3.0)


def test_a_task_that_rebound_returned_can_be_handed_in_again() -> None:
    kept = replace(
        made(id="a", message_data={"a": 1}).accepted(),
        state=State.DEAD, attempt=5, created_at=1.0, last_error="HTTP 500", dead_attempt=2,
    )  # fmt: skip
    again = taken(kept)
    assert again == replace(made(id="a", message_data={"a": 1}), message_data=again.message_data)
    assert meaning.digest(again) == meaning.digest(made(id="a", message_data={"a": 1}))


def test_python_and_json_mean_the_same() -> None:
    from_json = validation.parse(
        b'{"source":"s","destination":{"url":"http://a.test/hook"},"id":"a","base_delay":5,'
        b'"message_data":{"a":1}}'
    )
    from_python = made(id="a", base_delay=5, message_data={"a": 1})
    assert meaning.digest(from_python) == meaning.digest(from_json)
