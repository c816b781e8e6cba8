"""When attempts happen: section 3, second by second."""

from __future__ import annotations

from typing import Any

import pytest

from rebound.domain.attempt import (
    DeadLetter,
    DeadReason,
    Leg,
    Outcome,
    State,
)
from rebound.domain.backoff import Backoff
from tests.support import fail, task
from tests.unit.lives import (
    BORN,
    DEAD,
    EXHAUSTED,
    Life,
    accepting,
    accepting_dead_letters,
    leased,
    stored,
)

# -- when attempts happen ----------------------------------------------------------------------


def test_five_retries_from_ten_seconds_happen_at_10_30_70_150_and_310() -> None:
    life = Life(task(delay=None, max_retries=5, base_delay=10))
    assert life.times() == [10, 30, 70, 150, 310]
    assert life.end == EXHAUSTED
    assert life.task.attempt == 5


def test_delivery_time_is_added_because_the_wait_counts_from_the_end_of_an_attempt() -> None:
    life = Life(task(delay=None), took=2)
    assert life.times() == [10, 32, 74, 156, 318]


@pytest.mark.parametrize("max_retries", [0, 1])
def test_no_and_one_retry_both_mean_one_attempt(max_retries: int) -> None:
    life = Life(task(delay=None, max_retries=max_retries))
    assert life.times() == [10]
    assert life.end == EXHAUSTED


def test_a_delay_replaces_the_first_wait_only() -> None:
    assert Life(task(delay=0)).times() == [0, 20, 60, 140, 300]
    assert Life(task(delay=100, max_retries=3)).times() == [100, 120, 160]


def test_a_hundred_attempts_are_made_and_no_more() -> None:
    life = Life(task(max_retries=100, backoff=Backoff(strategy="fixed"), base_delay=1))
    assert life.times() == [float(n) for n in range(100)]
    assert life.end == EXHAUSTED


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff(strategy="linear"), [10, 30, 60, 100]),
        (Backoff(strategy="fixed"), [10, 20, 30, 40]),
        (Backoff(strategy="schedule", schedule=[1, 60]), [1, 61, 121, 181]),
        (Backoff(factor=1, jitter=1.0), [10, 20, 30, 40]),
        (Backoff(max_delay=15), [10, 25, 40, 55]),
    ],
)
def test_the_policy_decides_the_times(backoff: Backoff, expected: list[float]) -> None:
    assert Life(task(delay=None, max_retries=4, backoff=backoff)).times() == expected


def test_a_strategy_of_the_programs_own_decides_them_as_well() -> None:
    own = {"own": lambda backoff, base, k: base + k}
    one = stored(task(delay=None, backoff=Backoff(strategy="own")))
    assert one.first_wait(0.5, own) == 11
    failed = fail(leased(one), BORN, strategies=own)
    assert failed.due_at == BORN + 12


def test_a_success_ends_it() -> None:
    life = Life(task(), accepting)
    assert life.times() == [0]
    assert life.end == (State.SUCCEEDED, None, None)
    assert life.task.finished_at == BORN
    assert [a.outcome for a in life.task.attempts] == [Outcome.SUCCEEDED]


# -- failures that happened elsewhere ----------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "max_retries", "expected"),
    [
        (1, 5, [20, 60, 140, 300]),
        (3, 5, [80, 240]),
        (4, 5, [160]),
        (1, 2, [20]),
        (99, 100, [604800]),
        (3, 0, [80]),
        (100, 0, [604800]),
    ],
)
def test_earlier_failures_lengthen_the_wait_and_take_attempts(
    failures: int, max_retries: int, expected: list[float]
) -> None:
    life = Life(task(delay=None, failures=failures, max_retries=max_retries))
    assert life.times() == expected
    assert life.end == EXHAUSTED


@pytest.mark.parametrize(("failures", "max_retries"), [(1, 1), (5, 5), (6, 5), (100, 100)])
def test_without_attempts_left_the_dead_leg_starts_at_once(failures: int, max_retries: int) -> None:
    fields: dict[str, Any] = {"failures": failures, "max_retries": max_retries, "delay": None}
    life = Life(task(dead_destination=DEAD, **fields), accepting)
    assert life.starts == [(Leg.DEAD, 1, 0)]
    assert life.end == (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.DELIVERED)
    assert life.task.last_error == f"{failures} failures before Rebound"
    none = stored(task(**fields))
    assert (none.state, none.dead_reason, none.dead_letter) == EXHAUSTED


# -- time to live ------------------------------------------------------------------------------


def test_at_its_expiry_the_main_leg_ends_without_a_further_attempt() -> None:
    life = Life(task(delay=None, ttl=100, dead_destination=DEAD), accepting_dead_letters)
    assert life.times() == [10, 30, 70]
    assert life.times(Leg.DEAD) == [100]
    assert life.end == (State.DEAD, DeadReason.EXPIRED, DeadLetter.DELIVERED)


def test_a_first_delay_beyond_the_expiry_is_cut_to_it() -> None:
    life = Life(task(delay=500, ttl=100))
    assert life.starts == []
    assert life.end == (State.DEAD, DeadReason.EXPIRED, DeadLetter.NONE)
    assert life.task.finished_at == BORN + 100


def test_an_attempt_under_way_at_the_expiry_may_still_succeed() -> None:
    life = Life(task(delay=99, ttl=100), accepting, took=30)
    assert life.end == (State.SUCCEEDED, None, None)


def test_the_last_attempt_failing_after_the_expiry_leaves_the_task_exhausted() -> None:
    life = Life(task(delay=99, ttl=100, max_retries=1), took=30)
    assert life.end == EXHAUSTED


def test_an_attempt_failing_after_the_expiry_is_due_at_once_and_then_expired() -> None:
    life = Life(task(delay=99, ttl=100), took=30)
    assert life.end[1] == DeadReason.EXPIRED
    assert life.task.finished_at == BORN + 129


def test_the_expiry_does_not_apply_to_the_dead_leg() -> None:
    life = Life(task(ttl=5, max_retries=1, dead_destination=DEAD), most=4)
    assert life.times(Leg.DEAD) == [0, 10, 30]


# -- what the receiver wishes ------------------------------------------------------------------


@pytest.mark.parametrize(("wish", "wait"), [(0, 20), (5, 20), (20, 20), (21, 21), (3600, 3600)])
def test_retry_after_moves_the_next_attempt_later_never_earlier(wish: float, wait: float) -> None:
    failed = fail(leased(stored(task())), BORN + 7, retry_after=wish)
    assert failed.due_at == BORN + 7 + wait


@pytest.mark.parametrize("wish", [-5.0, float("nan")])
def test_a_wish_that_makes_no_sense_is_none(wish: float) -> None:
    assert fail(leased(stored(task())), BORN, retry_after=wish).due_at == BORN + 20


def test_retry_after_does_not_outlive_the_expiry() -> None:
    assert fail(leased(stored(task(ttl=100))), BORN, retry_after=3600).due_at == BORN + 100
