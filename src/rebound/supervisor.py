"""Several processes of one service: started, replaced where one dies, and ended together.

They share one listening socket. What ends them is the end of a pipe that this process holds: so
they also end where it is killed, and a signal that reaches all of a group at once counts as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Final

from rebound.domain.errors import ValidationError

LOG = logging.getLogger("rebound")
VARIABLE: Final = "_REBOUND_SUPERVISED"
"""What tells a process that it is one of several: the descriptors of its pipe and socket."""
FIRST: Final = 5.0
"""Seconds that the first process has to get up, or to say what others would repeat."""
LOOK: Final = 0.05
"""Seconds between two looks whether it is up."""
SETTLED: Final = 10.0
"""Seconds after which a process that ends is no failed start."""
LONGEST: Final = 30.0
"""Seconds between two starts at most, where each one fails."""
FORCED: Final = 2.0
"""Seconds after the grace when a process that has not ended is killed; it ends itself before."""
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def supervise(count: int, *, grace: float, listener: socket.socket | None = None) -> int:
    """Run the command of this process `count` times until a signal; answers the exit code.

    After a signal they have `grace` seconds to finish; a second one ends them at once, with 1.
    Where the first ones fail at their start, that is the end, with their exit code.
    Raises ValidationError on systems that lack what it needs.
    """
    if not hasattr(signal, "sigtimedwait"):
        raise ValidationError(
            f"PROCESSES: is {count}, but there can be several on Linux only", field="processes"
        )
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals())  # each is waited for below
    crew = _Crew(listener)
    crew.start()
    if (code := crew.watch(time.monotonic() + FIRST)) is None:
        for _ in range(count - 1):
            crew.start()
        code = crew.watch()
    return crew.end(grace, code or 0)


class _Crew:
    def __init__(self, listener: socket.socket | None) -> None:
        # As this one was started: `-m` would look for modules in the working directory first.
        self._command = [sys.executable, *sys.orig_argv[1:]]
        self._listener = -1 if listener is None else listener.fileno()
        self._theirs, self._ours = socket.socketpair()
        self._ours.setblocking(False)
        self._running: dict[subprocess.Popen[bytes], float] = {}
        self._pauses: list[float] = []
        self._failed = 0
        self._settled = False

    def start(self) -> None:
        """One more."""
        theirs = self._theirs.fileno()
        process = subprocess.Popen(
            self._command,
            env=os.environ | {VARIABLE: f"{theirs},{self._listener}"},
            pass_fds=[fd for fd in (theirs, self._listener) if fd >= 0],
        )
        self._running[process] = time.monotonic()

    def watch(self, until: float | None = None) -> int | None:
        """Replace whoever dies; the exit code when a signal, or a failed start, ends it all.

        None where nothing has happened until then, or until one is up.
        """
        while until is None or (time.monotonic() < until and not self._one_is_up()):
            looks = [] if until is None else [time.monotonic() + LOOK]
            got = _signal(min([*self._pauses, *looks], default=None))
            if got in _STOPS:
                return 0
            for process, code in self._ended():
                if code > 0 and not self._settled:
                    return code
                self._replace(process.pid, code)
            for _ in [at for at in self._pauses if at <= time.monotonic()]:
                self._pauses.remove(min(self._pauses))
                self._start_again()
        return None

    def _one_is_up(self) -> bool:
        try:
            return bool(self._ours.recv(1))
        except BlockingIOError:
            return False

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
        said = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._later(f"process {pid} ended with {said}")

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError as error:  # such as no memory left for it; the others go on
            self._failed += 1
            self._later(f"a process cannot be started: {error.strerror}")

    def _later(self, why: str) -> None:
        pause = pause_after(self._failed)
        LOG.error("%s; starting another in %g s", why, pause)
        self._pauses.append(time.monotonic() + pause)

    def end(self, grace: float, code: int) -> int:
        """Let all finish what is under way; `code`, or 1 where they had to be killed."""
        self._ours.close()
        until = time.monotonic() + grace + FORCED
        while self._running:
            got = _signal(until)
            if got in _STOPS or time.monotonic() >= until:
                for process in self._running:
                    process.kill()
                code = 1
            for process in [one for one in self._running if one.poll() is not None]:
                del self._running[process]
        return code


def _signal(until: float | None) -> int | None:
    """The next signal; None at `until`, by the monotonic clock."""
    if until is None:
        return signal.sigwait(_signals())
    found = signal.sigtimedwait(_signals(), max(0.0, until - time.monotonic()))
    return None if found is None else found.si_signo


def _signals() -> tuple[signal.Signals, ...]:
    return (*_STOPS, signal.SIGCHLD)  # which not every system has


def pause_after(failures: int) -> float:
    """Seconds until a process is started again after so many failures in a row."""
    return min(LONGEST, 2.0 ** min(failures - 2, 10)) if failures > 1 else 0.0


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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals())
        pipe = int(os.environ[VARIABLE].partition(",")[0])
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(pipe)
            stop.set()

        loop.add_reader(pipe, ended)


def report_up() -> None:
    """Tell the supervisor, where there is one, that this process has its settings and store."""
    if supervised():
        fd = int(os.environ[VARIABLE].partition(",")[0])
        # Nobody reads but the first, and a supervisor that is gone is noticed by `follow`.
        with socket.socket(fileno=os.dup(fd)) as pipe, contextlib.suppress(OSError):
            pipe.send(b"!", socket.MSG_DONTWAIT)
