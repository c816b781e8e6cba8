"""The caller's own parts: a client, a session, a logger, functions; told apart by what they do."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

from rebound.domain.errors import ValidationError

if TYPE_CHECKING:
    from rebound.settings import Config


def check(config: Config) -> None:
    """Raise ValidationError for a part that is none, such as a client that is not asyncio's."""
    redis, session, logger = config.redis, config.session, config.logger
    fits = {
        "redis": (
            hasattr(redis, "connection_pool")
            and iscoroutinefunction(getattr(redis, "execute_command", None)),
            "must be a redis.asyncio.Redis",
        ),
        "session": (
            hasattr(session, "request") and hasattr(session, "closed"),
            "must be an aiohttp.ClientSession",
        ),
        "logger": (hasattr(logger, "isEnabledFor"), "must be a logging.Logger"),
        "clock": (callable(config.clock), "must be a function"),
        "on_event": (callable(config.on_event), "must be a function"),
    }
    for name, (fit, allowed) in fits.items():
        part = getattr(config, name)
        if part is not None and not fit:
            given = f"{type(part).__module__}.{type(part).__qualname__}"
            raise ValidationError(f"{name.upper()}: {allowed}, not a {given}", field=name)
