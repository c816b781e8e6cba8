"""What counts as the same content: after folding and defaults, the text of the message included."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rebound.domain import meaning
from tests.unit.door import checked, digest, parse_text

KAFKA = {"url": "kafka://h:9092/t"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"max_retries": 5, "base_delay": 10, "failures": 0, "client_id": ""}),
        ({}, {"base_delay": 10.0, "is_priority": False, "message_data": ""}),
        ({}, {"delay": None, "ttl": None, "backoff": None, "message_encoding": "text"}),
        ({}, {"destination_type": "http", "attempt": 7, "message_key": "t"}),
        ({}, {"backoff": {}}),
        ({}, {"backoff": {"strategy": "exponential", "factor": 2, "max_delay": 604800}}),
        ({}, {"backoff": {"jitter": "none"}}),
        ({}, {"backoff": {"jitter": 0}}),
        ({}, {"dead_destination": {"host": "", "port": "", "topic": ""}}),
        ({}, {"lane": "http://a.test"}),
        ({}, {"destination": {"url": "http://a.test/hook", "method": "POST", "timeout": 30}}),
        ({}, {"destination": {"url": "http://a.test/hook", "headers": {}}}),
        ({"ttl": 5}, {"ttl": 5.0}),
        ({"delay": 0}, {"delay": 0.0}),
        ({"message_data": "ü"}, {"message_data": "\u00fc"}),
        ({"destination": KAFKA}, {"destination": {"host": "h", "port": 9092, "topic": "t"}}),
        ({"destination": KAFKA}, {"destination": {"host": "h", "port": "9092", "topic": "t"}}),
        ({"destination": KAFKA}, {"destination": {"host": "h", "topic": "t"}}),
        (
            {"destination": {**KAFKA, "headers": {"a": "1"}}},
            {"destination": {**KAFKA, "headers": [["a", "1"]]}},
        ),
        (
            {"destination": {"url": "http://a.test", "headers": {"A": "1", "B": "2"}}},
            {"destination": {"url": "http://a.test", "headers": {"B": "2", "A": "1"}}},
        ),
        (
            {"destination": {"url": "http://a.test", "fatal_statuses": [404, "5xx"]}},
            {"destination": {"url": "http://a.test", "fatal_statuses": ["5xx", 404]}},
        ),
    ],
)
def test_what_means_the_same_has_one_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(**one) == digest(**other)
    assert len(digest(**one)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"source": "other"}),
        ({}, {"max_retries": 4}),
        ({}, {"base_delay": 10.5}),
        ({}, {"delay": 0}),
        ({}, {"ttl": 100}),
        ({}, {"failures": 1}),
        ({}, {"client_id": "c"}),
        ({}, {"is_priority": True}),
        ({}, {"message_key": "k"}),
        ({}, {"message_key": None}),
        ({"message_key": "AAE="}, {"message_key": {"base64": "AAE="}}),
        ({}, {"lane": "mine"}),
        ({}, {"message_data": "x"}),
        ({}, {"message_data": None}),
        ({}, {"message_encoding": "base64"}),
        ({"message_data": "5"}, {"message_data": 5}),
        ({"message_data": "null"}, {"message_data": None}),
        ({}, {"backoff": {"jitter": "full"}}),
        ({}, {"backoff": {"factor": 3}}),
        ({}, {"backoff": {"strategy": "fixed"}}),
        ({}, {"backoff": {"max_delay": 60}}),
        ({}, {"destination": {"url": "http://a.test/other"}}),
        ({}, {"destination": {"url": "http://a.test/hook", "method": "PUT"}}),
        ({}, {"destination": {"url": "http://a.test/hook", "timeout": 31}}),
        ({}, {"destination": {"url": "http://a.test/hook", "headers": {"A": "1"}}}),
        ({}, {"destination": {"url": "http://a.test/hook", "fatal_statuses": []}}),
        ({}, {"dead_destination": {"url": "http://dead.test"}}),
        (
            {"destination": {**KAFKA, "headers": [["a", "1"], ["b", "2"]]}},
            {"destination": {**KAFKA, "headers": [["b", "2"], ["a", "1"]]}},
        ),
        ({"destination": KAFKA}, {"destination": {**KAFKA, "partition": 0}}),
    ],
)
def test_what_means_something_else_has_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(**one) != digest(**other)


def test_the_text_of_the_message_counts() -> None:
    texts = ('{"a":1}', '{"a": 1}', '{"a":1.0}', '"{\\"a\\":1}"')
    found = {meaning.digest(replace(parse_text(f'"message_data": {t}'), id="t")) for t in texts}
    assert len(found) == 4


def test_the_id_alone_makes_no_difference_but_through_the_key() -> None:
    one, other = (replace(checked(message_key="k"), id=i) for i in ("a", "b"))
    assert meaning.digest(one) == meaning.digest(other)


def test_replacing_what_rebound_keeps_makes_no_difference() -> None:
    one = replace(checked(), id="t")
    later = replace(one.accepted(), created_at=5.0, attempt=3, last_error="x")
    assert meaning.digest(later) == meaning.digest(one)
