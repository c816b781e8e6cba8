"""Real programs that embed Rebound: FastAPI under uvicorn; Django, its worker and gunicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import free_port
from tests.e2e.conftest import Receiver
from tests.support import until

FASTAPI = """
import os
from typing import Annotated
from fastapi import Depends, FastAPI
from rebound import Config, Destination, Rebound, Task
from rebound.frameworks.starlette import get_rebound, lifespan

app = FastAPI(lifespan=lifespan(Config(store_url="sqlite:///shop.db")))
HOOK = Destination(url=os.environ["HOOK"])

@app.post("/orders/{number}", status_code=202)
async def place(number: int, rebound: Annotated[Rebound, Depends(get_rebound)]) -> str:
    task = Task(source="shop", delay=0, destination=HOOK, message_data={"order": number})
    return (await rebound.create_task(task)).id
"""
SETTINGS = """
import os
from pathlib import Path
BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "x"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.views"
INSTALLED_APPS = ["shop", "rebound.frameworks.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.db"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
REBOUND = {"store_url": f"sqlite:///{BASE_DIR}/rebound.db", "shutdown_grace": 5}
if "REBOUND" in os.environ:
    REBOUND = eval(os.environ["REBOUND"])
if "LOGGING" in os.environ:
    LOGGING = eval(os.environ["LOGGING"])
"""
MODELS = """
from django.db import models

class Order(models.Model):
    number = models.IntegerField()
    mailed = models.BooleanField(default=False)
"""
VIEWS = """
import os
from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpResponse
from django.urls import path
from rebound import Destination, Task
from rebound.frameworks.django import create_task_on_commit, get_rebound
from shop.models import Order

def place(request, number, url="call://mail"):
    with transaction.atomic():
        order = Order.objects.create(number=number)
        to = Destination(url=request.GET.get("to", url))
        task = Task(source="shop", delay=0, destination=to, message_data={"order": number})
        id_ = create_task_on_commit(task)
        assert get_rebound().get_task(id_) is None
        if number < 0:
            raise ValueError("no such order")
    return HttpResponse(f"{id_} {os.getpid()}")

async def later(request):
    task = Task(source="shop", delay=60, destination=Destination(url="call://mail"))
    return HttpResponse(await sync_to_async(create_task_on_commit)(task))

urlpatterns = [
    path("orders/<str:number>", lambda request, number: place(request, int(number))),
    path("later", later),
]
"""
HANDLERS = """
import threading
from django.db import connection
from rebound.frameworks.django import handler
from shop.models import Order

def mailed(number):
    assert connection.connection is None, "a connection of the attempt before"
    assert Order.objects.filter(number=number).update(mailed=True)

@handler("mail")
def mail(task):
    assert threading.current_thread() is not threading.main_thread()
    mailed(task.message_data["order"])

@handler("amail")
async def amail(task):
    order = await Order.objects.aget(number=task.message_data["order"])
    order.mailed = True
    await order.asave()
"""
MIGRATE = """
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
"""
TESTS = """
from django.test import TestCase
from rebound.frameworks.django import get_rebound

class OrderTest(TestCase):
    def test_an_order_is_mailed(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.get("/orders/5")
        (task,) = get_rebound().find().tasks
        assert task.message_data == {"order": 5}
"""
ASK = """
from django.test import Client
from shop.models import Order
client = Client(raise_request_exception=False)
for path in {paths}:
    answer = client.get(path)
    print(answer.status_code, answer.content.decode().split("\\n")[0])
from rebound.frameworks.django import get_rebound
print(Order.objects.count(), len(get_rebound().find().tasks))
"""


class Program:
    """A Python process in the folder of a project; what it prints goes to a file there."""

    def __init__(self, folder: Path, *command: str, **variables: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REBOUND")}
        environment |= {"DJANGO_SETTINGS_MODULE": "shop.settings", **variables}
        descriptor, name = tempfile.mkstemp(".log", dir=folder)
        self._log = Path(name)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=descriptor,
            stderr=descriptor,
        )
        os.close(descriptor)

    def printed(self) -> str:
        return self._log.read_text()

    async def ended(self, number: int | None = None) -> int:
        """Its exit code, after a signal if there is a `number`."""
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 40)


@asynccontextmanager
async def serving(
    folder: Path, *command: str, **variables: str
) -> AsyncIterator[Callable[..., Any]]:
    """A web server on a free port: a function that asks it, until it answers."""
    port = free_port()
    server = Program(folder, *command, f"127.0.0.1:{port}", **variables)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as web:

        async def ask(method: str, path: str) -> str:
            async with asyncio.timeout(20):
                while server.process.poll() is None:
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        url = f"http://127.0.0.1:{port}{path}"
                        async with web.request(method, url) as answer:
                            text = await answer.text()
                            assert answer.status < 300, text
                            return text
                    await asyncio.sleep(0.02)
            raise AssertionError(server.printed())

        try:
            yield ask
        finally:
            await server.ended(signal.SIGTERM)
            assert "Traceback" not in server.printed(), server.printed()


# -- FastAPI ---------------------------------------------------------------------------------


@pytest.fixture
def fastapi(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(FASTAPI)
    return tmp_path


async def test_a_fastapi_program_under_uvicorn_delivers(fastapi: Path, receiver: Receiver) -> None:
    command = ("-c", "import sys, uvicorn; h, p = sys.argv[1].split(':');"
               "uvicorn.run('shop:app', host=h, port=int(p))")  # fmt: skip
    async with serving(fastapi, *command, HOOK=receiver.url("/hook")) as ask:
        id_ = (await ask("POST", "/orders/7")).strip('"')
        await until(lambda: receiver.of(id_))
    assert receiver.of(id_)[0].body == b'{"order":7}'


async def test_a_fastapi_program_whose_store_cannot_be_used_does_not_start(fastapi: Path) -> None:
    (fastapi / "shop.db").write_bytes(b"this is no database" * 100)
    program = Program(fastapi, "-m", "uvicorn", "shop:app", "--port", "0", HOOK="http://x")
    assert await program.ended() == 3
    assert "StoreUnusable: shop.db is not an SQLite database" in program.printed()
    assert "Application startup failed" in program.printed()


# -- Django ----------------------------------------------------------------------------------


@pytest.fixture
def django(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    files = {
        "__init__": "", "settings": SETTINGS, "models": MODELS, "views": VIEWS, "tests": TESTS,
        "rebound_handlers": HANDLERS,
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return tmp_path


async def test_what_commits_is_submitted_and_what_rolls_back_is_not(django: Path) -> None:
    paths = [
        "/orders/1",
        "/orders/-2",
        "/orders/3?to=ftp://x",
        "/orders/4?to=call://amail",
        "/later",
    ]
    shell = Program(django, "-m", "django", "shell", "-c", MIGRATE + ASK.format(paths=paths))
    assert await shell.ended() == 0, shell.printed()
    *answers, counts = shell.printed().strip().splitlines()[-6:]
    assert [answer[:3] for answer in answers] == ["200", "500", "500", "200", "200"]
    assert counts == "2 3"  # what is wrong with a task rolls back, too

    worker = Program(django, "-m", "django", "rebound_worker")
    look = "SELECT count(*) FROM shop_order WHERE mailed"
    with contextlib.closing(sqlite3.connect(django / "shop.db")) as database:
        await until(lambda: database.execute(look).fetchone() == (2,))
    assert await worker.ended(signal.SIGTERM) == 0, worker.printed()
    assert "worker without API" in worker.printed()
    assert worker.printed().count("task delivered") == 2


async def test_under_a_preforking_server_each_process_submits(
    django: Path, receiver: Receiver
) -> None:
    application = (
        "from django.core.wsgi import get_wsgi_application\n"
        f"application = get_wsgi_application()\n{MIGRATE}"
        "from rebound.frameworks.django import get_rebound\n"
        "get_rebound().find()\n"  # started before the fork
    )
    (django / "shop" / "wsgi.py").write_text(application)
    command = "-m gunicorn --preload --workers 2 --no-control-socket --log-level error shop.wsgi -b"
    worker = Program(django, "-m", "django", "rebound_worker", LOGGING="{'version': 1}")
    async with serving(django, *command.split()) as ask:
        made: dict[str, str] = {}
        async with asyncio.timeout(20):
            while len(set(made.values())) < 2 or len(made) < 10:
                path = f"/orders/{len(made)}?to={receiver.url('/hook')}"
                id_, process = (await ask("GET", path)).split()
                made[id_] = process
        await until(lambda: {got.id for got in receiver.got} >= made.keys())
    assert await worker.ended(signal.SIGINT) == 0, worker.printed()
    assert "task delivered" not in worker.printed()  # the project's own LOGGING decides


async def test_the_system_checks_say_what_is_wrong_with_the_settings(django: Path) -> None:
    wrong = "{'lease': 'soon'}"
    worker = Program(django, "-m", "django", "rebound_worker", REBOUND=wrong)
    check = Program(django, "-m", "django", "check", REBOUND="{}")
    use = "from rebound.frameworks.django import get_rebound; get_rebound()"
    shell = Program(django, "-m", "django", "shell", "-c", use, REBOUND=wrong)
    assert [await program.ended() for program in (worker, check, shell)] == [1, 0, 1]
    complaint = "REBOUND: LEASE: is 'soon', must be a duration from 1s to 1h"
    assert f"(rebound.E001) {complaint}" in worker.printed()
    assert "Traceback" not in worker.printed()
    assert f"ImproperlyConfigured: {complaint}" in shell.printed()
    assert "(rebound.W001) REBOUND: the store rebound.db is another one for" in check.printed()


async def test_a_django_test_sees_what_would_be_submitted(django: Path) -> None:
    memory = "{'store_url': 'sqlite://:memory:'}"
    tests = Program(django, "-m", "django", "test", "shop", REBOUND=memory)
    assert await tests.ended() == 0, tests.printed()
    assert "Ran 1 test" in tests.printed()
    assert not list(django.rglob("rebound.db"))
