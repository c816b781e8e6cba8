"""What becomes of a task: every transition, and days of retries in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound.domain.attempt import (
    Attempt,
    DeadLetter,
    DeadReason,
    Lease,
    Leg,
    Outcome,
    State,
    ended,
)
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError, Rejected, TaskBusy, WrongState
from rebound.domain.task import MAX_LOST, Task
from tests.support import DAY, cut, fail, succeed, task, tried

BORN = 1_800_000_000.0
DEAD = Destination(url="http://dead.test/dlq")
Answer = Callable[[Task], DeliveryError | None]


def stored(one: Task, now: float = BORN, random: float = 0.5) -> Task:
    """As the store keeps a new task."""
    one = one.accepted()
    due = now + one.first_wait(random)
    return replace(one, created_at=now, updated_at=now, due_at=due)


def leased(one: Task) -> Task:
    return replace(one, state=State.DELIVERING, lease=Lease("token", one.queue))


def refusing(_: Task) -> DeliveryError | None:
    return DeliveryError("HTTP 500", status=500)


def accepting(_: Task) -> DeliveryError | None:
    return None


def accepting_dead_letters(one: Task) -> DeliveryError | None:
    return None if one.leg == Leg.DEAD else DeliveryError("HTTP 500", status=500)


class Life:
    """The way of a task to its end, as store and engine lead it, without their clocks."""

    def __init__(
        self, one: Task, answer: Answer = refusing, *, took: float = 0.0, most: int = 1000
    ) -> None:
        self.starts: list[tuple[Leg, int, float]] = []
        """Leg, number and seconds since creation of every attempt."""
        self.task = one if one.created_at else stored(one)
        now = BORN
        while self.task.state == State.SCHEDULED and len(self.starts) < most:
            now = max(now, self.task.due_at or 0)
            now = self._step(leased(self.task), answer, now, took)

    def _step(self, one: Task, answer: Answer, now: float, took: float) -> float:
        if one.leg == Leg.MAIN and one.expires_at is not None and now >= one.expires_at:
            self.task = one.expired(now)
            return now
        assert one.leg is not None
        self.starts.append((one.leg, one.number, round(now - BORN, 3)))
        error = answer(one)
        attempt = ended(one.leg, one.number, now, took, error)
        now += took
        if error is None:
            self.task = one.succeeded(attempt, now)
        else:
            self.task = one.failed(
                attempt, now, random=0.5, retry_after=error.retry_after or 0.0,
                dead_letter_ttl=7 * DAY,
            )  # fmt: skip
        return now

    def times(self, leg: Leg = Leg.MAIN) -> list[float]:
        return [at for on, _, at in self.starts if on == leg]

    @property
    def end(self) -> tuple[State | None, DeadReason | None, DeadLetter | None]:
        return self.task.state, self.task.dead_reason, self.task.dead_letter


EXHAUSTED = (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.NONE)


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
    waits = [b - a for a, b in zip(times, times[1:], strict=False)]
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


# -- what people do ----------------------------------------------------------------------------


def in_state(state: State) -> Task:
    return replace(stored(task()), state=state)


def test_a_scheduled_task_can_be_cancelled_on_either_leg() -> None:
    one = stored(task(max_retries=1, dead_destination=DEAD))
    for scheduled in (one, fail(leased(one), BORN)):
        after = scheduled.cancelled(BORN + 5)
        assert (after.state, after.finished_at) == (State.CANCELLED, BORN + 5)
        assert after.updated_at == BORN + 5


def test_a_task_that_is_being_delivered_is_busy() -> None:
    with pytest.raises(TaskBusy, match="task t is being delivered"):
        in_state(State.DELIVERING).cancelled(BORN)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD, State.CANCELLED])
def test_a_finished_task_cannot_be_cancelled(state: State) -> None:
    with pytest.raises(WrongState, match=f"task t is {state}") as caught:
        in_state(state).cancelled(BORN)
    assert type(caught.value) is WrongState


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.SCHEDULED, State.DELIVERING])
def test_only_a_dead_or_cancelled_task_can_be_replayed(state: State) -> None:
    with pytest.raises(WrongState, match=f"task t is {state}"):
        in_state(state).replayed(BORN)


def test_a_record_that_cannot_be_read_cannot_be_replayed() -> None:
    with pytest.raises(WrongState, match="cannot be read"):
        replace(in_state(State.DEAD), dead_reason=DeadReason.UNREADABLE).replayed(BORN)


def test_a_replayed_task_starts_afresh_and_is_due_at_once() -> None:
    end = Life(task(max_retries=2, dead_destination=DEAD, is_priority=True)).task
    again = end.replayed(BORN + 30 * DAY)
    assert again == replace(
        stored(task(max_retries=2, dead_destination=DEAD, is_priority=True)),
        lease=again.lease,
        updated_at=BORN + 30 * DAY,
        due_at=BORN + 30 * DAY,
        replayed_at=BORN + 30 * DAY,
    )
    assert (again.number, again.budget) == (1, 2)


def test_a_replayed_task_waits_by_the_policy_as_if_nothing_had_failed_before() -> None:
    end = stored(task(delay=None, failures=5, max_retries=3))
    life = Life(replace(end.replayed(BORN + 50), created_at=BORN))
    assert life.times() == [50, 70, 110]
    assert life.end == EXHAUSTED


def test_the_time_to_live_counts_from_the_replay() -> None:
    end = Life(task(delay=None, ttl=100)).task
    assert end.dead_reason == DeadReason.EXPIRED
    again = end.replayed(BORN + 1000)
    assert again.expires_at == BORN + 1100
    assert Life(again).times() == [1000, 1020, 1060]


def test_a_cancelled_dead_leg_is_replayed_on_the_main_leg() -> None:
    one = fail(leased(stored(task(max_retries=1, dead_destination=DEAD))), BORN)
    again = one.cancelled(BORN + 1).replayed(BORN + 2)
    assert (again.leg, again.attempt, again.dead_reason, again.attempts, again.dead_at) == (
        Leg.MAIN, 0, None, (), None,
    )  # fmt: skip
    assert again.target == task().destination


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
