"""Writes the measured coverage, with its date, into docs/testing.md: a part of `make cover`.

Usage: coverage.py [REPORT.json] [PAGE]. Without a report it asks coverage for one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("testing.md")
BEGIN, END = "<!-- coverage -->\n", "<!-- /coverage -->"


def main(arguments: list[str]) -> None:
    """Put the figure where it belongs. Exits with a message where there is none."""
    page = Path(arguments[1]) if len(arguments) > 1 else PAGE
    report = json.loads(Path(arguments[0]).read_text() if arguments else _measured())
    page.write_text(with_figure(page.read_text(), sentence(report)))
    sys.stdout.write(f"{page}: {sentence(report)}\n")


def sentence(report: dict[str, Any]) -> str:
    """The figure of a report of coverage, in words."""
    totals = report["totals"]
    day = report["meta"]["timestamp"][:10]
    # Rounded down: 99.96 % is not 100 %.
    share = int(totals["percent_covered"] * 10) / 10
    parts = f"{totals['covered_lines']:,} of {totals['num_statements']:,} lines"
    if "num_branches" in totals:
        parts += f" and {totals['covered_branches']:,} of {totals['num_branches']:,} branches"
    return f"**{share:.1f} %** on {day}: {parts}."


def with_figure(page: str, figure: str) -> str:
    """`page` with `figure` between its markers. Exits where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"the page has no {BEGIN.strip()} … {END}")
    return f"{before}{BEGIN}{figure}\n{END}{after}"


def _measured() -> str:
    command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"]
    # In a process of its own, for this file has the same name as the library.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 2):  # 2: below the least that is asked for, a figure all the same
        sys.exit("there is nothing to report; `make cover` measures")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
