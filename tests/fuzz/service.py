"""A live service to send bad input to, and what it says of itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

REBOUND = [sys.executable, "-m", "rebound"]
# Nothing is delivered: destinations are addresses of others. The document allows them all.
COMMAND = [*REBOUND, "serve", "--no-worker", "--http-port", "0",
           "--allowed-networks", "0.0.0.0/0,::/0"]  # fmt: skip
SECONDS = 30


class Service(NamedTuple):
    """`rebound serve`, without a worker."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status")
        if status.exists():
            return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024
        found = subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.process.pid)])
        return int(found) / 1024

    @property
    def bugs(self) -> list[str]:
        """What it logged as a bug, or as no line of its log at all."""
        lines = self.log.read_text().splitlines()
        return [x for x in lines if " a bug: " in x or not x.startswith("20")] + self._ended

    @property
    def _ended(self) -> list[str]:
        code = self.process.poll()
        return [] if code is None else [f"the service ended with {code}"]


def environment(**settings: str) -> Mapping[str, str]:
    """What every process needs, and `settings`; none that happen to be around."""
    needed = ("PATH", "HOME", "VIRTUAL_ENV", "PYTHONPATH", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in needed if name in os.environ} | settings


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Service]:
    """A service with a store of its own in `folder`."""
    log = folder / "service.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            COMMAND,
            cwd=folder,
            env=environment(REBOUND_LOG_LEVEL="warning", REBOUND_LOG_FORMAT="text"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        if not first:
            raise SystemExit(f"the service does not start: {log.read_text()}")
        yield Service(first.split()[-1], process, log)
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()
