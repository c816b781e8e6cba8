"""The fields of a task: section 2, line by line."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rebound.domain import validation
from rebound.domain.backoff import STRATEGIES, Backoff
from rebound.domain.destination import Destination
from rebound.domain.errors import InvalidBody, ValidationError
from tests.unit.door import VALID, checked, digest, parse, parse_text, read, refused

# -- what is given and what is not -------------------------------------------------------------


def test_the_least_that_is_a_task_has_the_defaults_of_the_table() -> None:
    one = checked()
    assert (one.id, one.max_retries, one.base_delay, one.failures) == ("", 5, 10, 0)
    assert (one.delay, one.backoff, one.ttl, one.dead_destination) == (None, None, None, None)
    assert (one.client_id, one.is_priority, one.message_data) == ("", False, "")
    assert (one.message_encoding, one.message_key, one.lane) == ("text", msgspec.UNSET, None)


@pytest.mark.parametrize("missing", ["source", "destination"])
def test_a_missing_required_field_is_named(missing: str) -> None:
    body = {k: v for k, v in VALID.items() if k != missing}
    for absent in (body, {**body, missing: None}):
        with pytest.raises(ValidationError, match=f"^{missing}: is required$") as caught:
            read(json.dumps(absent).encode())
        assert caught.value.field == missing


OPTIONAL = (
    "id", "dead_destination", "destination_type", "max_retries", "base_delay", "delay", "backoff",
    "ttl", "failures", "client_id", "is_priority", "message_encoding", "lane", "attempt",
)  # fmt: skip


@pytest.mark.parametrize("field", OPTIONAL)
def test_null_means_not_given(field: str) -> None:
    assert parse(**{field: None}) == parse()


def test_null_means_not_given_inside_destination_and_backoff() -> None:
    url = "http://a.test/hook"
    bare = dict.fromkeys(Destination.__struct_fields__)
    assert parse(destination={**bare, "url": url}) == parse()
    assert parse(backoff=dict.fromkeys(Backoff.__struct_fields__)) == parse(backoff={})
    folded = {"url": None, "host": "h", "port": None, "topic": "t"}
    assert parse(destination=folded).destination.address == "kafka://h:9092/t"
    assert checked(dead_destination=bare).dead_destination is None


def test_null_is_a_message_and_a_key() -> None:
    one = parse(message_data=None, message_key=None, client_id=None)
    assert validation.message(one) == b"null"
    assert one.message_key is None


def test_null_is_no_header_value_and_no_entry() -> None:
    url = {"url": "http://a.test"}
    assert refused(destination={**url, "headers": {"A": None}}).field == "destination.headers[...]"
    assert refused(backoff={"strategy": "schedule", "schedule": [None]}).field == (
        "backoff.schedule[0]"
    )


def test_an_all_empty_dead_destination_counts_as_absent() -> None:
    for empty in ({}, {"url": ""}, {"host": "", "port": "", "topic": ""}):
        assert checked(dead_destination=empty).dead_destination is None
    assert refused(dead_destination={"host": "h"}).field == "dead_destination"


# -- unknown fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "nearest"),
    [
        ({"max_retry": 5}, "max_retry", "max_retries"),
        ({"maxRetries": 5}, "maxRetries", "max_retries"),
        ({"dead_destinaton": {}}, "dead_destinaton", "dead_destination"),
        ({"prioritiy": True}, "prioritiy", "is_priority"),
        ({"mesage_data": None}, "mesage_data", "message_data"),
        ({"destination": {"ulr": "x"}}, "destination.ulr", "url"),
        ({"destination": {"url": "http://a.test", "metod": "PUT"}}, "destination.metod", "method"),
        ({"dead_destination": {"hosts": None}}, "dead_destination.hosts", "host"),
        ({"backoff": {"facter": 2}}, "backoff.facter", "factor"),
        ({"backoff": {"maxDelay": 2, "jitter": None}}, "backoff.maxDelay", "max_delay"),
        ({"message_key": {"base64": "", "base_64": ""}}, "message_key.base_64", "base64"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(
    fields: dict[str, Any], field: str, nearest: str
) -> None:
    error = refused(**fields)
    assert error.field == field
    assert str(error) == f"{field}: unknown field; did you mean {nearest!r}?"


def test_where_none_is_near_all_are_listed() -> None:
    error = refused(zzz=1)
    assert str(error).startswith("zzz: unknown field; known are source, destination, id, ")
    assert "state" not in str(error)


def test_a_name_of_a_megabyte_is_not_repeated() -> None:
    assert len(str(refused(**{"x" * 1_000_000: 1}))) < 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "dead"}, {"state": "nonsense"}, {"leg": "main"}, {"lease": ["a", "b"]},
        {"lost": [1.0]}, {"created_at": 1.5}, {"created_at": "2026-01-01T00:00:00.000Z"},
        {"attempts": [["main", 1, 1.0, 1.0, "failed"]]}, {"dead_attempt": 3}, {"dead_at": 1},
        {"replayed_at": 5}, {"due_at": 5}, {"updated_at": 5}, {"finished_at": 5},
        {"dead_reason": "expired"}, {"dead_letter": "none"}, {"last_error": "x"},
        {"state": None}, {"lease": None}, {"dead_attempt": 0}, {"attempts": []},
    ],
)  # fmt: skip
def test_what_rebound_writes_itself_is_refused_from_callers(fields: dict[str, Any]) -> None:
    (name,) = fields
    assert str(refused(**fields)).startswith(f"{name}: unknown field")


def test_inside_a_message_such_names_are_nobodys_business() -> None:
    assert checked(message_data={"state": None, "lease": 1}).state is None


@pytest.mark.parametrize("attempt", [0, 3, -1, 10**20])
def test_the_attempt_of_the_originals_clients_is_accepted_and_ignored(attempt: int) -> None:
    assert checked(attempt=attempt).accepted().attempt == 0
    assert digest(attempt=attempt) == digest()


# -- types and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_retries", v) for v in ("5", 5.0, True, -1, 101, 10**30, [5], {})),
        *(("failures", v) for v in ("1", 1.0, False, -1, 101)),
        *(("base_delay", v) for v in ("10", True, 0, 0.0009, 86401, -1, [10])),
        *(("delay", v) for v in ("0", False, -1, -0.001, 31536001)),
        *(("ttl", v) for v in ("1", True, 0, -1, 31536001)),
        *(("is_priority", v) for v in (0, 1, "true", [])),
        *(("id", v) for v in ("", 5, "a b", "a\n", "é", "x" * 256, "\x7f", True)),
        *(("source", v) for v in ("", 5, "a\nb", "\x00", "\x85", "x" * 256, ["a"])),
        *(("lane", v) for v in ("", 5, "a b", "é", "x" * 256)),
        *(("client_id", v) for v in (5, "x" * 256, False)),
        *(("destination_type", v) for v in ("", "HTTP", "smtp", 5)),
        *(("message_encoding", v) for v in ("", "hex", "BASE64", 5, True)),
        *(("message_key", v) for v in (5, True, ["a"], 1.5)),
        *(("destination", v) for v in ("http://a.test", 5, [], True)),
        *(("backoff", v) for v in ("fixed", 5, ["fixed"])),
        *(("attempt", v) for v in ("1", 1.5, True)),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(field: str, value: Any) -> None:
    assert refused(**{field: value}).field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"max_retries": 0}, {"max_retries": 100}, {"failures": 100}, {"base_delay": 0.001},
        {"base_delay": 86400}, {"delay": 0}, {"delay": 31536000}, {"ttl": 0.001},
        {"ttl": 31536000}, {"id": "x" * 255}, {"id": "!~/%{}"}, {"source": "ü" * 255},
        {"source": " "}, {"client_id": ""}, {"client_id": "a\nb"}, {"lane": "a|b"},
        {"base_delay": 1e1}, {"base_delay": 10.5}, {"message_key": ""},
    ],
)  # fmt: skip
def test_the_limits_themselves_are_accepted(fields: dict[str, Any]) -> None:
    (name,) = fields
    assert getattr(checked(**fields), name) == fields[name]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "+1", "01", "1.", ".5", "0x1"])
def test_what_json_does_not_know_as_a_number_is_no_json(number: str) -> None:
    for field in ("delay", "ttl", "max_retries", "message_data"):
        with pytest.raises(InvalidBody):
            parse_text(f'"{field}": {number}')


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_beyond_all_bounds_is_refused(number: str) -> None:
    for field in ("base_delay", "delay", "ttl"):
        with pytest.raises(ValidationError) as caught:
            parse_text(f'"{field}": {number}')
        assert caught.value.field == field


def test_the_last_of_two_equal_names_counts() -> None:
    assert parse_text('"source": "other"').source == "other"


# -- agreement of fields -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "destination"),
    [
        ("http", {"url": "https://a.test"}),
        ("kafka", {"url": "kafka://h/t"}),
        ("kafka", {"host": "h", "port": "9092", "topic": "t"}),
        ("call", {"url": "call://x"}),
    ],
)
def test_the_destination_type_must_agree_with_the_destination(
    kind: str, destination: dict[str, Any]
) -> None:
    checked(destination=destination, destination_type=kind)
    for other in {"http", "kafka", "call"} - {kind}:
        error = refused(destination=destination, destination_type=other)
        assert error.field == "destination_type"
        assert kind in str(error)


def test_the_dead_destination_may_be_of_another_kind() -> None:
    one = checked(destination_type="http", dead_destination={"host": "h", "topic": "t"})
    assert one.dead_destination is not None
    assert one.dead_destination.place.kind == "kafka"


@pytest.mark.parametrize(
    ("backoff", "field"),
    [
        ({"strategy": "fibonacci"}, "backoff.strategy"),
        ({"strategy": ""}, "backoff.strategy"),
        ({"strategy": "schedule"}, "backoff.schedule"),
        ({"schedule": [1]}, "backoff.schedule"),
        ({"strategy": "fixed", "schedule": [1]}, "backoff.schedule"),
        ({"strategy": "schedule", "schedule": []}, "backoff.schedule"),
        ({"strategy": "schedule", "schedule": [1] * 101}, "backoff.schedule"),
        ({"strategy": "schedule", "schedule": [-1]}, "backoff.schedule[0]"),
        ({"strategy": "schedule", "schedule": [1, "2"]}, "backoff.schedule[1]"),
        ({"strategy": "schedule", "schedule": [31536001]}, "backoff.schedule[0]"),
        ({"factor": 0.99}, "backoff.factor"),
        ({"factor": 100.1}, "backoff.factor"),
        ({"factor": "2"}, "backoff.factor"),
        ({"max_delay": 0}, "backoff.max_delay"),
        ({"max_delay": 31536001}, "backoff.max_delay"),
        ({"jitter": "some"}, "backoff.jitter"),
        ({"jitter": "0.5"}, "backoff.jitter"),
        ({"jitter": -0.1}, "backoff.jitter"),
        ({"jitter": 1.1}, "backoff.jitter"),
        ({"jitter": True}, "backoff.jitter"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(backoff: dict[str, Any], field: str) -> None:
    assert refused(backoff=backoff).field == field


@pytest.mark.parametrize(
    "backoff",
    [
        {}, {"strategy": "linear"}, {"strategy": "fixed", "jitter": "full"}, {"jitter": 0},
        {"jitter": 1}, {"jitter": "none"}, {"jitter": "equal"}, {"factor": 1}, {"factor": 100},
        {"strategy": "schedule", "schedule": [0]}, {"max_delay": 0.001, "factor": 1.5},
        {"strategy": "schedule", "schedule": [31536000] * 100},
    ],
)  # fmt: skip
def test_a_backoff_within_its_limits_is_accepted(backoff: dict[str, Any]) -> None:
    checked(backoff=backoff)


def test_a_strategy_of_the_programs_own_is_known_where_it_is_registered() -> None:
    own = {**STRATEGIES, "fibonacci": STRATEGIES["fixed"]}
    one = parse(backoff={"strategy": "fibonacci"})
    validation.check(one, max_payload=0, strategies=own)
    with pytest.raises(ValidationError, match=r"known are exponential, linear, fixed, schedule$"):
        validation.check(one, max_payload=0)
