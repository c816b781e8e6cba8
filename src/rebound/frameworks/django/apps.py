"""What Django keeps of Rebound: its settings, one SyncRebound, and the handlers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from rebound.adapters.producers.call import Handler
from rebound.domain.errors import ValidationError
from rebound.settings import Config
from rebound.sync import SyncRebound


class ReboundApp(AppConfig):
    """`rebound.frameworks.django` in INSTALLED_APPS."""

    name = "rebound.frameworks.django"
    label = "rebound"
    verbose_name = "Rebound"
    _rebound: SyncRebound | None = None
    _wrong = "is not read yet: Django is not set up"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.handlers: list[tuple[str, Handler]] = []
        """What `handler` was given, by the name in `call://name`."""
        self.config = Config()

    def ready(self) -> None:
        """Read the settings; what is wrong with them the system checks say."""
        checks.register(partial(self.check_settings))  # a method takes no tags
        try:
            self.config = configured(getattr(settings, "REBOUND", {}))
            self._rebound = SyncRebound(self.config, worker=False)
        except ValidationError as error:
            self._wrong = str(error)

    def rebound(self) -> SyncRebound:
        """Not started yet. Raises ImproperlyConfigured."""
        if self._rebound is None:
            raise ImproperlyConfigured(f"REBOUND: {self._wrong}")
        return self._rebound

    def check_settings(self, **_: Any) -> list[checks.CheckMessage]:
        """The system check of `REBOUND`."""
        if self._rebound is None:
            return [checks.Error(f"REBOUND: {self._wrong}", id="rebound.E001")]
        path = self.config.sqlite_path if self.config.store_kind == "sqlite" else ""
        if path and path != ":memory:" and not Path(path).is_absolute():
            return [
                checks.Warning(
                    f"REBOUND: the store {path} is another one for each folder that a process is"
                    " started in",
                    hint='Say where: {"store_url": f"sqlite:///{BASE_DIR}/rebound.db"}',
                    id="rebound.W001",
                )
            ]
        return []


def configured(given: object) -> Config:
    """The settings in `REBOUND`, a Config or what it takes. Raises ValidationError."""
    if isinstance(given, Config):
        return given
    if not isinstance(given, Mapping):
        raise ValidationError("must be a dict, such as {'store_url': 'sqlite:////var/rebound.db'}")
    known = [field.name for field in dataclasses.fields(Config)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name).lower(), known, 1)
            asked = f"; did you mean {near[0]!r}?" if near else ""
            raise ValidationError(f"{name!r} is no setting{asked}")
    return Config(**given)
