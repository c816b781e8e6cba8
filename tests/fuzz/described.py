"""schemathesis: whatever the OpenAPI document allows is taken, anything else is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.report import Row
from tests.fuzz.service import Service

ROOT = Path(__file__).parents[2]
ASK = [sys.executable, "-m", "schemathesis.cli", "run", "--no-color", "--continue-on-failure"]


def run(service: Service, folder: Path, examples: int, seed: int) -> Row:
    """Every check, with up to `examples` requests in each phase for each operation."""
    done = subprocess.run(
        [*ASK, f"{service.url}/openapi.json", "--checks", "all", "--seed", str(seed),
         "--max-examples", str(examples), "--generation-database", "none"],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.formats", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    said = re.search(r"([\d,]+) generated", done.stdout)
    count = int(said[1].replace(",", "")) if said else 0
    failed = [] if done.returncode == 0 and count else [done.stdout[-6000:] + done.stderr[-2000:]]
    return Row("requests made from the OpenAPI document", count, failed, "schemathesis, all checks")
