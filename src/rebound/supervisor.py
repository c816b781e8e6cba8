"""Several processes of one service: started, replaced where one dies, and ended together.

They share one listening socket. What ends them is the end of a pipe that this process holds: so
they also end where it is killed, and a signal that reaches all of a group at once counts as one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

LOG = logging.getLogger("rebound")
VARIABLE: Final = "_REBOUND_SUPERVISED"
"""What tells a process that it is one of several: the descriptors of its pipe and socket."""
FIRST: Final = 0.5
"""Seconds that the first process has to say what is wrong, before others would repeat it."""
SETTLED: Final = 10.0
"""Seconds after which a process that ends is no failed start."""
LONGEST: Final = 30.0
"""Seconds between two starts at most, where each one fails."""
FORCED: Final = 5.0
"""Seconds after the grace when a process that has not ended is killed; it ends itself before."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def supervise(
    count: int, arguments: Sequence[str], *, grace: float, listener: socket.socket | None = None
) -> int:
    """Run `count` processes of `rebound` with `arguments` until a signal; answers the exit code.

    After a signal they have `grace` seconds to finish; a second one ends them at once, with 1.
    Where the first ones fail at their start, that is the end, with their exit code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # each is waited for below
    crew = _Crew(arguments, listener)
    crew.start()
    if (code := crew.watch(time.monotonic() + FIRST)) is None:
        for _ in range(count - 1):
            crew.start()
        code = crew.watch()
    return crew.end(grace, code or 0)


class _Crew:
    def __init__(self, arguments: Sequence[str], listener: socket.socket | None) -> None:
        self._command = [sys.executable, "-m", "rebound", *arguments]
        self._listener = -1 if listener is None else listener.fileno()
        self._theirs, self._ours = os.pipe()
        self._running: dict[subprocess.Popen[bytes], float] = {}
        self._pauses: list[float] = []
        self._failed = 0
        self._settled = False

    def start(self) -> None:
        """One more."""
        inherited = [fd for fd in (self._theirs, self._listener) if fd >= 0]
        process = subprocess.Popen(
            self._command,
            env=os.environ | {VARIABLE: f"{self._theirs},{self._listener}"},
            pass_fds=inherited,
        )
        self._running[process] = time.monotonic()

    def watch(self, until: float | None = None) -> int | None:
        """Replace whoever dies; the exit code when a signal, or a failed start, ends it all.

        None where nothing has happened until then.
        """
        while until is None or time.monotonic() < until:
            got = _signal(min([*self._pauses, *filter(None, [until])], default=None))
            if got in (signal.SIGTERM, signal.SIGINT):
                return 0
            for process, code in self._ended():
                if code > 0 and not self._settled:
                    return code
                self._replace(process.pid, code)
            for _ in [at for at in self._pauses if at <= time.monotonic()]:
                self._pauses.remove(min(self._pauses))
                self.start()
        return None

    def _ended(self) -> list[tuple[subprocess.Popen[bytes], int]]:
        now, ended = time.monotonic(), []
        for process, began in list(self._running.items()):
            lived = now - began
            self._settled = self._settled or lived > SETTLED
            if (code := process.poll()) is not None:
                del self._running[process]
                self._failed = 0 if lived > SETTLED else self._failed + 1
                ended.append((process, code))
        return ended

    def _replace(self, pid: int, code: int) -> None:
        pause = min(LONGEST, 2.0 ** (self._failed - 2)) if self._failed > 1 else 0.0
        said = f"signal {-code}" if code < 0 else f"exit code {code}"
        LOG.error("process %d ended with %s; starting another in %g s", pid, said, pause)
        self._pauses.append(time.monotonic() + pause)

    def end(self, grace: float, code: int) -> int:
        """Let all finish what is under way; `code`, or 1 where they had to be killed."""
        os.close(self._ours)
        until = time.monotonic() + grace + FORCED
        while self._running:
            got = _signal(until)
            if got in (signal.SIGTERM, signal.SIGINT) or time.monotonic() >= until:
                for process in self._running:
                    process.kill()
                code = 1
            for process in [one for one in self._running if one.poll() is not None]:
                del self._running[process]
        return code


def _signal(until: float | None) -> int | None:
    """The next signal; None at `until`, by the monotonic clock."""
    if until is None:
        return signal.sigwait(_SIGNALS)
    found = signal.sigtimedwait(_SIGNALS, max(0.0, until - time.monotonic()))
    return None if found is None else found.si_signo


# -- in one of several ---------------------------------------------------------------------------


def supervised() -> bool:
    """True in a process that `supervise` has started."""
    return VARIABLE in os.environ


def inherited() -> socket.socket | None:
    """The socket that the processes share."""
    fd = int(os.environ[VARIABLE].partition(",")[2]) if supervised() else -1
    return None if fd < 0 else socket.socket(fileno=fd)


def follow(stop: asyncio.Event) -> None:
    """Set `stop` when the supervisor ends, or wants this process to."""
    if supervised():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        pipe = int(os.environ[VARIABLE].partition(",")[0])
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(pipe)
            stop.set()

        loop.add_reader(pipe, ended)
