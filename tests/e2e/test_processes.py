"""The commands that stay, as real processes: start, signals, and what they say on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec
import pytest

from tests.conftest import RedisServer, free_port

PROGRAM = "import sys; from rebound.cli.main import main; sys.exit(main())"


class Rebound:
    """A process of the command line; its stdout is read line by line."""

    def __init__(self, folder: Path, *argv: str, **env: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "REBOUND_"))}
        self.errors = folder / f"{argv[0]}.err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *argv],
            cwd=folder, env={**clean, **env}, text=True,
            stdout=subprocess.PIPE, stderr=self.errors.open("w"),
        )  # fmt: skip
        self.url = ""

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def serving(self) -> Rebound:
        self.first = self.line()
        self.url = self.first.split()[-1]
        return self

    def call(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else msgspec.json.encode(body)
        try:
            with urlopen(Request(f"{self.url}{path}", data), timeout=5) as answer:
                return answer.status, msgspec.json.decode(answer.read())
        except HTTPError as error:
            with error:
                return error.code, msgspec.json.decode(error.read())
        except (URLError, OSError):
            return 0, None

    def until(self, path: str, status: int, seconds: float = 5.0) -> Any:
        deadline = time.monotonic() + seconds
        while (found := self.call(path))[0] != status:
            assert time.monotonic() < deadline, f"{path}: {found}\n{self.errors.read_text()}"
            time.sleep(0.02)
        return found[1]

    def until_task(self, id_: str, state: str, seconds: float = 5.0) -> Any:
        deadline = time.monotonic() + seconds
        while (task := self.call(f"/tasks/{id_}")[1])["state"] != state:
            assert time.monotonic() < deadline, task
            time.sleep(0.02)
        return task

    def end(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=10)


Start = Callable[..., Rebound]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes in one folder, and ends those that still run."""
    running: list[Rebound] = []

    def make(*argv: str, **env: str) -> Rebound:
        running.append(Rebound(tmp_path, *argv, **env))
        return running[-1]

    yield make
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a receiver that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def task(url: str, **given: object) -> dict[str, object]:
    return {"id": "t", "source": "s", "destination": {"url": url}, "delay": 0, **given}


def test_serve_names_store_and_address_takes_tasks_and_ends_on_sigterm(start: Start) -> None:
    serve = start("serve", HTTP_PORT="0").serving()
    assert serve.first.startswith("rebound ")
    assert " sqlite rebound.db " in serve.first
    serve.until("/readyz", 200)
    status, answer = serve.call("/tasks", task(f"{serve.url}/health", destination={
        "url": f"{serve.url}/livez", "method": "GET"}))  # fmt: skip
    assert (status, answer["created"]) == (201, True)
    serve.until_task("t", "succeeded")
    assert serve.end(signal.SIGTERM) == 0
    assert "task delivered" in serve.errors.read_text()


def test_sigint_ends_serve_likewise(start: Start) -> None:
    serve = start("serve", "--no-worker", "--http-port", "0").serving()
    serve.until("/readyz", 200)
    assert serve.end(signal.SIGINT) == 0


def test_the_command_line_reaches_a_running_service_by_its_url(start: Start) -> None:
    serve = start("serve", "--no-worker", "--http-port", "0").serving()
    serve.until("/readyz", 200)
    (serve.errors.parent / "task.json").write_bytes(msgspec.json.encode(task("http://x/")))
    for argv, said in [
        (("submit", "task.json"), "t 201\n"),
        (("cancel", "t"), "t cancelled\n"),
        (("delete", "t"), "t deleted\n"),
    ]:
        one = start(*argv, "--url", serve.url)
        assert one.line() == said
        assert one.process.wait() == 0


def test_a_service_in_production_serves_those_who_have_a_key(start: Start) -> None:
    full, submit = "key-of-an-operator", "key-of-a-shop-4711"
    settings = {"ENVIRONMENT": "prod", "HTTP_HOST": "0.0.0.0", "HTTP_PORT": "0"}
    refused = start("serve", **settings)
    assert refused.process.wait(timeout=10) == 2
    assert refused.errors.read_text().startswith("rebound: API_KEYS: are needed in prod")
    keys = {"API_KEYS": f"an-old-key-until-monday,{full}", "API_KEYS_SUBMIT": submit}
    serve = start("serve", "--no-worker", **settings, **keys, LOG_LEVEL="debug").serving()
    serve.until("/readyz", 200)
    (serve.errors.parent / "task.json").write_bytes(msgspec.json.encode(task("http://x/")))
    for argv, key, code, said in [
        (("submit", "task.json"), "", 1, ""),
        (("submit", "task.json"), submit, 0, "t 201\n"),
        (("cancel", "t"), submit, 1, ""),
        (("cancel", "t", "--api-key", full), submit, 0, "t cancelled\n"),
        (("list",), "an-old-key-until-tuesday", 1, ""),
        (("list", "--limit", "1"), full, 0, "ID"),
    ]:
        one = start(*argv, "--url", serve.url, REBOUND_API_KEY=key)
        assert one.line().startswith(said)
        assert one.process.wait() == code
        assert key == "" or key not in one.errors.read_text()
    assert serve.end() == 0
    assert "key-" not in serve.errors.read_text()


def test_an_occupied_port_is_one_line_that_names_it_and_exit_code_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        serve = start("serve", HTTP_PORT=port)
        assert serve.process.wait(timeout=5) == 1
    said = serve.errors.read_text().splitlines()
    assert said == [f"rebound: cannot listen on 127.0.0.1:{port}: address already in use"]
    assert serve.line() == ""


def test_a_store_that_cannot_be_used_ends_the_start_with_one_line(start: Start) -> None:
    serve = start("serve", HTTP_PORT="0", STORE_URL="sqlite:///no/such/folder/x.db")
    assert serve.process.wait(timeout=5) == 1
    (said,) = serve.errors.read_text().splitlines()
    assert said.startswith("rebound: ")


def test_a_store_that_is_away_at_the_start_is_waited_for(start: Start, tmp_path: Path) -> None:
    port = free_port()
    env = {"REDIS_ADDR": f"127.0.0.1:{port}", "REDIS_PASSWORD": "s3cret"}
    serve = start("serve", HTTP_PORT="0", **env).serving()
    assert f" redis 127.0.0.1:{port}/0 " in serve.first
    assert serve.until("/readyz", 503)["status"] == "not ready"
    assert serve.call("/livez")[0] == 200
    assert serve.call("/tasks", task("http://x/"))[0] == 503
    server = RedisServer(tmp_path, "--save", "", "--requirepass", "s3cret", port=port)
    try:
        serve.until("/readyz", 200)
        assert serve.call("/tasks", task("http://127.0.0.1:1/"))[0] == 201
        assert serve.end() == 0
    finally:
        server.stop()
    said = serve.errors.read_text()
    assert said.count("store unavailable") == 1
    assert "store back" in said
    assert "s3cret" not in said


def test_a_refused_login_ends_the_start_with_one_line(start: Start, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--save", "", "--requirepass", "right")
    try:
        serve = start("serve", HTTP_PORT="0", STORE_URL=f"redis://:wrong@127.0.0.1:{server.port}")
        assert serve.process.wait(timeout=5) == 1
    finally:
        server.stop()
    (said,) = serve.errors.read_text().splitlines()
    assert said.startswith("rebound: ")
    assert "wrong" not in said


def test_a_stop_cuts_deliveries_short_within_the_grace_and_says_so_meanwhile(
    start: Start, silent: str
) -> None:
    serve = start("serve", HTTP_PORT="0", SHUTDOWN_GRACE="700ms").serving()
    serve.until("/readyz", 200)
    serve.call("/tasks", task(silent))
    serve.until_task("t", "delivering")
    started = time.monotonic()
    serve.process.send_signal(signal.SIGTERM)
    assert serve.until("/readyz", 503)["error"] == "shutting down"
    assert serve.process.wait(timeout=5) == 0
    assert 0.7 <= time.monotonic() - started < 2.7
    show = start("show", "t")
    assert show.process.stdout is not None
    shown = msgspec.json.decode(show.process.stdout.read())
    assert (shown["state"], shown["attempt"]) == ("scheduled", 0)
    assert shown["attempts"][0]["outcome"] == "cut_short"


def test_a_second_signal_ends_the_process_at_once_with_1(start: Start, silent: str) -> None:
    serve = start("serve", HTTP_PORT="0").serving()
    serve.until("/readyz", 200)
    serve.call("/tasks", task(silent))
    serve.until_task("t", "delivering")
    serve.process.send_signal(signal.SIGTERM)
    serve.until("/readyz", 503)
    started = time.monotonic()
    assert serve.end() == 1
    assert time.monotonic() - started < 1


def test_a_worker_delivers_what_a_service_without_one_took(start: Start) -> None:
    serve = start("serve", "--no-worker", HTTP_PORT="0").serving()
    serve.until("/readyz", 200)
    to = {"url": f"{serve.url}/livez", "method": "GET"}
    assert serve.call("/tasks", task("", destination=to))[0] == 201
    work = start("work", ENVIRONMENT="prod", ALLOW_PRIVATE_NETWORKS="on")
    assert work.line().endswith(" sqlite rebound.db · worker without API\n")
    serve.until_task("t", "succeeded")
    assert work.end() == 0
    logged = [msgspec.json.decode(line) for line in work.errors.read_text().splitlines()]
    assert [line["msg"] for line in logged] == [
        "worker started",
        "task delivered",
        "worker stopped",
    ]


def test_the_demo_shows_it_all_on_the_next_free_port_and_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        env = {"HTTP_PORT": str(port), "REDIS_ADDR": "r:1", "TMPDIR": str(tmp_path)}
        env |= {"ALLOW_PRIVATE_NETWORKS": "off", "HTTPS_ONLY": "on", "ALLOWED_PORTS": "443"}
        demo = start("demo", **env)
        said = demo.line()
        demo.url = said.split()[-1]
        while "curl" not in said.splitlines()[-1]:
            said += demo.line()
        assert time.monotonic() - started < 15
    for expected in ("failed", "delivered", "gave up", "dead letter"):
        assert f" {expected} " in said
    assert "\x1b" not in said
    assert int(demo.url.rpartition(":")[2]) > port
    assert demo.call("/tasks/bumpy")[1]["state"] == "succeeded"
    assert demo.end(signal.SIGINT) == 0
    assert demo.errors.read_text() == ""
    assert not list(tmp_path.glob("rebound-demo-*"))


def answered(url: str, key: str = "", attempt: int = 1) -> tuple[int, str | None]:
    """Status and Retry-After of a delivery."""
    headers = {"X-Message-Key": key, "X-Rebound-Attempt": str(attempt)} if key else {}
    try:
        with urlopen(Request(url, b"{}", headers), timeout=5) as answer:
            return answer.status, None
    except HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"]


def test_the_receiver_answers_each_message_by_script_and_prints_a_line_for_it(
    start: Start,
) -> None:
    receiver = start("receiver", "--script", "503,429:30,200", "--port", "0")
    first = receiver.line()
    assert first.startswith("rebound ")
    assert first.endswith(" · 503,429:30,200\n")
    url = first.split(" · ")[2]
    assert [answered(f"{url}/hook?a=1", "o-1", n) for n in (1, 2, 3, 4)] == [
        (503, None), (429, "30"), (200, None), (200, None)
    ]  # fmt: skip
    assert answered(f"{url}/dead-letters", "o-1") == (503, None)
    assert answered(f"{url}/hook?a=1") == (503, None)
    lines = [receiver.line().split("  ") for _ in range(6)]
    assert [line[1:] for line in lines] == [
        ["POST /hook?a=1", "o-1", "attempt 1", "503\n"],
        ["POST /hook?a=1", "o-1", "attempt 2", "429\n"],
        ["POST /hook?a=1", "o-1", "attempt 3", "200\n"],
        ["POST /hook?a=1", "o-1", "attempt 4", "200\n"],
        ["POST /dead-letters", "o-1", "attempt 1", "503\n"],
        ["POST /hook?a=1", "-", "attempt -", "503\n"],
    ]
    assert receiver.end(signal.SIGINT) == 0
    assert receiver.errors.read_text() == ""


def test_a_receiver_whose_port_is_taken_says_so_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        receiver = start("receiver", "--port", port)
        assert receiver.process.wait(timeout=10) == 1
    said = receiver.errors.read_text()
    assert said == f"rebound: cannot listen on 127.0.0.1:{port}: address already in use\n"
