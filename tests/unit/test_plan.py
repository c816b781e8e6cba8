"""`rebound plan`: when the attempts of a policy happen."""

from __future__ import annotations

import pytest

from rebound.cli.main import main


def planned(capsys: pytest.CaptureFixture[str], *argv: str) -> list[list[str]]:
    assert main(["plan", *argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [[word for word in line.split() if word != "s"] for line in lines]


def test_plan_prints_number_delay_and_time_since_creation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert planned(capsys, "--base-delay", "10", "--max-retries", "5") == [
        ["1", "10", "10"],
        ["2", "20", "30"],
        ["3", "40", "70"],
        ["4", "80", "150"],
        ["5", "160", "310"],
    ]


@pytest.mark.parametrize(
    ("argv", "since"),
    [
        (("--strategy", "linear", "--max-retries", "3"), ["10", "30", "60"]),
        (("--strategy", "fixed", "--max-retries", "3"), ["10", "20", "30"]),
        (("--factor", "3", "--max-retries", "3"), ["10", "40", "130"]),
        (("--max-delay", "15s", "--max-retries", "3"), ["10", "25", "40"]),
        (("--schedule", "1,5,1m", "--max-retries", "4"), ["1", "6", "66", "126"]),
        (("--delay", "0", "--max-retries", "2"), ["0", "20"]),
        (("--failures", "3"), ["80", "240"]),
        (("--base-delay", "250ms", "--max-retries", "2"), ["0.25", "0.75"]),
        (("--jitter", "full", "--max-retries", "2"), ["0-10", "0-30"]),
        (("--jitter", "0.5", "--max-retries", "2"), ["5-15", "15-45"]),
        (("--max-retries", "0"), ["10"]),
    ],
)
def test_plan_follows_the_policy(
    argv: tuple[str, ...], since: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line[2] for line in planned(capsys, *argv)] == since


def test_plan_without_attempts_left_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--failures", "5"]) == 0
    assert capsys.readouterr().out == "no attempt: the dead leg starts at once\n"
