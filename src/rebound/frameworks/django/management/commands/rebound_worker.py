"""`manage.py rebound_worker`: delivers, until a signal."""

from __future__ import annotations

import functools
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections
from django.utils.module_loading import autodiscover_modules

from rebound.adapters.listeners.log import configure
from rebound.adapters.producers.call import Handler, is_async
from rebound.domain.errors import ReboundError
from rebound.domain.task import Task
from rebound.frameworks.django.apps import ReboundApp
from rebound.service import work


class Command(BaseCommand):
    """SIGTERM and SIGINT end it gracefully, as they end `rebound work`."""

    help = "Deliver tasks, with the handlers in rebound_handlers.py of the installed apps."

    def handle(self, *_: Any, **__: Any) -> None:
        """Run until a signal. Raises CommandError."""
        autodiscover_modules("rebound_handlers")
        app = apps.get_app_config("rebound")
        assert isinstance(app, ReboundApp)
        if not settings.LOGGING:
            configure(app.config.log_level, app.config.log_format or "text")
        try:
            work(app.config, [(name, _connected(function)) for name, function in app.handlers])
        except ReboundError as error:
            raise CommandError(str(error)) from None


def _connected(function: Handler) -> Handler:
    """With working database connections, as around a request: a worker outlives many."""
    renew = sync_to_async(close_old_connections)

    async def called_async(task: Task) -> None:
        await renew()
        try:
            await function(task)  # type: ignore[misc]
        finally:
            await renew()

    def called(task: Task) -> None:
        close_old_connections()
        try:
            function(task)
        finally:
            close_old_connections()

    return functools.wraps(function)(called_async if is_async(function) else called)
