"""What is logged of an event, at which level, and what never is."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from rebound.adapters.listeners import log
from rebound.adapters.listeners.lines import PIECE, JsonFormatter, TextFormatter
from rebound.adapters.listeners.log import LogListener, guarded
from rebound.domain.attempt import Attempt, Leg, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.task import Task
from rebound.ports import Event

TASK = Task(
    id="t1",
    source="shop",
    destination=Destination(
        url="https://user:s3cret@api.example.org/hook?token=s3cret",
        headers={"Authorization": "s3cret"},
    ),
    dead_destination=Destination(url="http://dlq.example.org/"),
    message_data="the payload",
    state=State.SCHEDULED,
    leg=Leg.MAIN,
)
FAILED = Attempt(Leg.MAIN, 2, 1_800_000_000.0, 12.5, Outcome.FAILED, 503, "HTTP 503", "body")


class Lines:
    """A logger of the test's own, and what it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        self.logger = logging.Logger("test")
        self.logger.addHandler(handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def json(self) -> list[dict[str, object]]:
        return [msgspec.json.decode(line) for line in self.text.splitlines()]


@pytest.fixture
def lines() -> Lines:
    return Lines(JsonFormatter())


def test_a_failed_delivery_is_one_json_line_with_everything_that_applies(lines: Lines) -> None:
    LogListener(lines.logger)(Event("delivery failed", TASK, FAILED))
    (line,) = lines.json
    assert line.pop("ts")
    assert line == {
        "level": "warning", "msg": "delivery failed", "task_id": "t1", "source": "shop",
        "destination_type": "http", "lane": "https://api.example.org", "attempt": 2,
        "state": "scheduled", "error": "HTTP 503", "duration_ms": 12.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("task scheduled", "info"),
        ("delivery failed", "warning"),
        ("retry scheduled", "info"),
        ("task delivered", "info"),
        ("task dead", "error"),
        ("dead letter delivered", "info"),
        ("lease lost", "warning"),
        ("worker started", "info"),
        ("worker stopped", "info"),
        ("store not durable", "warning"),
        ("store unavailable", "warning"),
        ("store back", "info"),
    ],
)
def test_every_event_has_its_level(lines: Lines, kind: str, level: str) -> None:
    LogListener(lines.logger)(Event(kind, TASK if "store" not in kind else None))
    (line,) = lines.json
    assert (line["msg"], line["level"]) == (kind, level)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_neither_payloads_nor_secrets_are_logged(formatter: logging.Formatter) -> None:
    lines = Lines(formatter)
    for kind in ("task scheduled", "delivery failed", "task dead"):
        LogListener(lines.logger)(Event(kind, TASK, FAILED))
    assert "t1" in lines.text
    for secret in ("s3cret", "the payload", "body"):
        assert secret not in lines.text


def test_the_lane_is_that_of_the_attempt_although_the_task_has_moved_on(lines: Lines) -> None:
    moved = replace(TASK, leg=Leg.DEAD, lane="mine")
    LogListener(lines.logger)(Event("delivery failed", moved, FAILED))
    LogListener(lines.logger)(Event("task scheduled", moved))
    assert [line["lane"] for line in lines.json] == ["mine", "http://dlq.example.org"]


def test_a_lost_lease_names_the_attempt_under_way(lines: Lines) -> None:
    LogListener(lines.logger)(Event("lease lost", replace(TASK, attempt=3)))
    assert lines.json[0]["attempt"] == 4


def test_a_store_event_carries_its_detail_as_error(lines: Lines) -> None:
    LogListener(lines.logger)(Event("store unavailable", detail="connection refused"))
    LogListener(lines.logger)(Event("worker started", detail="http"))
    assert lines.json[0]["error"] == "connection refused"
    assert set(lines.json[1]) == {"level", "ts", "msg"}


def test_a_task_that_cannot_be_read_is_logged_all_the_same(lines: Lines) -> None:
    broken = Task(id="x", source="", destination=Destination(), state=State.DEAD)
    LogListener(lines.logger)(Event("task dead", broken))
    assert lines.json[0]["task_id"] == "x"


def test_nothing_is_put_together_for_a_level_that_is_not_wanted(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "fields", lambda event: pytest.fail("was put together"))
    lines.logger.setLevel(logging.ERROR)
    LogListener(lines.logger)(Event("task scheduled", TASK))
    assert lines.text == ""


def test_text_lines_stay_one_line_whatever_the_receiver_said() -> None:
    lines = Lines(TextFormatter())
    attempt = msgspec.structs.replace(FAILED, error="first\nlevel=error \x1b[31mmsg\u2028x")
    LogListener(lines.logger)(Event("delivery failed", TASK, attempt))
    assert len(lines.text.splitlines()) == 1
    assert "\x1b" not in lines.text
    assert " warning delivery failed task_id=t1 source=shop " in lines.text


def test_a_lone_surrogate_does_not_lose_the_line(lines: Lines) -> None:
    lines.logger.warning("odd \ud800")
    assert b"ud800" in lines.text.encode()


def test_what_a_listener_raises_is_logged_and_goes_no_further(lines: Lines) -> None:
    def listener(event: Event) -> None:
        raise ZeroDivisionError("oh")

    guarded(listener, lines.logger)(Event("task delivered", TASK))
    (line,) = lines.json
    assert line["msg"] == "a listener failed at 'task delivered'"
    assert line["level"] == "error"
    assert "ZeroDivisionError: oh" in str(line["exception"])


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    """Everything that `configure` changes, put back afterwards."""
    ours, root = logging.getLogger("rebound"), logging.getLogger()
    before = (ours.handlers, ours.level, ours.propagate, root.handlers)
    yield
    ours.handlers, ours.level, ours.propagate, root.handlers = before


@pytest.mark.usefixtures("untouched_logging")
def test_a_service_logs_to_stderr_by_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure("warn", "json")
    logging.getLogger("rebound").info("unwanted")
    logging.getLogger("rebound").warning("wanted")
    logging.getLogger("somebody.else").warning("also")
    written = [msgspec.json.decode(line)["msg"] for line in stream.getvalue().splitlines()]
    assert written == ["wanted", "also"]


# -- the log of a service ----------------------------------------------------------------------


class Writes(io.StringIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[str] = []

    def write(self, text: str) -> int:
        self.each.append(text)
        return super().write(text)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, untouched_logging: None) -> Writes:
    """What a service writes that logs JSON from `info` on."""
    stream = Writes()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure("info", "json")
    return stream


DELIVERED = Event("task delivered", TASK, FAILED)
OURS = logging.getLogger("rebound")


def messages(text: str) -> list[str]:
    return [msgspec.json.decode(line)["msg"] for line in text.splitlines()]


async def test_info_lines_of_one_turn_are_one_write(service: Writes) -> None:
    for _ in range(3):
        LogListener(OURS)(DELIVERED)
    OURS.info("by hand")
    assert service.each == []
    await asyncio.sleep(0)
    assert [messages(text) for text in service.each] == [["task delivered"] * 3 + ["by hand"]]
    LogListener(OURS)(DELIVERED)
    await asyncio.sleep(0)
    assert len(service.each) == 2


@pytest.mark.parametrize(
    "tell",
    [
        lambda: LogListener(OURS)(Event("delivery failed", TASK, FAILED)),
        lambda: LogListener(OURS)(Event("task dead", TASK)),
        lambda: OURS.warning("by hand"),
        lambda: logging.getLogger("somebody.else").error("oh"),
    ],
)
async def test_a_warning_is_written_at_once_behind_what_waits(
    service: Writes, tell: Callable[[], None]
) -> None:
    LogListener(OURS)(DELIVERED)
    tell()
    (text,) = service.each
    assert messages(text)[0] == "task delivered"
    assert len(messages(text)) == 2


def test_without_an_event_loop_each_line_is_written_at_once(service: Writes) -> None:
    LogListener(OURS)(DELIVERED)
    LogListener(OURS)(DELIVERED)
    assert len(service.each) == 2


async def test_no_write_is_longer_than_a_pipe_takes_whole_and_each_ends_with_its_line(
    service: Writes,
) -> None:
    for n in range(100):
        LogListener(OURS)(Event("task delivered", replace(TASK, source="é" * n), FAILED))
    await asyncio.sleep(0)
    assert 1 < len(service.each) < 20
    assert all(len(text.encode()) <= PIECE and text.endswith("\n") for text in service.each)
    assert len(messages("".join(service.each))) == 100


async def test_the_end_of_the_process_writes_what_waits(service: Writes) -> None:
    LogListener(OURS)(DELIVERED)
    OURS.handlers[0].flush()  # as logging does at the exit
    assert len(service.each) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
async def test_what_waits_at_a_fork_is_written_once(service: Writes) -> None:
    LogListener(OURS)(DELIVERED)
    if (child := os.fork()) == 0:
        os._exit(len(service.each))  # written by the parent, before
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    OURS.handlers[0].flush()
    assert len(service.each) == 1


async def test_lines_that_a_loop_left_behind_come_with_those_of_the_next(service: Writes) -> None:
    def in_a_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(LogListener(OURS), DELIVERED)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    await asyncio.to_thread(in_a_loop)
    LogListener(OURS)(DELIVERED)
    await asyncio.sleep(0)
    assert messages("".join(service.each)) == ["task delivered"] * 2


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "event", [DELIVERED, Event("task dead", TASK), Event("worker started", detail="http")]
)
def test_a_line_is_the_same_where_a_program_of_its_own_has_the_record(
    service: Writes, monkeypatch: pytest.MonkeyPatch, form: str, event: Event
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.5)
    monkeypatch.setattr(sys, "stderr", service)
    log.configure("info", form)
    LogListener(OURS)(event)
    OURS.addFilter(lambda _: True)
    try:
        LogListener(OURS)(event)
    finally:
        OURS.filters.clear()
    one, other = service.each
    assert one == other


@pytest.mark.parametrize("where", ["logger", "handler"])
def test_filters_and_handlers_of_the_program_see_every_record(service: Writes, where: str) -> None:
    seen: list[object] = []

    def keep(record: logging.LogRecord) -> bool:
        seen.append(record.__dict__["task_id"])
        return False

    filtered = OURS if where == "logger" else OURS.handlers[0]
    filtered.addFilter(keep)
    try:
        LogListener(OURS)(DELIVERED)
    finally:
        OURS.filters.clear()
    assert seen == ["t1"]
    assert service.each == []
    OURS.handlers[0].filters.clear()
    other = Lines(JsonFormatter())
    OURS.addHandler(other.logger.handlers[0])
    LogListener(OURS)(DELIVERED)
    assert other.json[0]["task_id"] == "t1"
    assert len(service.each) == 1


def test_a_logger_adapter_of_the_program_gets_every_event(lines: Lines) -> None:
    listener: Any = LogListener
    listener(logging.LoggerAdapter(lines.logger, {}))(DELIVERED)
    assert [line["msg"] for line in lines.json] == ["task delivered"]


def test_a_formatter_of_the_program_is_used(service: Writes) -> None:
    OURS.handlers[0].setFormatter(logging.Formatter("%(message)s of %(task_id)s"))
    LogListener(OURS)(DELIVERED)
    assert service.each == ["task delivered of t1\n"]


async def test_a_stream_that_cannot_be_written_to_stops_nobody(
    service: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(text: str) -> int:
        raise OSError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(service, "write", full)
        LogListener(OURS)(DELIVERED)
        await asyncio.sleep(0)
        LogListener(OURS)(Event("task dead", TASK))
    LogListener(OURS)(Event("task dead", TASK))
    assert messages(service.getvalue()) == ["task dead"]
