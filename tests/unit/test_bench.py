"""What the benchmarks rely on: that the sink counts, and that the peers stay what they were."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.request import urlopen

import pytest
from bench import peers, report
from bench.arrivals import Arrivals
from bench.figures import Figures, Target
from bench.sink import sink
from bench.targets import MISSED, REFERENCE, targets

SINKS = ["python", "nginx"] if shutil.which("nginx") else ["python"]


@pytest.mark.parametrize("kind", SINKS)
def test_the_sink_counts_what_came_and_not_who_asked(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "python":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    with sink() as url:
        arrivals = Arrivals(url)
        assert arrivals.count() == 0
        for _ in range(3):
            urlopen(url, data=b"{}").close()
        assert [arrivals.count(), arrivals.count()] == [3, 3]
        assert Arrivals(url).count() == 0


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    readme = report.README.read_text()
    assert report.with_figures(readme, report.PAGE.read_text()) == readme


def test_a_target_is_judged_by_the_median_of_the_rounds() -> None:
    figures = Figures()
    for ours, theirs in ((90.0, 100.0), (50.0, 100.0), (80.0, 50.0)):
        figures.add("ours", ours)
        figures.add("theirs", theirs)
    least = Target("row", "ours", "tasks/s", 100).judge(figures)
    assert (least.reached, least.met) == (0.8, False)
    most = Target("row", "ours", "ms", most=80).judge(figures)
    assert (most.reached, most.met) == (1.0, True)
    beside = Target("row", "ours", "tasks/s", 0.9, beside="theirs").judge(figures)
    assert (beside.judged, beside.met) == ([0.9, 0.5, 1.6], True)
    assert Target("row", "ours", "tasks/s").judge(figures).met


def measured(pace: float) -> Figures:
    """What the targets are made of, by a machine that does so much of what the reference does."""
    figures = Figures()
    for name in peers.PEERS:
        figures.add(f"deliver, {name}", 1.0)
    for name, a_second in REFERENCE.items():
        figures.add(name, a_second * pace)
    return figures


def test_every_row_that_is_known_to_be_missed_is_a_row() -> None:
    assert set(MISSED) <= {target.row for target in targets(measured(1))}


def test_a_slower_machine_has_lower_targets_in_seconds_and_a_faster_one_no_higher() -> None:
    there, slower, faster = (targets(measured(pace)) for pace in (1, 0.5, 2))
    assert faster == there
    for before, after in zip(there, slower, strict=True):
        if before.beside or before.unit in ("MB", "B/task", "ms early"):
            assert after == before
        else:
            assert (after.least, after.most) == (
                before.least and before.least / 2, before.most and before.most * 2,
            )  # fmt: skip
    assert {t.unit for t in there if t not in slower} == {"tasks/s", "records/s", "ms", "s"}


@pytest.mark.parametrize("folder", sorted({peer.folder for peer in peers.PEERS.values()}))
def test_a_peer_is_pinned_to_versions_and_no_more(folder: str) -> None:
    lines = (Path(peers.__file__).parent / folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith(f"{folder}==") for line in lines)
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
