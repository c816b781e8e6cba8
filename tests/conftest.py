"""Servers and clocks that tests share. A test that needs a server gets a real one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis  # noqa: F401 - imported late, CPython 3.11.7 breaks on it
import pytest

from tests.services.java import NEEDED, folder_of_jars, jars, java_version
from tests.services.kafka import KafkaBroker

NOT_RUN = "not run"
"""Property of a test that says what it leaves out, and why."""
INSTALL = {
    "redis-server": "apt-get install redis-server",
    "openssl": "apt-get install openssl",
    "root on Linux": "sudo make test",
    "systemd-analyze": "apt-get install systemd",
    "unshare": "apt-get install util-linux",
    "java": "apt-get install default-jre-headless",
    "mvn": "apt-get install maven",
    "kcat": "apt-get install kcat",
    "Apache Kafka": "make services, once, with a connection to Maven's repository",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == NOT_RUN:
                terminalreporter.write_line(f"{name.upper()}: {value}", yellow=True)
    skipped = "".join(str(report.longrepr) for report in terminalreporter.getreports("skipped"))
    for server, command in INSTALL.items():
        if f"{server} is not installed" in skipped:
            terminalreporter.write_line(
                f"NOT RUN: the tests that need {server}; install it with: {command}", yellow=True
            )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where CI is true every test runs: a skipped one fails the run, whatever skipped it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def need(server: str) -> str:
    """Path of a server's program; without it the test is skipped, or fails where CI is true."""
    found = shutil.which(server)
    return missing(server) if found is None else found


def missing(server: str) -> NoReturn:
    """Skip the test, or fail it where CI is true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{server} is missing: {INSTALL[server]}")
    pytest.skip(f"{server} is not installed")


def may_mount() -> bool:
    """True where this process may lay file systems of its own over others."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(tried, stderr=subprocess.DEVNULL, check=False).returncode
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")


class RedisServer:
    """A redis-server of the test's own, on a free port; can be stopped and started again."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        options = self._options or ("--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            [need("redis-server"), "--bind", "127.0.0.1", "--port", str(self.port),
             "--dir", str(self._folder), *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_port(self.port)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(with_signal)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the whole run; each test uses a namespace of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes Redis servers that the test may stop, with options of its own."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def _kafka(folder: Path, **options: Any) -> KafkaBroker:
    if java_version() < NEEDED:
        missing("java")
    if not folder_of_jars().exists():
        need("mvn")
        try:
            jars()
        except subprocess.CalledProcessError:
            missing("Apache Kafka")
    broker = KafkaBroker(folder, **options)
    broker.start()
    return broker


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One Kafka for the whole run; each test makes topics of its own, and lets the broker live."""
    broker = _kafka(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaBroker]]:
    """Makes brokers that the test may kill and start again, with options of its own."""
    brokers: list[KafkaBroker] = []

    def make(**options: Any) -> KafkaBroker:
        brokers.append(_kafka(tmp_path / f"kafka{len(brokers)}", **options))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A name for a topic that no other test uses."""
    return f"{request.node.name[:150].split('[')[0]}.{uuid.uuid4().hex[:8]}"


class Clock:
    """A clock that tests own. Every look at it takes a microsecond, as in life."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._ticks = 0

    def __call__(self) -> float:
        self._ticks += 1
        return 1_800_000_000.0 + self.offset + self._ticks * 1e-6

    def advance(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()
