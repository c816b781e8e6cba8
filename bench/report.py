"""Writes the figures where they are read: the terminal, docs/performance.md, the README.

python -m bench.report     cuts the README's figures from docs/performance.md once more
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from bench.figures import Figures, Target, Verdict
from bench.machine import described
from bench.peers import PEERS
from bench.targets import MISSED, meaning, pace, targets

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
HEAD = "| | measured | beside | target | |\n|---|---|---|---|---|"
IN_README = {
    "create by 64": "`create_task` by 64 callers",
    "POST /tasks": "`POST /tasks`",
    "deliver": "one worker claims, delivers and settles",
    "deliver, SQLite": "the same on SQLite",
    "lateness: p99": "lateness at 1,000 tasks/s, p99",
    "isolation: p99": "beside 20 destinations that hang",
    "memory: embedded, SQLite": "memory of a program with Rebound in it",
}
"""Figures, and what they are called there."""
INTRODUCTION = """# How fast, how late, how large

Written by `make bench`. It starts a Redis, nginx, Kafka and the other systems beside Rebound, and
takes about eight minutes, on a slow machine twice that. Each row is measured three times, in turns
with what it is compared to; shown is the median, and in brackets the least and the most. Machines
differ, and all that is measured shares the cores with receivers and load: read the ratios. The
million that falls due at once is measured once.
"""
NOTES = """
## What is compared

- **redis-py alone**: `EVALSHA` of the script that stores tasks, with ready arguments: one after the
  other, 64 sent at a time, or 500 tasks in each.
- **The same server, a handler that does nothing**: `rebound serve`'s, with its limits; the
  handler takes the body and answers.
- **A bare loop**: claims 50 a time, has 100 under way, posts with aiohttp's `ClientSession`,
  settles in batches; no lanes, no policy, no history, no events ([limit.py](../bench/limit.py)). It
  is what one would write, and no limit: Rebound does without the session
  ([ADR 20](adr/0020-our-own-exchange-on-aiohttps-connections.md)), which arq and taskiq use too.
- **arq, taskiq, dramatiq, Celery**: one worker process that delivers the same messages to the same
  nginx and acknowledges late, with the settings of [bench/peers](../bench/peers/README.md).
- **One worker, all on one core**: worker, Redis and receiver may use one core only, so that two of
  each have just twice as much: the ratio says what a second process adds where there are cores for
  it. On two cores there are none, and two processes deliver no more than one that has both.
- **The reference** is the machine that the targets in seconds were set for. Where redis-py, the
  empty handler and the bare loop are slower than there, such a target is lower by the median of
  these, and the line above the table says so; on a faster machine it stays.
- Latencies are open loop: each request begins on schedule, whatever became of the others.

## What the figures do not say

- **Tasks are alike.** Those of a row differ in their ids, and some in their lanes: the message is
  the same 300 bytes, and `wrk` sends one body again and again. What tasks have in common is checked
  once ([ADR 21](adr/0021-terms-of-tasks-are-checked-once.md)), so tasks that each have a header, a
  delay or a lane of their own are stored more slowly: by as much as the row of `create_tasks` with
  such headers says. Lanes by the thousand are a case of it too.
- **The receiver is fast.** nginx answers at once, on this machine. Deliveries count from the first
  webhook that it gets to the last: storing, starting, and settling the last ones do not count, for
  Rebound as for the others.
- **Redis keeps nothing on disk** here. With `appendfsync always` each batch waits for the disk.
"""


def show(figures: Figures) -> int:
    """Print the table and write it into the pages. 1 where a row is missed that is not listed."""
    verdicts = [target.judge(figures) for target in targets(figures)]
    missed = {v.target.row for v in verdicts if not v.met}
    rows = dict.fromkeys(v.target.row for v in verdicts)
    summary = f"{len(rows) - len(missed)} of {len(rows)} rows meet their targets."
    if (here := pace(figures)) < 1:
        summary += f" Without Rebound this machine does {here:.2f} × what the reference does."
    table = "\n".join([HEAD, *_lines(verdicts)])
    print(f"\n{table}\n\n{summary}")
    parts = [
        INTRODUCTION,
        described(),
        f"\n**{summary}**\n",
        table,
        _limits(figures),
        _peers(figures),
    ]
    PAGE.write_text("\n".join([*parts, NOTES, *_reasons(missed)]))
    cut()
    for row in missed - set(MISSED):
        print(f"missed, and no reason is listed: {row}", file=sys.stderr)
    return 1 if missed - set(MISSED) else 0


def cut() -> None:
    """Put the figures of IN_README from the page into the README."""
    README.write_text(with_figures(README.read_text(), PAGE.read_text()))


def with_figures(readme: str, page: str) -> str:
    """`readme` with what `page` says now. Exits where one of them lacks what is looked for."""
    found = [_cells(line) for line in page.splitlines() if line.startswith("| ")]
    said = []
    for name, called in IN_README.items():
        measured = next(cells[1] for cells in found if cells[0] == meaning(name))
        figure, unit = measured.split()[0], measured.split()[-1]
        said.append(f"{called}: {figure} {unit}")
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no {BEGIN} … {END}")
    return f"{before}{BEGIN}{' · '.join(said)}{END}{after}"


def _lines(verdicts: Iterable[Verdict]) -> Iterable[str]:
    row = ""
    for verdict in verdicts:
        target = verdict.target
        if target.row != row:
            row = target.row
            yield f"| **{row}** | | | | |"
        beside = f"{_spread(verdict.judged)} × {meaning(target.beside)}" if target.beside else ""
        measured = f"{_spread(verdict.values)} {target.unit}"
        bound = _bound(target)
        met = "met" if verdict.met else f"**missed**: {verdict.reached:.2f} of it"
        yield f"| {meaning(target.figure)} | {measured} | {beside} | {bound} | {bound and met} |"


def _bound(target: Target) -> str:
    """What is to be reached; empty for what is only shown."""
    times = " ×" if target.beside else ""
    if target.least is not None:
        return f"≥ {_number(target.least)}{times}"
    return "" if target.most is None else f"≤ {_number(target.most)}{times}"


def _limits(figures: Figures) -> str:
    """What bounds taking tasks, without Rebound."""
    lines = ["\n## The store alone\n", "| | a second |", "|---|---|"]
    for name in ("bare EVALSHA", "pipelined EVALSHA", "EVALSHA of 500"):
        lines.append(f"| {meaning(name)} | {_spread(figures.of(name))} tasks |")
    lines.append(
        f"| {meaning('empty handler')} | {_spread(figures.of('empty handler'))} requests |"
    )
    return "\n".join(lines)


def _peers(figures: Figures) -> str:
    lines = ["\n## One worker process, the same webhooks, the same nginx\n", "| | webhooks/s |"]
    lines.append("|---|---|")
    for name in ("deliver", "bare loop", *(f"deliver, {peer}" for peer in PEERS)):
        shown = "Rebound" if name == "deliver" else meaning(name)
        lines.append(f"| {shown} | {_spread(figures.of(name))} |")
    return "\n".join(lines)


def _reasons(missed: Iterable[str]) -> Iterable[str]:
    listed = [f"- **{row}**: {MISSED[row]}" for row in MISSED if row in set(missed)]
    return ["## Missed, and why\n", *listed, ""] if listed else []


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{min(digits, 3)}f}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


if __name__ == "__main__":
    cut()
