"""When attempts happen: the formulas of section 3, their limits and jitter."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rebound.domain.backoff import MAX_DELAY, STRATEGIES, Backoff, Strategy, delay, jittered
from tests.support import task

YEAR = 31_536_000.0


def delays(backoff: Backoff, base: float, upto: int = 5) -> list[float]:
    return [delay(backoff, base, k, 0.5) for k in range(1, upto + 1)]


@pytest.mark.parametrize(
    ("backoff", "base", "expected"),
    [
        (Backoff(), 10, [10, 20, 40, 80, 160]),
        (Backoff(strategy="exponential"), 10, [10, 20, 40, 80, 160]),
        (Backoff(factor=3), 1, [1, 3, 9, 27, 81]),
        (Backoff(factor=1), 7, [7, 7, 7, 7, 7]),
        (Backoff(factor=1.5), 2, [2, 3, 4.5, 6.75, 10.125]),
        (Backoff(strategy="linear"), 10, [10, 20, 30, 40, 50]),
        (Backoff(strategy="linear", factor=9), 0.5, [0.5, 1, 1.5, 2, 2.5]),
        (Backoff(strategy="fixed"), 10, [10, 10, 10, 10, 10]),
        (Backoff(strategy="schedule", schedule=[1, 5, 0]), 10, [1, 5, 0, 0, 0]),
        (Backoff(strategy="schedule", schedule=[9]), 10, [9, 9, 9, 9, 9]),
        (Backoff(max_delay=30), 10, [10, 20, 30, 30, 30]),
        (Backoff(strategy="linear", max_delay=25), 10, [10, 20, 25, 25, 25]),
        (Backoff(strategy="fixed", max_delay=3), 10, [3, 3, 3, 3, 3]),
        (Backoff(strategy="schedule", schedule=[1, 99], max_delay=50), 1, [1, 50, 50, 50, 50]),
        (Backoff(max_delay=5), 10, [5, 5, 5, 5, 5]),
    ],
)
def test_each_strategy_follows_its_formula(
    backoff: Backoff, base: float, expected: list[float]
) -> None:
    assert delays(backoff, base) == pytest.approx(expected)


def test_without_a_maximum_seven_days_are_the_longest_delay() -> None:
    assert MAX_DELAY == 7 * 86400
    assert delay(Backoff(), 86400, 100, 0.5) == MAX_DELAY
    assert delay(Backoff(strategy="linear"), 86400, 100, 0.5) == MAX_DELAY
    assert delay(Backoff(strategy="schedule", schedule=[YEAR]), 1, 1, 0.5) == MAX_DELAY
    assert delay(Backoff(strategy="schedule", schedule=[YEAR], max_delay=YEAR), 1, 1, 0.5) == YEAR


def test_the_exact_maximum_is_reached_and_not_passed() -> None:
    just = Backoff(max_delay=10 * 2.0**10)
    assert delay(just, 10, 10, 0) == 10 * 2**9
    assert delay(just, 10, 11, 0) == delay(just, 10, 12, 0) == 10 * 2**10


@pytest.mark.parametrize("k", [1, 2, 20, 23, 31, 35, 64, 100, 101, 155, 200])
@pytest.mark.parametrize("base", [0.001, 1, 3600, 86400])
@pytest.mark.parametrize("factor", [1, 1.0000001, 2, 100])
def test_no_overflow_however_late_the_attempt(k: int, base: float, factor: float) -> None:
    for longest in (None, 0.001, YEAR):
        wait = delay(Backoff(factor=factor, max_delay=longest), base, k, 0.5)
        assert math.isfinite(wait)
        assert 0 < wait <= (longest or MAX_DELAY)


@pytest.mark.parametrize(
    ("jitter", "least", "middle", "most"),
    [
        (None, 100, 100, 100),
        ("none", 100, 100, 100),
        ("full", 0, 50, 100),
        ("equal", 50, 75, 100),
        (0, 100, 100, 100),
        (0.0, 100, 100, 100),
        (0.2, 80, 100, 120),
        (1, 0, 100, 200),
    ],
)
def test_jitter_spreads_between_its_bounds(
    jitter: Any, least: float, middle: float, most: float
) -> None:
    assert jittered(100, jitter, 0.0) == pytest.approx(least)
    assert jittered(100, jitter, 0.5) == pytest.approx(middle)
    assert jittered(100, jitter, 1 - 2**-53) == pytest.approx(most)
    assert delay(Backoff(jitter=jitter), 100, 1, 0.5) == pytest.approx(middle)


def test_the_maximum_applies_before_jitter() -> None:
    assert delay(Backoff(max_delay=10, jitter=1.0), 1000, 1, 0.999) == pytest.approx(19.98)
    assert delay(Backoff(max_delay=10, jitter="equal"), 1000, 1, 0.0) == 5


# -- strategies of the program's own -----------------------------------------------------------


def with_own(strategy: Strategy) -> float:
    own = {**STRATEGIES, "own": strategy}
    return delay(Backoff(strategy="own", max_delay=1000), 10, 3, 0.5, own)


def test_a_strategy_of_the_programs_own_gets_the_policy_and_the_attempt() -> None:
    assert with_own(lambda backoff, base, k: base + k + (backoff.max_delay or 0) / 1000) == 14
    assert with_own(lambda *_: 5) == 5
    assert with_own(lambda *_: 0) == 0


def test_its_result_is_cut_to_the_maximum_and_jittered() -> None:
    assert with_own(lambda *_: 1e300) == 1000
    own: dict[str, Strategy] = {"own": lambda *_: 100.0}
    assert delay(Backoff(strategy="own", jitter="full"), 10, 1, 0.25, own) == 25


def raising(*_: Any) -> float:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(
    "broken",
    [
        raising,
        lambda *_: math.nan,
        lambda *_: math.inf,
        lambda *_: -math.inf,
        lambda *_: -1,
        lambda *_: None,
        lambda *_: "soon",
        lambda *_: 10**400,
        lambda *_: 1j,
        lambda: 5,
    ],
)
def test_a_strategy_that_fails_is_replaced_by_the_exponential_one(broken: Any) -> None:
    assert with_own(broken) == 40


def test_a_strategy_that_is_not_registered_here_is_replaced_as_well() -> None:
    assert delay(Backoff(strategy="gone"), 10, 3, 0.5) == 40


# -- every legal input -------------------------------------------------------------------------

seconds = st.floats(0.001, YEAR)
jitters = st.none() | st.sampled_from(["none", "full", "equal"]) | st.floats(0, 1)
backoffs = st.builds(
    Backoff,
    strategy=st.none() | st.sampled_from([*STRATEGIES]),
    factor=st.none() | st.floats(1, 100),
    max_delay=st.none() | seconds,
    jitter=jitters,
    schedule=st.none() | st.lists(st.floats(0, YEAR), min_size=1, max_size=100),
)


@given(backoffs, st.floats(0.001, 86400), st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_every_legal_input_gives_a_finite_delay_within_its_limits(
    backoff: Backoff, base: float, k: int, random: float
) -> None:
    wait = delay(backoff, base, k, random)
    spread = backoff.jitter if isinstance(backoff.jitter, float) else 0.0
    longest = MAX_DELAY if backoff.max_delay is None else backoff.max_delay
    assert math.isfinite(wait)
    assert 0 <= wait <= longest * (1 + spread) * (1 + 1e-12)


@given(st.floats(0.001, 86400), st.floats(1, 100), st.floats(0.001, YEAR))
def test_exponential_delays_never_shrink(base: float, factor: float, longest: float) -> None:
    waits = delays(Backoff(factor=factor, max_delay=longest), base, 200)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(waits))


@given(st.integers(0, 99), st.integers(0, 100), backoffs, st.floats(0, 1, exclude_max=True))
def test_a_task_never_waits_a_negative_or_endless_time(
    attempt: int, failures: int, backoff: Backoff, random: float
) -> None:
    fields: dict[str, Any] = {"max_retries": 100, "failures": failures, "base_delay": 86400}
    if (backoff.strategy == "schedule") != (backoff.schedule is not None):
        backoff = Backoff(factor=backoff.factor, max_delay=backoff.max_delay)
    started = replace(task(delay=None, backoff=backoff, **fields), attempt=attempt)
    assert 0 <= started.wait(random) <= 2 * YEAR
