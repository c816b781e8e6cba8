"""The account of `make chaos` misses nothing: it would not be worth much otherwise."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from chaos import page
from chaos.account import Balance, Row, balance, unexplained
from chaos.receiver import Got, Receiver

NOW = 1_800_000_000.0
LATER, BEFORE = "2027-01-15T08:00:01.000Z", "2027-01-15T07:59:59.000Z"


@pytest.mark.parametrize(
    ("task", "got", "place"),
    [
        ({"state": "succeeded"}, "main", "delivered"),
        ({"state": "succeeded"}, "", "lost"),
        ({"state": "succeeded"}, "dead", "lost"),
        ({"state": "dead", "dead_letter": "delivered"}, "dead", "dead"),
        ({"state": "dead", "dead_letter": "delivered"}, "", "lost"),
        ({"state": "dead", "dead_letter": "none"}, "", "dead"),
        ({"state": "scheduled", "next_attempt_at": LATER}, "", "in_store"),
        ({"state": "scheduled", "next_attempt_at": BEFORE}, "", "overdue"),
        ({"state": "delivering", "next_attempt_at": None}, "main", "overdue"),
        (None, "main", "lost"),
    ],
)
def test_what_was_accepted_is_in_one_place_by_the_word_of_store_and_receiver(
    task: dict[str, Any] | None, got: str, place: str
) -> None:
    stored = {} if task is None else {"t": task}
    main, dead = ({"t"} if got == leg else () for leg in ("main", "dead"))
    found = balance(["t"], stored, main, dead, NOW)
    assert {name: ids for name, ids in found._asdict().items() if ids} == {place: {"t"}}
    assert found.settled is (place not in ("lost", "overdue"))


def test_what_was_not_accepted_does_not_count() -> None:
    stored = {"other": {"state": "succeeded"}}
    assert balance([], stored, (), (), NOW) == Balance(set(), set(), set(), set(), set())


def test_an_attempt_that_comes_twice_is_a_repeat_and_a_retry_is_none() -> None:
    receiver = Receiver()
    for id_, attempt, path in [("a", 1, "/x"), ("a", 2, "/x"), ("b", 1, "/x"), ("b", 1, "/x")]:
        receiver.got.append(Got(NOW, id_, attempt, path, 1, None))  # type: ignore[arg-type]
    receiver.got.append(Got(NOW, "a", 1, "/dead", 1, None))  # type: ignore[arg-type]
    assert receiver.repeats() == Counter(b=1)
    receiver.delivered["a"] = 2
    assert receiver.repeats() == Counter(a=1, b=1)


def test_a_repeat_is_explained_only_by_a_fault_that_met_its_task() -> None:
    in_flight = Counter(a=2, b=1, c=1)
    assert unexplained(Counter(a=2, b=2, d=1), in_flight) == Counter(b=1, d=1)


def test_a_row_with_a_problem_has_failed_and_says_so() -> None:
    row = Row("1 x", "redis", 10, 9, 8, 1, 0, 0, 2, 3, (), ("fine",), 4.4)
    assert page.line(row) == "| 1 x | redis | 10 | 9 | 8 | 1 | 0 | 0 | 2 / 3 | ok | 4 | fine |"
    failed = row._replace(problems=("lost: t1",))
    assert "**FAILED**" in page.line(failed)
    assert not failed.passed
