"""The examples run as they stand, and print what their page shows."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.services.kafka import KafkaBroker
from tests.test_docs import BIN, ROOT, RUN, Block, blocks, run

FOLDER = ROOT / "examples"
PAGE = FOLDER / "EXAMPLES.md"
KAFKA = "07-kafka-consumer"


def name_of(block: Block) -> str:
    (name,) = re.findall(r"examples/([\w-]+)/main\.py", block.text)
    return str(name)


SHOWN = {name_of(block): block for block in blocks(PAGE)}
"""The command of each example, with the output that the page shows."""
ALONE = sorted({*SHOWN} - {KAFKA})


async def printed_by(name: str, folder: Path, **variables: str) -> str:
    """What the page's command for an example prints, run as from the root of a clone."""
    return await run(*RUN["sh"], SHOWN[name].text, folder=folder, **variables)


def without_times(text: str | None) -> str:
    return re.sub(r" *\d+\.\d+ s", " … s", text or "")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").symlink_to(BIN.parent)  # all of it: python looks for its pyvenv.cfg
    (folder / "examples").symlink_to(FOLDER)
    return folder


@pytest.fixture(scope="module")
def printed(clone: Path) -> dict[str, str]:
    """What each example prints. They mostly wait, so they run side by side."""

    async def all_() -> list[str]:
        return await asyncio.gather(*(printed_by(name, clone) for name in ALONE))

    return dict(zip(ALONE, asyncio.run(all_()), strict=True))


def test_every_example_is_one_file_with_a_command_and_its_output_in_the_page() -> None:
    assert sorted(SHOWN) == sorted(file.parent.name for file in FOLDER.glob("*/main.py"))
    assert all(block.output and not block.reason for block in SHOWN.values())
    assert [file.name for file in FOLDER.glob("0*/*.*")] == ["main.py"] * len(SHOWN)


@pytest.mark.parametrize("name", ALONE)
def test_an_example_prints_what_its_page_shows(name: str, printed: dict[str, str]) -> None:
    assert without_times(printed[name]) == without_times(SHOWN[name].output)


def test_a_tenants_backlog_and_silence_delay_nobody_else(printed: dict[str, str]) -> None:
    rows = re.findall(r"^(\w[\w, ]*?) {2,}.* ([\d.]+) s$", printed["06-multi-tenant"], re.M)
    last = {tenant: float(seconds) for tenant, seconds in rows}
    assert {*last} == {"globex", "globex, urgent", "acme", "umbrella"}
    assert max(last.pop("acme"), last.pop("umbrella")) < last["globex"] / 2
    assert last["globex, urgent"] < last["globex"] / 2


async def test_the_kafka_example_prints_what_its_page_shows(
    clone: Path, kafka_broker: KafkaBroker
) -> None:
    shown = await printed_by(KAFKA, clone, KAFKA_BROKERS=kafka_broker.bootstrap)
    assert without_times(shown) == without_times(SHOWN[KAFKA].output)


def test_an_example_that_lacks_a_package_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "aiosmtpd.py").write_text("raise ModuleNotFoundError")
    done = subprocess.run(
        [BIN / "python", FOLDER / "02-email-service" / "main.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1, "This example plays a mail server: pip install aiosmtpd\n"
    )  # fmt: skip
