"""The words of the house: examples run as they stand, links lead somewhere, tables are true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import aiohttp
import pytest
import redis
import yaml

from rebound import Config
from rebound.adapters.api.view import Code
from rebound.adapters.stores.redis import RedisStore
from rebound.adapters.stores.redis_original import KEY as ORIGINALS_KEY
from rebound.domain import original, validation
from rebound.domain.errors import ValidationError
from rebound.settings import SETTINGS
from rebound.settings.access import require_keys
from rebound.settings.table import default_in_words
from tests import topics
from tests.conftest import NOT_RUN, RedisServer, free_port
from tests.contract.test_import_go import HTTP as WAITING
from tests.e2e.conftest import Receiver, Service
from tests.services.kafka import KafkaBroker

KAFKA = "localhost:9092"
REDIS = "localhost:6379"
AXIOS = "axios@1"
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES_PAGE = ROOT / "examples" / "EXAMPLES.md"
"""Its examples are run by test_examples.py."""
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), EXAMPLES_PAGE])
BIN = Path(sys.executable).parent
RUN = {
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "js": ["node", "--input-type=module", "-e"],
}
"""How a block of each language is run. Those of JSON are read; the others are shown only."""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto"]
"""How those of a page that consist of tests are run, together."""
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.S | re.M,
)


_FILE = re.compile(r"# ([\w/]+\.py)\n")
"""The first line of a block that is not run but put into this file, at its end."""


class Block(NamedTuple):
    """An example in a page, and what the page says that it prints."""

    where: str
    language: str
    text: str
    output: str | None
    reason: str | None
    """Why it is not run."""


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        where = f"{name_of(page)}:{text.count(chr(10), 0, found.start('text'))}"
        if found["language"] in {*RUN, "json"}:
            yield Block(where, found["language"], *found.group("text", "output", "reason"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


EXAMPLES = [block for page in PAGES for block in blocks(page)]


# -- examples --------------------------------------------------------------------------------


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[int]:
    """`rebound serve` on a free port: the port."""
    service = Service({"STORE_URL": f"sqlite:///{folder}/service.db"}, folder)
    try:
        await service.serve()
        yield int(service.url.rpartition(":")[2])
    finally:
        await service.close()


async def run(*command: str, folder: Path, measured: bool = True, **variables: str) -> str:
    """What a command prints; it must succeed. With `measured`, `make cover` looks at it too."""
    without = ("REBOUND_",) if measured else ("REBOUND_", "COVERAGE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(without)}
    environment |= {"NO_PROXY": "localhost", "no_proxy": "localhost", **variables}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, f"{command}\n{out.decode()}\n{errors.decode()}"
    return out.decode()


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> KafkaBroker | None:
    """The broker of pages with Kafka, or None where there is no Java."""
    try:
        broker: KafkaBroker = request.getfixturevalue("kafka_broker")
    except pytest.skip.Exception:
        return None
    return broker


def with_kafka(text: str, broker: KafkaBroker) -> str:
    """The example for this broker, which has the topics that it names."""
    known = broker.admin.list_topics(timeout=10).topics
    named = re.findall(rf"{KAFKA}/([\w.-]+)", text) + re.findall(r'topics?=\[?"([\w.-]+)"', text)
    for topic in {*named} - {*known}:
        broker.create_topic(topic)
    return text.replace(KAFKA, broker.bootstrap)


@pytest.fixture
def originals_redis(own_redis: Callable[..., RedisServer]) -> RedisServer:
    """The Redis of pages with one, in which the Go original has left a task."""
    server = own_redis()
    with redis.Redis(port=server.port) as client:
        client.zadd(ORIGINALS_KEY, {WAITING: datetime(2030, 1, 1, tzinfo=UTC).timestamp()})
    return server


async def play(
    page: Path, folder: Path, kafka: KafkaBroker | None, *awaited: str, redis_port: int = 6379
) -> tuple[str, Receiver]:
    """Run the examples of a page from top to bottom: what they print, and what was delivered.

    Only the addresses are replaced, by those of a real service, receiver, Redis and Kafka. In the
    end the topics `awaited` have a record each.
    """
    at_redis = f"localhost:{redis_port}"
    (folder / ".venv").symlink_to(BIN.parent)  # all of it: python looks for its pyvenv.cfg
    receiver, printed = Receiver(free_port()), ""
    await receiver.start()
    try:
        async with serving(folder) as port:
            for block in blocks(page):
                text = block.text
                if block.reason is not None or (KAFKA in text and kafka is None):
                    continue
                if block.language == "js" and not await asyncio.to_thread(axios_in, folder):
                    continue
                if block.language == "json":
                    read(text, block.where)
                    continue
                if KAFKA in text and kafka is not None:
                    text = await asyncio.to_thread(with_kafka, text, kafka)
                text = text.replace("localhost:8080", f"localhost:{port}")
                text = text.replace("localhost:9000", f"localhost:{receiver.port}")
                text = text.replace(REDIS, at_redis)
                if named := _FILE.match(text):
                    (folder / named[1]).parent.mkdir(exist_ok=True)
                    with (folder / named[1]).open("a") as file:
                        file.write(text)
                    continue
                if "\nasync def test_" in text:
                    (folder / f"test_{block.where.rpartition(':')[2]}.py").write_text(text)
                    continue
                out = await run(*RUN[block.language], text, folder=folder)
                if block.output is not None:
                    assert out == block.output.replace(REDIS, at_redis), block.where
                assert not [answer for answer in objects_in(out) if "code" in answer], block.where
                printed += out
            if list(folder.glob("test_*.py")):
                await run(*PYTEST, folder=folder)
            for topic in awaited if kafka is not None else ():
                await asyncio.to_thread(topics.read, kafka.bootstrap, topic, 1)
    finally:
        await receiver.stop()
    return printed, receiver


def axios_in(folder: Path) -> bool:
    """Install axios; False where there is no Node, or no registry to have it from."""
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", AXIOS]
    return (
        shutil.which("npm") is not None
        and subprocess.run(command, cwd=folder, check=False).returncode == 0
    )


def read(text: str, where: str) -> None:
    """A block of JSON is JSON; one that has a destination, and is no answer, is a valid task."""
    shown = json.loads(text)
    if "destination" in shown and "state" not in shown:
        try:
            validation.check(validation.parse(text.encode()), max_payload=2**20)
        except ValidationError as error:
            raise AssertionError(where) from error


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in what curl printed, one behind the other."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
            yield found
        except ValueError:
            end = at + 1
        at = text.find("{", end)


async def test_the_examples_of_the_readme_run_as_they_stand(
    tmp_path: Path, kafka: KafkaBroker | None, record_property: Callable[[str, object], None]
) -> None:
    printed, receiver = await play(README, tmp_path, kafka, "orders")
    assert "order-123 succeeded succeeded\n" in printed
    answers = list(objects_in(printed))
    assert answers[0]["message"] == "Task order-123 scheduled successfully"
    assert answers[0]["created"] is True
    shown = [a["state"] for a in answers if a.get("id") == "order-123" and "leg" in a]
    assert shown == ["scheduled", "cancelled", "scheduled"]
    assert {"status": "alive"} in answers
    assert {"status": "ready"} in answers
    assert receiver.counts("/webhook")["order-123"] == 2  # the program's and the service's
    assert receiver.counts("/webhook")["order-124"] == 1  # by requests
    if (tmp_path / "node_modules" / "axios").exists():
        assert receiver.counts("/webhook")["order-125"] == 1
    else:
        record_property(NOT_RUN, "README.md: axios could not be installed")
    if kafka is not None:
        (record,) = await asyncio.to_thread(topics.read, kafka.bootstrap, "orders", 1)
        assert (record.key, record.value) == (b"customer-1", b'{"order_id": 123}')


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p not in (README, EXAMPLES_PAGE) and any(blocks(p))],
    ids=name_of,
)
async def test_the_examples_of_a_page_run_as_they_stand(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = page.read_text()
    broker = request.getfixturevalue("kafka") if KAFKA in text else None
    with_redis = any(REDIS in block.text for block in blocks(page))
    port = request.getfixturevalue("originals_redis").port if with_redis else 6379
    await play(page, tmp_path, broker, redis_port=port)


def test_these_examples_are_not_run_and_they_are_at_most_one_in_ten(
    record_property: Callable[[str, object], None],
) -> None:
    left_out = [
        f"{block.where.partition(':')[0]}: {block.reason}" for block in EXAMPLES if block.reason
    ]
    for line in left_out:
        record_property(NOT_RUN, f"{line} (of {len(EXAMPLES)} in all)")
    assert left_out == [
        "README.md: the demo stays up, and the tests would run themselves",
        "docs/deployment.md: there is no Docker where the tests run; a test takes the steps of the"
        " Dockerfile without it",
        "docs/deployment.md: there is no cluster where the tests run; they check manifests against"
        " Kubernetes' schemas",
    ]
    assert 10 * len(left_out) <= len(EXAMPLES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_example_hides_in_a_list_or_behind_another_name_of_its_language(page: Path) -> None:
    fences = re.findall(r"^([ >]*)```(\w*)", page.read_text(), re.M)
    others = {"bash", "shell", "console", "py", "pycon", "python3", "jsonc", "jsonl"}
    assert not [(indent, language) for indent, language in fences if indent or language in others]


def test_the_two_commands_of_the_readme_exist() -> None:
    (first, *_) = blocks(README)
    targets = re.findall(r"^make (\w+)", first.text, re.M)
    assert targets == ["run", "test"]
    rules = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", rules, re.M) for target in targets)


async def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```text\n( +0\.1. s .*?)^```$", README.read_text(), re.S | re.M)
    process = await asyncio.create_subprocess_exec(
        BIN / "rebound", "demo", "--http-port", "0", cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    printed = await process.stdout.readuntil(b"Your turn")
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0

    def lines(text: str) -> set[str]:
        return {re.sub(r":\d+/", ":…/", line.strip()[10:]) for line in text.splitlines()}

    assert lines(shown) <= lines(printed.decode())


async def test_the_receiver_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing-your-app.md").read_text()
    (shown,) = re.findall(r"^```text\n(\d\d:.*?)^```$", page, re.S | re.M)
    (script,) = re.findall(r"`rebound receiver --script (\S+)`", page)
    process = await asyncio.create_subprocess_exec(
        BIN / "rebound", "receiver", "--script", script, "--port", "0", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split(" · ")[2]
    async with aiohttp.ClientSession() as session:
        for number in ("1", "2", "3"):
            headers = {"X-Message-Key": "order-1", "X-Rebound-Attempt": number}
            await session.post(f"{url}/webhook", headers=headers)
    process.send_signal(signal.SIGINT)
    printed = (await process.stdout.read()).decode()
    assert await process.wait() == 0
    assert [line[12:] for line in printed.splitlines()] == [
        line[12:] for line in shown.splitlines()
    ]


# -- what pages say --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_something(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_tests_that_are_named_exist() -> None:
    code = "".join(file.read_text() for file in ROOT.glob("tests/**/*.py"))
    known = set(re.findall(r"def (test_\w+)", code))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    assert named <= known, named - known


def test_the_readme_has_fewer_than_250_lines() -> None:
    assert len(README.read_text().splitlines()) < 250


def test_the_settings_of_the_readme_have_these_defaults() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", README.read_text(), re.M)
    assert len(rows) == 9
    assert {name.lower() for name, _ in rows} <= SETTINGS.keys()
    told = Config(**{name.lower(): default for name, default in rows})
    for name, _ in rows:
        attribute = "resolved_store_url" if name == "STORE_URL" else name.lower()
        assert getattr(told, attribute) == getattr(Config(), attribute), name


def test_what_the_page_on_operations_quotes_is_said_somewhere() -> None:
    page = ROOT / "docs" / "operations.md"
    code = "".join(file.read_text() for file in ROOT.glob("src/rebound/**/*.py"))
    rows = rows_of(page, "The store") + rows_of(page, "Dead letters pile up")
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row[0])]
    assert len(quoted) == len(rows)
    for text in quoted:
        for part in text.split(" … "):
            assert part in code, text
    said = {
        tuple(re.findall(r"(\d+) `([A-Z_]+)`", row[0])) for row in rows_of(page, "The API says no")
    }
    assert {code for ((_, code),) in said} <= set(get_args(Code))


# -- what is said of the original ------------------------------------------------------------


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The rows of the table below a heading of a page, without its head."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(), re.S | re.M)
    rows = re.findall(r"^\| (.*) \|$", section, re.M)
    return [re.split(r" \| ", row) for row in rows[1:]]


MIGRATION = ROOT / "docs" / "migration.md"


def test_every_field_of_the_original_is_in_the_page_and_has_the_default_it_says() -> None:
    rows = rows_of(MIGRATION, "Field by field")
    to = [f"destination.{name}" for name in original.To.__struct_fields__]
    assert {row[0].strip("`") for row in rows} == {*original.Waiting.__struct_fields__, *to}
    accepted = validation.parse(b'{"source": "s", "destination": {"url": "http://a.example"}}')
    said = {row[0].strip("`"): re.search(r"left out, it is (\d+)$", row[2]) for row in rows}
    defaults = {name: int(found[1]) for name, found in said.items() if found}
    assert defaults == {"max_retries": accepted.max_retries, "base_delay": accepted.base_delay}


def test_the_settings_of_the_original_exist_and_have_the_defaults_that_the_page_says() -> None:
    for names, theirs, ours in rows_of(MIGRATION, "Setting by setting"):
        for name in re.findall(r"`([A-Z_]+)`", names):
            setting = SETTINGS[name.lower()]
            if default := re.match(r"`([^`]+)`", ours):
                assert default_in_words(setting) == default[1], name
            elif ours.startswith("the same") and theirs.count("`") == 2 == names.count("`"):
                told = theirs.split("`")[1]
                assert default_in_words(setting) == told, name


def test_the_environment_of_the_original_stops_the_start_as_the_page_says() -> None:
    with pytest.raises(ValidationError, match=r"^ENVIRONMENT: is 'local', must be one of dev"):
        Config.for_service({"ENVIRONMENT": "local"})


def test_an_address_without_a_host_is_this_host_only() -> None:
    assert Config.for_service({"HTTP_ADDR": ":8080"}).address == ("127.0.0.1", 8080)
    assert Config.for_service({"HTTP_ADDR": "0.0.0.0:8080"}).address == ("0.0.0.0", 8080)


def test_the_codes_of_the_right_column_exist() -> None:
    ours = " ".join(row[2] for row in rows_of(MIGRATION, "Answers"))
    assert set(re.findall(r"[A-Z]+_[A-Z]+", ours)) <= set(get_args(Code))


# -- the image -------------------------------------------------------------------------------


def exec_form(instruction: str) -> list[str]:
    """The arguments of an instruction in the Dockerfile."""
    (found,) = re.findall(rf"^{instruction} .*?(\[.*\])$", (ROOT / "Dockerfile").read_text(), re.M)
    return [str(part) for part in json.loads(found)]


async def test_the_images_health_check_asks_the_service(tmp_path: Path) -> None:
    program, *arguments = exec_form("HEALTHCHECK")
    assert program == "python"
    async with serving(tmp_path) as port:
        await run(sys.executable, *arguments, folder=tmp_path, HTTP_PORT=str(port))
    with pytest.raises(AssertionError, match="refused"):
        await run(sys.executable, *arguments, folder=tmp_path, HTTP_PORT=str(port))


async def test_the_image_starts_a_command_that_exists(tmp_path: Path) -> None:
    program, *arguments = exec_form("ENTRYPOINT") + exec_form("CMD")
    assert "usage: rebound serve" in await run(
        str(BIN / program), *arguments, "--help", folder=tmp_path
    )


def test_the_compose_file_starts_without_keys_and_only_this_host_reaches_it() -> None:
    assert "HTTP_HOST=0.0.0.0" in (ROOT / "Dockerfile").read_text()
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    require_keys(Config.for_service({"HTTP_HOST": "0.0.0.0", **services["rebound"]["environment"]}))
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


async def test_the_redis_of_the_compose_file_keeps_what_it_acknowledges(tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    _, *options = services["redis"]["command"]
    server = RedisServer(tmp_path, *options)
    store = RedisStore(server.url)
    try:
        assert list(await store.open()) == []
    finally:
        await store.aclose()
        server.stop()


# -- the figure of `make cover` --------------------------------------------------------------


async def test_the_coverage_is_written_into_the_page(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("import sys\nif len(sys.argv) > 1:\n    print(1)\n")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- coverage -->\nold\n<!-- /coverage -->\nafter\n")
    coverage = [sys.executable, "-m", "coverage"]
    await run(*coverage, "run", "--branch", "half.py", folder=tmp_path, measured=False)
    await run(*coverage, "json", "-o", "report.json", folder=tmp_path, measured=False)
    script = [sys.executable, str(ROOT / "docs" / "coverage.py")]
    await run(*script, "report.json", str(page), folder=tmp_path)
    day = json.loads((tmp_path / "report.json").read_text())["meta"]["timestamp"][:10]
    figure = f"**60.0 %** on {day}: 2 of 3 lines and 1 of 2 branches."
    assert page.read_text() == f"before\n<!-- coverage -->\n{figure}\n<!-- /coverage -->\nafter\n"


async def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("words")
    totals = {"percent_covered": 99.99, "covered_lines": 1, "num_statements": 1}
    report = {"meta": {"timestamp": "2026-01-02T03:04:05"}, "totals": totals}
    (tmp_path / "report.json").write_text(json.dumps(report))
    script = [sys.executable, str(ROOT / "docs" / "coverage.py")]
    with pytest.raises(AssertionError, match="the page has no <!-- coverage -->"):
        await run(*script, "report.json", "page.md", folder=tmp_path)
    assert (tmp_path / "page.md").read_text() == "words"
