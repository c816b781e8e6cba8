"""The task that a record becomes when its handler has failed."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound import Backoff, Base64, Destination, Reject, RetryPolicy, Task, ValidationError
from rebound.adapters.producers import kafka_record
from rebound.domain import meaning, redelivery, validation
from rebound.domain.attempt import DeadReason, Leg, State
from rebound.domain.record import Header, Record, record
from rebound.domain.redelivery import DELIVERIES, Redelivery, same_record

OOPS = ValueError("no such customer")
NOW = 1_800_000_000.0


def a_record(**fields: Any) -> Record:
    given: dict[str, Any] = {
        "topic": "orders", "partition": 3, "offset": 17, "key": b"customer-1", "value": b"{}",
        "headers": [("trace", b"a"), ("trace", b"b")], "timestamp": 1_700_000_000_123,
    }  # fmt: skip
    return record(**{**given, **fields})


def a_redelivery(**retry: Any) -> Redelivery:
    return Redelivery("billing", "a:9092,b:9092", RetryPolicy(**retry), "orders.dead")


def back(task: Task, offset: int) -> Record:
    """What a consumer reads when Rebound has brought the record of `task` back."""
    return sent(checked(task), offset)


def sent(task: Task, offset: int = 30) -> Record:
    made = kafka_record.record(task)
    headers = [(n, v.encode() if isinstance(v, str) else v) for n, v in made.headers]
    return record(
        "orders", made.partition, offset, made.key, made.value, headers, made.timestamp or None
    )


def checked(task: Task) -> Task:
    """As it comes out of a store that took it."""
    return validation.check(validation.from_python(task), max_payload=1_048_576).accepted()


# -- what is preserved -------------------------------------------------------------------------

maybe_bytes = st.none() | st.binary(max_size=40) | st.text(max_size=10).map(str.encode)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)  # C strings
headers = st.lists(st.tuples(names.map("h".__add__), maybe_bytes), max_size=5)


@given(key=maybe_bytes, value=maybe_bytes, headers=headers, timestamp=st.none() | st.just(12345))
def test_key_value_headers_partition_and_timestamp_come_back_as_they_were(
    key: bytes | None, value: bytes | None, headers: list[Header], timestamp: int | None
) -> None:
    first = a_record(key=key, value=value, headers=headers, timestamp=timestamp)
    for again in (first, back(a_redelivery().task(first, OOPS, NOW), 18)):
        second = back(a_redelivery().task(again, OOPS, NOW), 19)
        assert second == Record(
            "orders", 3, 19, key, value, tuple(headers), timestamp, again.failures + 1, "billing"
        )


@given(key=maybe_bytes, value=maybe_bytes, headers=headers)
def test_the_dead_letter_has_the_original_bytes_key_and_headers(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> None:
    first = a_record(key=key, value=value, headers=headers)
    dead = back(a_redelivery(max_retries=1).task(first, OOPS, NOW), 0)
    assert (dead.key, dead.value, dead.own_headers) == (key, value, tuple(headers))
    told = dict(dead.headers)
    assert told["rebound-error"] == b"ValueError: no such customer"
    assert told["rebound-timestamp"] == b"1700000000123"
    assert told["rebound-task-id"] == b"{orders:3}:17"
    assert dead.failures == 0  # whoever consumes the dead topic begins to count anew
    assert dead.group is None


def test_headers_of_an_earlier_delivery_by_rebound_are_replaced() -> None:
    first = a_record(headers=[("rebound-task-id", b"t1"), ("Rebound-Attempt", b"1"), ("a", b"b")])
    assert first.headers[0] == ("rebound-task-id", b"t1")
    again = back(a_redelivery().task(first, OOPS, NOW), 18)
    assert again.headers == (("a", b"b"),)


# -- when, and how often -----------------------------------------------------------------------


def test_the_kth_failure_waits_the_policys_kth_delay_and_the_last_one_is_the_end() -> None:
    policy = a_redelivery(max_retries=4, base_delay=10)
    one, waits = a_record(), []
    for offset in (18, 19, 20):
        task = policy.task(one, OOPS, NOW)
        waits.append(checked(task).first_wait(0.5))
        one = back(task, offset)
    assert waits == [10, 20, 40]
    assert one.failures == 3
    last = checked(policy.task(one, OOPS, NOW))
    assert (last.leg, last.dead_reason, last.first_wait(0.5)) == (Leg.DEAD, DeadReason.EXHAUSTED, 0)
    assert (last.failures, last.max_retries) == (4, 4)


@pytest.mark.parametrize("failures", range(4))
def test_bringing_it_back_may_fail_a_hundred_times_whatever_the_handler_has_used_up(
    failures: int,
) -> None:
    one = a_record(headers=[("rebound-failures", str(failures).encode())])
    task = checked(a_redelivery(max_retries=5).task(one, OOPS, NOW))
    assert task.budget == DELIVERIES
    assert task.leg == Leg.MAIN


@pytest.mark.parametrize("most", [0, 1])
def test_zero_and_one_both_mean_one_failure(most: int) -> None:
    assert checked(a_redelivery(max_retries=most).task(a_record(), OOPS, NOW)).leg == Leg.DEAD


def test_a_count_above_the_policys_is_dead_at_once() -> None:
    one = a_record(headers=[("rebound-failures", b"9999999999")])
    assert checked(a_redelivery(max_retries=3).task(one, OOPS, NOW)).leg == Leg.DEAD


def test_reject_is_dead_at_once() -> None:
    task = checked(a_redelivery(max_retries=50).task(a_record(), Reject("spam"), NOW))
    assert (task.leg, task.failures) == (Leg.DEAD, 50)
    assert ("rebound-error", "Reject: spam") in list(task.target.headers or ())


def test_replayed_by_a_person_a_dead_record_comes_back_to_its_group_with_a_fresh_count() -> None:
    policy = a_redelivery(max_retries=1)
    dead = checked(policy.task(a_record(), OOPS, NOW))
    again = sent(replace(dead, state=State.DEAD).replayed(NOW))
    assert (again.failures, again.group) == (0, "billing")


def test_the_ttl_begins_with_the_first_failure_and_is_not_renewed() -> None:
    policy = a_redelivery(ttl=100, base_delay=60)
    first = policy.task(a_record(), OOPS, NOW)
    assert first.ttl == 100
    again = back(first, 18)
    assert again.expires == int((NOW + 100) * 1000)
    assert policy.task(again, OOPS, NOW + 70).ttl == pytest.approx(30)
    late = checked(policy.task(again, OOPS, NOW + 170))
    assert late.first_wait(0.5) == 0.001  # and then it is `expired`


def test_the_same_failure_is_the_same_task_though_jitter_is_chance() -> None:
    policy = a_redelivery(backoff=Backoff(jitter="full"))
    one, two = (meaning.digest(checked(policy.task(a_record(), OOPS, NOW))) for _ in "ab")
    assert one == two
    waits = {policy.task(a_record(offset=n), OOPS, NOW).delay for n in range(20)}
    assert len(waits) == 20


def test_consumers_in_other_languages_hand_over_the_count_by_failures() -> None:
    to = Destination(url="kafka:///orders")

    def comes_back(**fields: Any) -> Record:
        return sent(checked(Task(source="shipping", **{"destination": to, **fields})))

    assert comes_back().failures == 0
    assert comes_back(failures=2).failures == 2
    named = Destination(url="kafka:///orders", headers=[("rebound-failures", "3")])
    assert comes_back(failures=2, destination=named).failures == 3


# -- ids ---------------------------------------------------------------------------------------


def test_the_id_says_where_the_record_stands() -> None:
    assert a_redelivery().task(a_record(), OOPS, NOW).id == "{orders:3}:17"


def test_ids_of_long_topics_are_shortened_and_stay_different() -> None:
    long = ["x" * 248 + end for end in "ab"]
    tasks = [
        a_redelivery().task(a_record(topic=topic, partition=2**31 - 1, offset=2**63 - 1), OOPS, NOW)
        for topic in long
    ]
    moved = [a_redelivery().elsewhere(task) for task in tasks]
    assert len({one.id for one in (*tasks, *moved)}) == 4
    for task in (*tasks, *moved):
        checked(task)


def test_the_task_of_another_group_cluster_or_former_topic_is_another_records() -> None:
    task = a_redelivery().task(a_record(), OOPS, NOW)
    assert same_record(a_redelivery(base_delay=77, ttl=5).task(a_record(), OOPS, NOW), task)
    others = [
        a_redelivery()._replace(group="audit").task(a_record(), OOPS, NOW),
        a_redelivery()._replace(brokers="c:9092").task(a_record(), OOPS, NOW),
        a_redelivery().task(a_record(timestamp=5), OOPS, NOW),
        a_redelivery().task(a_record(value=b"x"), OOPS, NOW),
        a_redelivery().task(a_record(key=None), OOPS, NOW),
    ]
    assert not any(same_record(task, other) for other in others)
    assert a_redelivery().elsewhere(task).id not in {
        policy.elsewhere(task).id for policy in (a_redelivery()._replace(group="audit"),)
    }


# -- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"x", "٣".encode(), b"9" * 17])
def test_a_count_that_is_no_number_is_none(text: bytes) -> None:
    assert a_record(headers=[("rebound-failures", text)]).failures == 0


def test_only_redeliveries_for_other_groups_are_foreign() -> None:
    policy = a_redelivery()
    assert not policy.is_foreign(a_record())
    assert not policy.is_foreign(a_record(headers=[("rebound-failures", b"1")]))
    assert not policy.is_foreign(a_record(headers=[("rebound-group", b"billing")]))
    assert policy.is_foreign(a_record(headers=[("rebound-group", b"audit")]))


# -- policies ----------------------------------------------------------------------------------


def test_a_policy_may_be_a_retry_a_mapping_or_a_task() -> None:
    backoff = Backoff(strategy="schedule", schedule=[1, 2])
    wanted = RetryPolicy(max_retries=3, base_delay=2, backoff=backoff)
    fields: dict[str, Any] = {"max_retries": 3, "base_delay": 2, "backoff": backoff}
    task = Task(source="s", destination=Destination(url="kafka:///t"), **fields)
    plain = {**fields, "backoff": {"strategy": "schedule", "schedule": [1, 2]}}
    assert [redelivery.policy(given) for given in (wanted, fields, task, plain)] == [wanted] * 4
    assert redelivery.policy(None) == RetryPolicy()


@pytest.mark.parametrize("bad", [{"max_retries": -1}, {"max_retrys": 1}, {"ttl": "1"}, 5])
def test_a_policy_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        redelivery.policy(bad)
    assert caught.value.field == "retry"


def test_a_dead_topic_or_strategy_that_cannot_be_is_found_before_the_first_failure() -> None:
    a_redelivery().check(["orders"])
    with pytest.raises(ValidationError, match="topic"):
        a_redelivery()._replace(dead_topic="a/b").check(["orders"])
    with pytest.raises(ValidationError, match="strategy"):
        a_redelivery(backoff=Backoff(strategy="mine")).check(["orders"])


def test_a_record_that_no_store_takes_becomes_a_dead_letter_for_the_producer() -> None:
    huge = a_record(key=b"k" * 5000)
    letter = sent(a_redelivery().buried(huge, OOPS, "message_key: is longer"))
    assert letter.key == huge.key
    told = dict(letter.headers)
    assert told["rebound-dead-reason"] == b"rejected"
    assert told["rebound-last-error"] == b"message_key: is longer"


def test_binary_parts_are_base64_in_the_task() -> None:
    task = a_redelivery().task(
        a_record(key=b"\xff", value=b"\xfe", headers=[("h", b"\xfd")]), OOPS, NOW
    )
    assert task.message_key == Base64("/w==")
    assert base64.b64decode(str(task.message_data)) == b"\xfe"
    assert task.message_encoding == "base64"
    assert next(iter(task.destination.headers or ())) == ("h", Base64("/Q=="))
