"""The table, and the page of the documentation that shows it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.account import Row

PAGE = Path(__file__).parent.parent / "docs" / "verification.md"
BEGIN, END = "<!-- chaos -->\n", "<!-- /chaos -->"
HEAD = (
    "| scenario | store | planned | accepted | delivered | dead | in store | lost "
    "| duplicates / allowed | verdict | s | |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|---|--:|---|",
)


def line(row: Row) -> str:
    """One row of the table, as Markdown."""
    verdict = "ok" if row.passed else "**FAILED**"
    counts = (row.planned, row.accepted, row.delivered, row.dead, row.in_store, row.lost)
    figures = " | ".join(f"{count:,}" for count in counts)
    return (
        f"| {row.scenario} | {row.store} | {figures} | {row.duplicates:,} / {row.allowed:,} "
        f"| {verdict} | {row.seconds:.0f} | {'; '.join(row.notes)} |"
    )


def machine() -> str:
    """What it ran on, without its name."""
    redis = subprocess.run(
        ["redis-server", "--version"], stdout=subprocess.PIPE, text=True, check=True
    )
    version = next((w[2:] for w in redis.stdout.split() if w.startswith("v=")), "none")
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores with everything on "
        f"them, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, Redis {version}"
    )


def write(rows: Sequence[Row]) -> None:
    """Put the table between the markers of the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join((*HEAD, *map(line, rows)))
    PAGE.write_text(f"{before}{BEGIN}{machine()}:\n\n{table}\n{END}{after}")
