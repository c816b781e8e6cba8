"""What a user installs: built, checked, and put into empty environments, one for each extra."""

from __future__ import annotations

import asyncio
import email
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from rebound import __version__
from tests.conftest import NOT_RUN, RedisServer, free_port, may_mount, missing, need
from tests.e2e import image
from tests.e2e.conftest import Receiver
from tests.support import until

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
EXTRAS = {
    "bare": set[str](),
    "server": {"server"},
    "redis": {"redis"},
    "kafka": {"kafka"},
    "all": {"server", "redis", "kafka"},
}
"""What each extra brings; `bare` is none."""
TO_KAFKA = '{"source": "shop", "destination": {"url": "kafka://localhost:9092/orders"}}'
EMBEDDED = """
import asyncio, sys
from rebound import Config, Destination, Rebound, State, Task

async def main():
    order = Task(id="order", source="shop", delay=0, destination=Destination(url=sys.argv[1]))
    async with Rebound(Config(store_url="sqlite:///embedded.db")) as rebound:
        await rebound.create_task(order)
        while (await rebound.get_task("order")).state != State.SUCCEEDED:
            await asyncio.sleep(0.01)

asyncio.run(main())
import rebound.client, rebound.testing
from rebound import RetryingConsumer, SyncRebound
assert not {"redis", "uvicorn", "pytest"} & set(sys.modules)
"""


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    errors: str


class Installed:
    """An environment with nothing but the wheel, and what an extra of it asks for."""

    def __init__(self, folder: Path, extra: str) -> None:
        self.folder = folder
        self.brings = EXTRAS[extra]
        self.bin = folder / "env" / "bin"

    async def run(self, program: str, *arguments: str) -> Ran:
        process = await self.start(program, *arguments)
        out, errors = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), errors.decode())

    async def start(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self.bin / program, *arguments, cwd=self.folder, env={"PATH": os.defpath},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @asynccontextmanager
    async def serving(self, *arguments: str) -> AsyncIterator[str]:
        """`rebound serve` on a free port, from its first line to SIGTERM and 0: its URL."""
        process = await self.start("rebound", "serve", "--http-port", "0", *arguments)
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode().split()
        yield first[-1]
        process.terminate()
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with sdist and wheel; the wheel is made from the sdist, as users' are."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def wheelhouse(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of everything that any extra asks for, and of what builds the package."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    (wheel,) = dist.glob("*.whl")
    wanted = [f"{wheel}[all]", "hatchling"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*PIP, "download", "--dest", str(folder), *constraints, *wanted], check=True)
    return folder


@pytest.fixture(params=EXTRAS)
def installed(request: pytest.FixtureRequest, wheelhouse: Path, tmp_path: Path) -> Installed:
    one = Installed(tmp_path, request.param)
    wanted = "rebound-retry" if request.param == "bare" else f"rebound-retry[{request.param}]"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", one.bin.parent], check=True)
    into = [*PIP, "--python", str(one.bin / "python"), "--isolated", "install", "--no-compile"]
    subprocess.run(
        [*into, "--no-index", "--find-links", str(wheelhouse), wanted], check=True, cwd=tmp_path
    )
    return one


# -- sdist and wheel -------------------------------------------------------------------------


def test_twine_has_nothing_to_say_about_sdist_and_wheel(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))
    assert len(files) == 2
    twine = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    checked = subprocess.run(twine, check=False, capture_output=True, text=True)
    assert checked.stdout.count("PASSED") == 2, checked.stdout
    assert checked.returncode == 0


def test_the_wheel_has_the_package_whole_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = (ROOT / "src").rglob("*")
    source = {f.relative_to(ROOT / "src").as_posix() for f in package if f.is_file()}
    assert names == {f for f in source if "__pycache__" not in f and ".egg-info" not in f}
    assert "rebound/py.typed" in names


def test_the_sdist_has_the_source_and_what_builds_it(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        inside = {name.partition("/")[2].split("/")[0] for name in sdist.getnames()}
    files = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert inside == {"src", *files}


def test_the_metadata_say_what_it_is_and_name_every_extra(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        said = email.message_from_bytes(wheel.read(name))
    assert (said["Name"], said["Version"]) == ("rebound-retry", __version__)
    assert (said["Requires-Python"], said["License-Expression"]) == (">=3.11", "MIT")
    assert all(said[field] for field in ("Summary", "Author", "Keywords", "License-File"))
    assert said["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert {"bare", *said.get_all("Provides-Extra", [])} == EXTRAS.keys()


# -- installed -------------------------------------------------------------------------------


async def test_installed_from_the_wheel_it_delivers_and_names_the_extras_that_are_missing(
    installed: Installed, receiver: Receiver, redis_server: RedisServer
) -> None:
    version = await installed.run("rebound", "--version")
    assert version == (0, f"rebound {__version__}\n", "")
    assert (await installed.run("rebound", "--help")).code == 0
    embedded = await installed.run("python", "-c", EMBEDDED, receiver.url("/hook"))
    assert embedded == (0, "", "")
    assert [got.id for got in receiver.got] == ["order"]
    (installed.folder / "task.json").write_text(TO_KAFKA)
    if "server" in installed.brings:
        await serves(installed, "--store-url", "sqlite:///service.db")
    if {"server", "redis"} <= installed.brings:
        await serves(installed, "--store-url", redis_server.url, "--namespace", "packaging")
    for extra, command in {
        "server": ["serve", "--help" if "server" in installed.brings else "--http-port=0"],
        "redis": ["list", "--store-url", redis_server.url],
        "kafka": ["submit", "task.json", "--store-url", "sqlite:///kafka.db"],
    }.items():
        ran = await installed.run("rebound", *command)
        if extra in installed.brings:
            assert (ran.code, ran.errors) == (0, ""), command
        else:
            assert ran.code == 2, (command, ran)
            assert ran.errors.count("\n") == 1
            assert f"needs an extra: pip install 'rebound-retry[{extra}]'\n" in ran.errors


async def serves(installed: Installed, *arguments: str) -> None:
    async with installed.serving(*arguments) as url, aiohttp.ClientSession() as session:
        for path in ("/livez", "/docs", "/openapi.json"):
            async with session.get(f"{url}{path}") as answer:
                assert answer.status == 200, path


# -- the image -------------------------------------------------------------------------------


async def test_the_steps_of_the_dockerfile_make_a_service_without_rights_on_a_read_only_root(
    wheelhouse: Path,
    tmp_path: Path,
    receiver: Receiver,
    record_property: Callable[[str, object], None],
) -> None:
    if os.geteuid() != 0:
        missing("root on Linux")
    if not may_mount():  # a sandbox within a container
        record_property(NOT_RUN, "the steps of the Dockerfile: mounting is not allowed here")
        return
    steps = list(image.steps(ROOT / "Dockerfile"))
    handed, layers, data = (tmp_path / name for name in ("context", "layers", "data"))
    for folder in (handed, layers):
        folder.mkdir()
    port = free_port()
    variables = {**image.environment(steps), "HTTP_PORT": str(port)}
    script = image.script(steps, image.context(ROOT, handed), layers, wheelhouse, data, variables)
    container = await asyncio.create_subprocess_exec(
        need("unshare"), "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert container.stdout is not None
    first = (await container.stdout.readline()).decode()
    assert first == f"rebound {__version__} · sqlite rebound.db · http://0.0.0.0:{port}\n"
    pid = int(Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text())
    assert "Uid:\t10001\t10001\t10001\t10001\n" in Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^NSpid:.*\t1$", Path(f"/proc/{pid}/status").read_text(), re.M)
    with pytest.raises(OSError, match="Read-only file system"):
        Path("/proc", str(pid), "root", "opt/rebound/own").touch()

    async def run(*command: str) -> int:
        within = image.inside(f"/proc/{pid}/root", "10001", "/data", variables)
        process = await asyncio.create_subprocess_exec(*within, *command)
        return await process.wait()

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        task = {"id": "t", "source": "image", "delay": 0, "destination": {"url": receiver.url("/")}}
        async with asyncio.timeout(10):
            while (await session.get("/readyz")).status != 200:
                await asyncio.sleep(0.02)
        async with session.post("/tasks", json=task) as answer:
            assert answer.status == 201
        await until(lambda: receiver.of("t"))
    assert await run(*image.last(steps, "HEALTHCHECK").words) == 0
    os.kill(pid, signal.Signals[image.last(steps, "STOPSIGNAL").text])
    assert await container.wait() == 0
    assert (data / "rebound.db").stat().st_uid == 10001
