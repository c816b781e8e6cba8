"""What people do to a task: cancel it, start it afresh."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rebound.domain.attempt import (
    DeadReason,
    Leg,
    State,
)
from rebound.domain.errors import TaskBusy, WrongState
from rebound.domain.task import Task
from tests.support import DAY, fail, task
from tests.unit.lives import (
    BORN,
    DEAD,
    EXHAUSTED,
    Life,
    leased,
    stored,
)


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
