"""What a task's record is made of."""

from __future__ import annotations

from typing import Any

import pytest

from rebound.adapters.producers.kafka_record import record
from rebound.domain.destination import Base64, Destination
from rebound.domain.task import Task
from rebound.domain.validation import parse
from tests.support import fail, submission, task


def made(**fields: Any) -> Task:
    fields.setdefault("destination", Destination(url="kafka://h/topic"))
    return task("id-1", **fields).accepted()


def dead(**fields: Any) -> Task:
    """A task whose only attempt has failed, with an attempt of its dead leg to come."""
    fields.setdefault("dead_destination", Destination(url="kafka://h/dead"))
    return fail(made(max_retries=1, **fields), 1000.0)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, b""),
        ({"message_data": "héllo\0"}, "héllo\0".encode()),
        ({"message_data": "null"}, b"null"),
        ({"message_data": None}, None),
        ({"message_data": {"a": [1, None]}}, b'{"a":[1,null]}'),
        ({"message_data": "AP8=", "message_encoding": "base64"}, b"\0\xff"),
        ({"message_data": "bnVsbA==", "message_encoding": "base64"}, b"null"),
        ({"message_data": "", "message_encoding": "base64"}, b""),
    ],
)
def test_the_value_is_the_message_byte_for_byte(fields: dict[str, Any], value: Any) -> None:
    assert record(made(**fields)).value == value
    assert record(dead(**fields)).value == value


def test_json_is_sent_as_the_text_that_was_received() -> None:
    data = b'{"n": 1.50,  "x":1e3}'
    text = b'{"source":"s","destination":{"url":"kafka://h/t"},"message_data":%b}' % data
    assert record(submission(parse(text)).task).value == data


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, b"id-1"),
        ({"message_key": "käy"}, "käy".encode()),
        ({"message_key": ""}, b""),
        ({"message_key": None}, None),
        ({"message_key": Base64(base64="AP8=")}, b"\0\xff"),
    ],
)
def test_the_key_is_the_same_on_every_attempt_and_leg(fields: dict[str, Any], key: Any) -> None:
    first = made(**fields)
    for one in (first, fail(first, 1000.0), dead(**fields)):
        assert record(one).key == key


def test_headers_may_repeat_and_ours_come_last() -> None:
    listed = [("a", "1"), ("A", Base64(base64="AP8=")), ("a", None), ("", "x\0y")]
    target = Destination(url="kafka://h/t", headers=listed)
    one = fail(made(destination=target, message_data="x"), 1000.0)
    assert record(one).headers == [
        ("a", b"1"), ("A", b"\0\xff"), ("a", None), ("", b"x\0y"),
        ("rebound-task-id", b"id-1"), ("rebound-attempt", b"2"), ("rebound-source", b"tests"),
    ]  # fmt: skip
    named = made(destination=Destination(url="kafka://h/t", headers={"b": "2"}))
    assert record(named).headers[0] == ("b", b"2")


def test_a_dead_letter_tells_why_in_its_headers() -> None:
    source = "büro 1"
    target = Destination(url="https://user:hush@api.test/hook?token=hush")
    to = Destination(url="kafka://h/dead", headers={"x": "1"}, partition=2)
    one = Task(id="id-1", source=source, destination=target, dead_destination=to, max_retries=1)
    assert record(fail(one.accepted(), 1000.0)) == (
        b"", b"id-1", 2, 0,
        [
            ("x", b"1"),
            ("rebound-task-id", b"id-1"),
            ("rebound-attempt", b"1"),
            ("rebound-dead-reason", b"exhausted"),
            ("rebound-attempts", b"1"),
            ("rebound-last-error", b"HTTP 500"),
            ("rebound-source", b"b%C3%BCro 1"),
            ("rebound-original-destination", b"https://api.test/hook"),
        ],
    )  # fmt: skip


def test_partition_and_time_are_left_to_the_key_and_the_clock_unless_given() -> None:
    assert record(made())[2:4] == (-1, 0)
    given = Destination(url="kafka://h/t", partition=0, timestamp=1_700_000_000_000)
    assert record(made(destination=given))[2:4] == (0, 1_700_000_000_000)
