"""A Django app: `INSTALLED_APPS += ["rebound.frameworks.django"]`, settings in `REBOUND`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from rebound.domain.task import Task
from rebound.embedded import Function
from rebound.ids import uuid7
from rebound.sync import SyncRebound

try:
    from django.apps import apps as installed
    from django.db import transaction
except ImportError:
    raise ImportError("rebound.frameworks.django needs Django: pip install django") from None

if TYPE_CHECKING:
    from rebound.frameworks.django.apps import ReboundApp


def get_rebound() -> SyncRebound:
    """The SyncRebound of this process, started. It submits; `manage.py rebound_worker` delivers.

    Raises ImproperlyConfigured for wrong settings, and what `Rebound.start` does.
    """
    rebound = _app().rebound()
    rebound.start()
    return rebound


def create_task_on_commit(task: Task, using: str | None = None) -> str:
    """Submit the task when the transaction of the database `using` commits: its id.

    Outside a transaction that is at once. The task is checked, and the store opened, at once: what
    is wrong is raised while the transaction can still be rolled back. Raises what `create_task`
    does.
    """
    rebound = get_rebound()
    rebound.check(task)
    if not task.id:
        task = replace(task, id=uuid7())
    transaction.on_commit(lambda: rebound.create_task(task), using=using)
    return task.id


def handler(name: str) -> Callable[[Function], Function]:
    """Decorate the function that takes the tasks of `call://name`, in a `rebound_handlers.py`.

    `manage.py rebound_worker` imports that module of each installed app. A function may use the
    database: its connections are looked after as around a request.
    """

    def register(function: Function) -> Function:
        _app().handlers.append((name, function))
        return function

    return register


def _app() -> ReboundApp:
    from rebound.frameworks.django.apps import ReboundApp

    app = installed.get_app_config("rebound")
    assert isinstance(app, ReboundApp)
    return app
