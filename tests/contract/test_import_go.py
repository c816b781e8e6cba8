"""`rebound import-go`: tasks as the Go original writes them, out of a real Redis into a store."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from rebound import Config, Rebound, wiring
from rebound.adapters.stores.redis_original import KEY, RedisOriginal
from rebound.cli import import_go as import_go_module
from rebound.domain import original, validation
from rebound.domain.destination import Destination
from rebound.domain.errors import InvalidBody, ValidationError
from rebound.domain.times import rfc3339
from rebound.testing import Kit
from tests.conftest import RedisServer, free_port
from tests.redis_servers import Cluster
from tests.unit.test_cli import folder, run  # noqa: F401 - a fixture

Printed = pytest.CaptureFixture[str]
TO = ("--store-url", "sqlite:///tasks.db")
DUE = int(time.time()) + 3600
HTTP = (
    b'{"id":"webhook-123","attempt":2,"source":"order-service","destination":{"host":"","port":"",'
    b'"topic":"","url":"https://api.partner.com/webhook?a=1\\u0026b=2"},"dead_destination":{"host"'
    b':"","port":"","topic":"","url":"https://api.partner.com/webhook-dlq"},"max_retries":5,'
    b'"base_delay":10,"client_id":"order-service","is_priority":true,"message_data":"{\\"event\\":'
    b'\\"order.created\\",\\"html\\":\\"\\u003cb\\u003e\xc3\xa9\\"}","destination_type":"http"}'
)
KAFKA = (
    b'{"id":"kafka-456","attempt":0,"source":"order-service","destination":{"host":"localhost",'
    b'"port":"9092","topic":"orders","url":""},"dead_destination":{"host":"localhost","port":"9092"'
    b',"topic":"orders-dlq","url":""},"max_retries":3,"base_delay":5,"client_id":"order-service",'
    b'"is_priority":false,"message_data":"{\\"order_id\\": 456}","destination_type":"kafka"}'
)
OLDER = (  # before the original could send over HTTP
    b'{"id":"old-1","attempt":1,"source":"s","destination":{"host":"","port":"","topic":"orders"},'
    b'"dead_destination":{"host":"","port":"","topic":""},"max_retries":3,"base_delay":5,'
    b'"client_id":"","is_priority":false,"message_data":"","destination_type":"kafka"}'
)
"""As Go's encoding/json writes them: no spaces, every field, `<`, `>` and `&` escaped."""


@pytest.fixture
def theirs(own_redis: Callable[..., RedisServer]) -> Iterator[redis.Redis]:
    """The original's Redis; its address is the attribute `url`."""
    server = own_redis()
    client = redis.Redis(port=server.port)
    client.url = server.url  # type: ignore[attr-defined]
    yield client
    client.close()


def import_go(theirs: redis.Redis, *further: str) -> int:
    return run("import-go", "--from", theirs.url, *TO, *further)  # type: ignore[attr-defined]


def shown(id_: str, capsys: Printed) -> dict[str, Any]:
    capsys.readouterr()
    assert run("show", id_, *TO) == 0
    return dict(json.loads(capsys.readouterr().out))


def changed(member: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(member), **fields}, separators=(",", ":")).encode()


def test_what_waits_is_moved_with_every_field_and_the_time_at_which_it_is_due(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    theirs.zadd(KEY, {HTTP: DUE, KAFKA: DUE + 1, OLDER: 1})
    assert import_go(theirs) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "old-1 moved: due 1970-01-01T00:00:01.000Z, attempts left: 3"
    assert out[1] == f"webhook-123 moved: due {rfc3339(DUE)}, attempts left: 4"
    assert out[2] == f"kafka-456 moved: due {rfc3339(DUE + 1)}, attempts left: 4"
    assert out[3].startswith("3 moved, 0 left in retry:schedule: of redis 127.0.0.1:")
    assert not theirs.exists(KEY)
    task = shown("webhook-123", capsys)
    assert {name: task[name] for name in ("source", "client_id", "base_delay", "state")} == {
        "source": "order-service", "client_id": "order-service", "base_delay": 10,
        "state": "scheduled",
    }  # fmt: skip
    assert task["is_priority"] is True
    assert task["destination"]["url"] == "https://api.partner.com/webhook?a=1&b=2"
    assert task["dead_destination"]["url"] == "https://api.partner.com/webhook-dlq"
    assert task["message_data"] == '{"event":"order.created","html":"<b>é"}'
    assert (task["failures"], task["max_retries"], task["delay"]) == (2, 6, None)
    assert abs(_seconds(task["next_attempt_at"]) - DUE) < 1
    assert shown("old-1", capsys)["destination"]["url"] == "kafka:///orders"
    assert shown("old-1", capsys)["dead_destination"] is None
    assert abs(_seconds(shown("old-1", capsys)["next_attempt_at"]) - time.time()) < 30


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_what_was_stored_but_not_yet_removed_is_only_removed_by_the_next_run(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    theirs.zadd(KEY, {HTTP: DUE})
    assert import_go(theirs) == 0
    assert run("cancel", "webhook-123", *TO) == 0  # whatever becomes of it
    before = shown("webhook-123", capsys)
    theirs.zadd(KEY, {HTTP: DUE, KAFKA: DUE})  # as if the first run had ended in between
    assert import_go(theirs) == 0
    assert "1 moved, 1 there already, 0 left" in capsys.readouterr().out
    assert not theirs.exists(KEY)
    assert shown("webhook-123", capsys) == before


def test_a_run_that_is_killed_and_repeated_moves_every_task_once(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    ids = [f"{n:0200}" for n in range(1000)]  # long ones: what is printed fills the pipe
    theirs.zadd(KEY, {changed(HTTP, id=id_): DUE + int(id_) for id_ in ids})
    command = ["import-go", "--from", theirs.url, *TO]  # type: ignore[attr-defined]
    with subprocess.Popen(
        [sys.executable, "-m", "rebound", *command], stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        for _ in range(150):
            first.stdout.readline()
        first.kill()
    assert 0 < theirs.zcard(KEY) < 1000
    assert import_go(theirs) == 0
    assert not theirs.exists(KEY)
    assert run("list", "--limit", "1000", "--json", *TO) == 0
    tasks = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"]
    due = {task["id"]: _seconds(task["next_attempt_at"]) for task in tasks}
    assert sorted(due) == ids
    assert all(abs(due[id_] - DUE - int(id_)) < 2 for id_ in ids)


def test_what_cannot_be_read_stays_and_is_named_without_its_content(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    odd = {
        b"secret, no JSON": 7.0,
        changed(HTTP, id="a b"): 8.0,
        changed(HTTP, id="queue", destination_type="sqs"): 9.0,
        changed(HTTP, id="more", headers={}): 10.0,
        changed(HTTP, id="late"): 1e300,
        changed(HTTP, id="order-1", message_data="other"): 12.0,
    }
    theirs.zadd(KEY, {**odd, changed(HTTP, id="order-1"): 11.0})
    assert import_go(theirs, "--dry-run") == 1
    looked = capsys.readouterr()
    assert import_go(theirs) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("order-1 moved: ")
    assert told.out.splitlines()[1].startswith("1 moved, 6 left in ")
    for line, start in zip(
        told.err.splitlines(),
        (
            "a member of 15 bytes with the score 7: is not JSON: ",
            "a b: id: ", "queue: destination_type: ", "more: headers: ",
            "order-1: task order-1 exists already with other content",
            "late: its score 1e+300 is no time",
        ),
        strict=True,
    ):  # fmt: skip
        assert line.startswith(f"rebound: left {start}")
    assert "secret" not in told.err
    assert dict(theirs.zrange(KEY, 0, -1, withscores=True)) == odd
    assert looked.out == told.out.replace(" moved", " would be moved")
    assert len(looked.err.splitlines()) == 6


def test_a_dry_run_leaves_everything_as_it_is(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    theirs.zadd(KEY, {HTTP: DUE, KAFKA: DUE + 1})
    assert import_go(theirs, "--dry-run") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"webhook-123 would be moved: due {rfc3339(DUE)}, attempts left: 4"
    assert out[2].startswith("2 would be moved, 0 left in ")
    assert theirs.zcard(KEY) == 2
    assert not (folder / "tasks.db").exists()


def test_by_default_it_goes_by_the_redis_settings_and_both_may_be_one_redis(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    theirs.zadd(KEY, {HTTP: DUE})
    monkeypatch.setenv("REDIS_ADDR", theirs.url.removeprefix("redis://"))  # type: ignore[attr-defined]
    assert run("import-go") == 0
    assert run("list") == 0
    assert "webhook-123  scheduled" in capsys.readouterr().out
    assert not theirs.exists(KEY)
    theirs.zadd(KEY, {KAFKA: DUE})
    assert run("import-go", *TO) == 0  # a store elsewhere leaves the source where it is
    to = shown("kafka-456", capsys)["destination"]
    assert (to["host"], to["port"], to["topic"]) == ("localhost", "9092", "orders")


def test_nothing_waiting_is_no_error_but_a_redis_that_is_not_there_is(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    assert import_go(theirs) == 0
    assert capsys.readouterr().out.startswith("0 moved, 0 left in retry:schedule: of redis ")
    theirs.set(KEY, "something else")
    assert import_go(theirs) == 1
    assert "WRONGTYPE" in capsys.readouterr().err
    assert run("import-go", "--from", f"redis://:hidden@127.0.0.1:{free_port()}", *TO) == 1
    assert run("import-go", "--from", "amqp://hidden", *TO) == 2
    err = capsys.readouterr().err
    assert "redis cannot be reached" in err
    assert "--from: must be redis://" in err
    assert "hidden" not in err


def test_a_cluster_of_the_original_is_read_too(
    folder: Path,  # noqa: F811
    redis_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    port = redis_cluster.masters[0].port
    with redis.RedisCluster(host="127.0.0.1", port=port) as theirs:
        theirs.zadd(KEY, {HTTP: DUE})
        monkeypatch.setenv("REDIS_MODE", "cluster")
        monkeypatch.setenv("REDIS_CLUSTER_ADDRS", f"127.0.0.1:{port}")
        assert run("import-go", *TO) == 0
        assert "webhook-123 moved" in capsys.readouterr().out
        assert not theirs.exists(KEY)


def test_what_somebody_else_takes_meanwhile_is_warned_of(
    folder: Path,  # noqa: F811
    theirs: redis.Redis,
    capsys: Printed,
) -> None:
    theirs.zadd(KEY, {HTTP: DUE})

    class Running(RedisOriginal):
        """A set that the original, still running, takes tasks out of as soon as we have looked."""

        async def page(self, start: int, count: int) -> Sequence[tuple[bytes, float]]:
            page = await super().page(start, count)
            theirs.delete(KEY)
            return page

    async def move() -> None:
        source = Config(store_url=theirs.url)  # type: ignore[attr-defined]
        running = Running(wiring.make_original(source)._server)
        async with Rebound(Config(store_url=TO[1]), worker=False) as rebound:
            await import_go_module._move(rebound.engine, running)
        await running.aclose()

    asyncio.run(move())
    told = capsys.readouterr()
    assert "webhook-123 moved" in told.out
    assert "1 of these had gone from retry:schedule: meanwhile" in told.err


def test_without_the_extra_it_says_which_one() -> None:
    source = (
        "import sys; sys.modules['redis'] = None; from rebound.cli.main import main;"
        "sys.exit(main(['import-go']))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"needs an extra: pip install 'rebound-retry[redis]'" in done.stderr


# -- what counts mean ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries", "failed"), [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1), (3, 3), (99, 99), (100, 100)]
)
async def test_a_task_gets_as_many_deliveries_as_it_had_left(
    rebound_kit: Kit, retries: int, failed: int
) -> None:
    to = "https://api.partner.com/webhook"
    rebound_kit.script(to, 500)
    member = changed(
        HTTP, max_retries=retries, attempt=failed, destination={"url": to}, dead_destination={}
    )
    await rebound_kit.rebound.create_task(original.task_of(member))
    await rebound_kit.fast_forward("60d")
    steps = rebound_kit.timeline("webhook-123")
    assert [step.what for step in steps] == [500] * (retries + 1 - failed) + ["exhausted"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_retries": 101}, "max_retries"), ({"max_retries": -1}, "max_retries"),
        ({"attempt": -1}, "attempt"), ({"base_delay": 0}, "base_delay"), ({"id": ""}, "id"),
        ({"destination": {}}, "destination"), ({"message_data": None}, "message_data"),
    ],
)  # fmt: skip
def test_what_the_original_would_not_have_written_is_refused(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        validation.check(original.task_of(changed(HTTP, **fields)), max_payload=1000)
    assert caught.value.field == field


def test_where_there_is_a_url_the_original_went_by_nothing_else() -> None:
    to = {"url": "https://a.example/x", "host": "kafka", "port": "9092", "topic": "t"}
    task = original.task_of(changed(HTTP, destination=to, destination_type="kafka"))
    assert task.destination == Destination(url="https://a.example/x")
    assert task.destination_type == "http"


def test_a_member_that_is_not_utf_8_is_not_json() -> None:
    with pytest.raises(InvalidBody):
        original.task_of(HTTP.replace(b"\xc3\xa9", b"\xff"))
