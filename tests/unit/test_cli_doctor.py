"""`rebound doctor`, read as a person on call reads it."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import msgspec
import pytest

from rebound.adapters.stores import sqlite_health
from tests.conftest import RedisServer, free_port
from tests.unit.test_cli import STORE, folder, run, submitted  # noqa: F401 - a fixture

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the tests run."""
    monkeypatch.setattr(sqlite_health, "MOUNTS", Path("/no/such/file"))
    monkeypatch.setattr(sqlite_health, "LOW", 0)


def hurt(sql: str) -> None:
    db = apsw.Connection("tasks.db")
    db.execute(sql)
    db.close()


def paragraphs(text: str) -> list[str]:
    """The findings, each in one line."""
    return [" ".join(part.split()) for part in text.strip().split("\n\n")[1:]]


def test_a_sound_store_has_no_findings_and_exit_code_0(
    folder: Path,  # noqa: F811
    capsys: Printed,
) -> None:
    submitted(folder, "a")
    capsys.readouterr()
    assert run("doctor", *STORE) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"sqlite tasks\.db: 1 task and 1 lane looked over in \d\.\d s\nno findings\n", out
    )


def test_damage_is_said_with_what_it_means_and_what_to_do_and_mended(
    folder: Path,  # noqa: F811
    capsys: Printed,
) -> None:
    submitted(folder, *(f"t{n:02}" for n in range(12)))
    hurt("UPDATE tasks SET due_at = NULL")
    hurt("UPDATE tasks SET body = x'00' WHERE id = 't11'")
    capsys.readouterr()
    assert run("doctor", *STORE) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    ids = ", ".join(f"t{n:02}" for n in range(10))
    error, empty, unreadable = sorted(paragraphs(out))
    assert empty.startswith("WARNING: 1 lane listed, but empty. ")
    assert error == (
        "ERROR: 11 tasks scheduled, but in no lane. No worker will ever find them, so they are"
        " never delivered. Run `rebound doctor --repair`; workers may go on meanwhile."
        f" [{ids} and 1 more (--json names 11)]"
    )
    assert unreadable.startswith("WARNING: 1 task with a record that cannot be read. ")
    assert unreadable.endswith(" [t11]")
    assert run("doctor", "--repair", *STORE) == 1  # nobody can mend t11
    *_, mended = paragraphs(capsys.readouterr().out)
    named = f"[{ids} and 1 more (--json names 11)]"
    assert mended == f"MENDED: 11 tasks scheduled, but in no lane. {named}"
    assert run("delete", "t11", *STORE) == 0
    assert run("doctor", *STORE) == 0


def test_after_a_repair_that_leaves_nothing_the_exit_code_is_0(
    folder: Path,  # noqa: F811
    capsys: Printed,
) -> None:
    submitted(folder, "a")
    hurt("DELETE FROM lanes")
    assert run("doctor", *STORE) == 1
    assert run("doctor", "--repair", *STORE) == 0
    assert "MENDED: 1 lane with tasks that no worker looks at" in capsys.readouterr().out


def test_json_has_one_object_a_finding_and_all_names(
    folder: Path,  # noqa: F811
    capsys: Printed,
) -> None:
    submitted(folder, *(f"t{n:02}" for n in range(12)))
    hurt("UPDATE tasks SET due_at = NULL")
    capsys.readouterr()
    assert run("doctor", "--json", *STORE) == 1
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["severity"], lines[0]["count"], lines[0]["mended"]) == ("error", 12, False)
    assert lines[0]["subjects"] == [f"t{n:02}" for n in range(12)]


def test_a_store_that_is_not_there_is_said_and_not_made(
    folder: Path,  # noqa: F811
    capsys: Printed,
) -> None:
    assert run("doctor", *STORE) == 1
    assert paragraphs(capsys.readouterr().out)[0].startswith("ERROR: There is no store tasks.db. ")
    assert list(folder.iterdir()) == []


def test_what_is_no_database_is_said(folder: Path, capsys: Printed) -> None:  # noqa: F811
    (folder / "tasks.db").write_text("text" * 999)
    assert run("doctor", *STORE) == 1
    assert "tasks.db is not an SQLite database" in " ".join(capsys.readouterr().out.split())


def test_a_redis_that_does_not_answer_is_said(capsys: Printed) -> None:
    assert run("doctor", "--store-url", f"redis://:secret@127.0.0.1:{free_port()}") == 1
    out = capsys.readouterr().out
    assert paragraphs(out)[0].startswith(
        "ERROR: The store cannot be used. redis cannot be reached: "
    )
    assert "secret" not in out


def test_redis_is_chosen_by_its_settings(
    redis_server: RedisServer, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_ADDR", f"127.0.0.1:{redis_server.port}")
    monkeypatch.setenv("NAMESPACE", "nobody")
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert out.startswith(f"redis 127.0.0.1:{redis_server.port}/0: 0 tasks and 0 lanes looked over")
    assert paragraphs(out) == [
        "WARNING: Appendonly is off. A crash or restart of Redis loses what it accepted since its"
        " last snapshot. `redis-cli CONFIG SET appendonly yes`, and in redis.conf too."
    ]


@pytest.mark.parametrize(
    ("name", "value", "said", "code"),
    [
        ("LEASE", "2s", "WARNING: LEASE is 2s.", 1),
        ("SHUTDOWN_GRACE", "60s", "WARNING: SHUTDOWN_GRACE is 1m.", 1),
        ("LANE_CONCURRENCY", "2000", "NOTE: LANE_CONCURRENCY (2000) is more than CONCURRENCY", 0),
        ("MAX_BATCH_BYTES", "1024", "WARNING: MAX_BATCH_BYTES is less than MAX_PAYLOAD_BYTES.", 1),
        ("DEDUP_WINDOW", "1m", "NOTE: DEDUP_WINDOW is shorter than RETENTION_SUCCEEDED.", 0),
        ("DEDUP_MAX", "0", "WARNING: DEDUP_MAX is 0.", 1),
        ("KAFKA_BROKERS", "127.0.0.1:1", "ERROR: No connection to 127.0.0.1:1 (KAFKA_BROKERS).", 1),
    ],
)
def test_risky_settings_are_said(
    name: str, value: str, said: str, code: int,
    folder: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:  # fmt: skip
    submitted(folder, "a")
    capsys.readouterr()
    monkeypatch.setenv(name, value)
    assert run("doctor", *STORE) == code
    (found,) = paragraphs(capsys.readouterr().out)
    assert found.startswith(said)


def test_a_store_in_memory_is_said(capsys: Printed) -> None:
    assert run("doctor", "--store-url", "sqlite://:memory:") == 1
    assert "WARNING: The store is in memory" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [("--url", "http://x"), ("--store-url", "mysql://x"), ("now",)])
def test_bad_arguments_are_exit_code_2(argv: tuple[str, ...], capsys: Printed) -> None:
    assert run("doctor", *argv) == 2
    assert capsys.readouterr().out == ""
