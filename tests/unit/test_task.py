"""What becomes of a task: every transition and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound.domain.attempt import (
    Attempt,
    DeadLetter,
    DeadReason,
    Leg,
    Outcome,
    State,
    ended,
)
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError, Rejected
from rebound.domain.task import MAX_LOST, Task
from tests.support import DAY, cut, fail, succeed, task, tried
from tests.unit.lives import (
    BORN,
    DEAD,
    EXHAUSTED,
    Life,
    accepting_dead_letters,
    leased,
    stored,
)

# -- the end of the main leg -------------------------------------------------------------------


def test_a_rejection_ends_the_main_leg_at_once() -> None:
    rejected = Life(task(), lambda _: Rejected("HTTP 410", status=410))
    assert rejected.times() == [0]
    assert rejected.end == (State.DEAD, DeadReason.REJECTED, DeadLetter.NONE)
    assert (rejected.task.attempts[0].outcome, rejected.task.attempts[0].status) == (
        Outcome.REJECTED,
        410,
    )


def test_a_rejection_at_the_last_attempt_is_a_rejection_all_the_same() -> None:
    assert Life(task(max_retries=1), lambda _: Rejected("no")).end[1] == DeadReason.REJECTED


def test_the_dead_leg_starts_at_once_in_its_own_lane_with_its_own_numbers() -> None:
    one = fail(leased(stored(task(max_retries=1, dead_destination=DEAD))), BORN + 9)
    assert (one.state, one.leg, one.number, one.due_at) == (State.SCHEDULED, Leg.DEAD, 1, BORN + 9)
    assert (one.target, one.queue) == (DEAD, "http|http://dead.test")
    assert (one.attempt, one.dead_reason, one.last_error) == (1, DeadReason.EXHAUSTED, "HTTP 500")
    assert one.finished_at is None


def test_the_dead_leg_is_retried_from_10_seconds_doubling_to_an_hour_for_seven_days() -> None:
    life = Life(task(max_retries=1, dead_destination=DEAD, backoff=Backoff(factor=100)))
    times = life.times(Leg.DEAD)
    waits = [b - a for a, b in pairwise(times)]
    assert times[0] == 0
    assert waits[:9] == [10, 20, 40, 80, 160, 320, 640, 1280, 2560]
    assert set(waits[9:]) == {3600}
    assert 7 * DAY - 3600 < times[-1] <= 7 * DAY
    assert life.end == (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.FAILED)
    assert life.task.attempt == 1
    assert life.task.dead_attempt == len(times)


def test_the_dead_legs_time_counts_from_its_own_beginning() -> None:
    one = task(max_retries=1, delay=30 * DAY, dead_destination=DEAD)
    life = Life(one, most=5)
    assert [at - 30 * DAY for at in life.times(Leg.DEAD)] == [0, 10, 30, 70]


def test_a_delivered_dead_letter_ends_the_task_as_dead_and_keeps_the_reason() -> None:
    life = Life(task(max_retries=2, dead_destination=DEAD), accepting_dead_letters)
    assert life.end == (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.DELIVERED)
    assert [(a.leg, a.number) for a in life.task.attempts] == [
        (Leg.MAIN, 1), (Leg.MAIN, 2), (Leg.DEAD, 1),
    ]  # fmt: skip
    assert life.task.finished_at == BORN + 20


def test_a_dead_letter_that_is_refused_for_good_has_failed() -> None:
    life = Life(
        task(max_retries=1, dead_destination=DEAD),
        lambda one: Rejected("no") if one.leg == Leg.DEAD else DeliveryError("HTTP 500"),
    )
    assert life.end == (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.FAILED)
    assert life.times(Leg.DEAD) == [0]


# -- attempts that do not count ----------------------------------------------------------------


def test_an_attempt_cut_short_is_repeated_at_once_under_the_same_number() -> None:
    one = cut(leased(stored(task())), BORN + 3)
    assert (one.state, one.attempt, one.number, one.due_at) == (State.SCHEDULED, 0, 1, BORN + 3)
    assert [(a.outcome, a.number) for a in one.attempts] == [(Outcome.CUT_SHORT, 1)]
    for _ in range(10):
        one = cut(leased(one), BORN + 4)
    assert one.number == 1
    assert Life(one).end == EXHAUSTED


def test_a_deferred_attempt_leaves_no_trace_and_waits_as_long_as_it_was_told() -> None:
    one = leased(stored(task())).deferred(BORN + 1, 30)
    assert (one.state, one.number, one.attempts, one.due_at) == (
        State.SCHEDULED, 1, (), BORN + 31,
    )  # fmt: skip


def test_a_deferred_attempt_does_not_outlive_the_expiry_but_of_the_main_leg() -> None:
    one = leased(stored(task(ttl=10, dead_destination=DEAD, max_retries=1)))
    assert one.deferred(BORN + 1, 30).due_at == BORN + 10
    assert fail(one, BORN).deferred(BORN + 1, 30).due_at == BORN + 31


def test_lost_attempts_are_kept_and_not_counted() -> None:
    one = replace(leased(stored(task())), lost=(BORN, BORN + 60))
    after = fail(one, BORN + 130)
    assert after.attempt == 1
    assert after.lost == ()
    assert [(a.outcome, a.number, a.started_at, a.duration_ms) for a in after.attempts] == [
        (Outcome.LOST, 1, BORN, None),
        (Outcome.LOST, 1, BORN + 60, None),
        (Outcome.FAILED, 1, BORN + 130, 10),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: succeed(one, BORN),
        lambda one: cut(one, BORN),
        lambda one: one.deferred(BORN, 1),
        lambda one: one.expired(BORN),
        lambda one: one.crashed(BORN),
        lambda one: replace(one, state=State.SCHEDULED).cancelled(BORN),
    ],
)
def test_lost_attempts_are_kept_whatever_follows(change: Callable[[Task], Task]) -> None:
    after = change(replace(leased(stored(task())), lost=(BORN - 5,)))
    assert after.attempts[0] == Attempt(Leg.MAIN, 1, BORN - 5, None, Outcome.LOST)
    assert after.lost == ()


@pytest.mark.parametrize("dead", [None, DEAD])
def test_a_message_that_kills_workers_ends_the_main_leg_as_crashed(
    dead: Destination | None,
) -> None:
    lost = tuple(BORN + n for n in range(MAX_LOST))
    one = replace(leased(stored(task(dead_destination=dead))), lost=lost).crashed(BORN + 99)
    assert one.dead_reason == DeadReason.CRASHED
    assert one.last_error == "the worker was lost 5 times in a row"
    assert len(one.attempts) == 5
    assert one.attempt == 0
    if dead:
        assert (one.state, one.leg, one.due_at) == (State.SCHEDULED, Leg.DEAD, BORN + 99)
    else:
        assert (one.state, one.dead_letter) == (State.DEAD, DeadLetter.NONE)


def test_a_dead_letter_that_kills_workers_has_failed_and_the_first_reason_stays() -> None:
    one = fail(leased(stored(task(max_retries=1, dead_destination=DEAD))), BORN)
    one = replace(leased(one), lost=(1.0, 2.0, 3.0, 4.0, 5.0)).crashed(BORN + 99)
    assert (one.state, one.dead_reason, one.dead_letter) == (
        State.DEAD, DeadReason.EXHAUSTED, DeadLetter.FAILED,
    )  # fmt: skip
    assert [a.leg for a in one.attempts] == [Leg.MAIN, *[Leg.DEAD] * 5]


def test_the_newest_25_attempts_are_kept_oldest_first() -> None:
    life = Life(task(max_retries=40, base_delay=1, backoff=Backoff(strategy="fixed")))
    assert [a.number for a in life.task.attempts] == list(range(16, 41))
    assert life.task.attempt == 40
    lost = tuple(float(n) for n in range(30))
    assert len(replace(leased(stored(task())), lost=lost).crashed(BORN).attempts) == 25


def test_what_is_kept_of_an_attempt_is_bounded() -> None:
    error = DeliveryError("e" * 5000, status=500, response="r" * 5000, timed_out=True)
    kept = ended(Leg.MAIN, 1, BORN, 0.0123456, error)
    assert (len(kept.error or ""), len(kept.response or "")) == (1024, 1024)
    assert (kept.outcome, kept.duration_ms) == (Outcome.TIMEOUT, 12.346)
    good = ended(Leg.DEAD, 2, BORN, 1, None, status=204, response="")
    assert good == Attempt(Leg.DEAD, 2, BORN, 1000, Outcome.SUCCEEDED, 204, None, "")


# -- always ------------------------------------------------------------------------------------


def test_priority_is_kept_over_retries_the_dead_leg_and_a_replay() -> None:
    one = stored(task(is_priority=True, max_retries=2, dead_destination=DEAD))
    for change in (fail, fail, cut, fail, lambda t, now: t.cancelled(now), Task.replayed):
        one = change(one, BORN)
        assert one.is_priority


def test_a_transition_changes_none_of_the_callers_fields() -> None:
    one = stored(task(client_id="c", message_data="m", ttl=1000, dead_destination=DEAD))
    given = ("id", "source", "destination", "dead_destination", "max_retries", "base_delay")
    given += ("ttl", "client_id", "message_data", "message_key", "backoff", "created_at", "delay")
    for after in (fail(one, BORN), succeed(one, BORN), cut(one, BORN), one.expired(BORN)):
        assert [getattr(after, f) for f in given] == [getattr(one, f) for f in given]


STEPS: Sequence[Callable[[Task, float], Task]] = (
    fail,
    succeed,
    cut,
    lambda one, now: one.deferred(now, 1),
    lambda one, now: one.expired(now) if one.leg == Leg.MAIN else one,
    lambda one, now: replace(one, lost=(now,) * MAX_LOST).crashed(now),
    lambda one, now: fail(one, now, retry_after=DAY),
    lambda one, now: one.failed(
        ended(one.leg or Leg.MAIN, one.number, now, 0, Rejected("no")), now,
        random=0.5, dead_letter_ttl=DAY,
    ),
)  # fmt: skip


@given(
    st.lists(st.sampled_from(STEPS), max_size=60),
    st.integers(0, 20),
    st.integers(0, 20),
    st.booleans(),
    st.none() | st.floats(0.001, 10_000),
)
def test_whatever_happens_a_task_is_either_due_or_at_its_one_end(
    steps: list[Callable[[Task, float], Task]],
    max_retries: int,
    failures: int,
    has_dead_letter: bool,
    ttl: float | None,
) -> None:
    dead = DEAD if has_dead_letter else None
    one = stored(task(max_retries=max_retries, failures=failures, dead_destination=dead, ttl=ttl))
    now = BORN
    for step in steps:
        if one.state != State.SCHEDULED:
            break
        now = max(now, one.due_at or now)
        one = step(leased(one), now)
        if one.state == State.DELIVERING:
            break
        assert (one.finished_at is None) == (one.state == State.SCHEDULED)
        assert one.attempt <= max(max_retries, 1)
        assert len(one.attempts) <= 25
        if one.state == State.SCHEDULED:
            assert (one.due_at or 0) >= now or (one.due_at == one.expires_at)
        if one.state == State.DEAD:
            assert one.dead_reason is not None
            assert (one.dead_letter == DeadLetter.NONE) == (dead is None)
        else:
            assert (one.dead_reason is not None) == (one.leg == Leg.DEAD)


def test_the_record_of_an_attempt_names_its_leg_and_number() -> None:
    one = fail(leased(stored(task(max_retries=1, dead_destination=DEAD))), BORN)
    assert tried(one, BORN, "HTTP 404", status=404) == Attempt(
        Leg.DEAD, 1, BORN, 10, Outcome.FAILED, 404, "HTTP 404", None
    )
