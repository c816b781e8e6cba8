"""Settings as environment variables say them, and which of those the command line beats."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rebound.settings import access
from rebound.settings.readers import refuse_unknown
from rebound.settings.redis import MODES


def found(env: Mapping[str, str], prefix: str, names: Collection[str]) -> dict[str, Any]:
    """Those of the settings `names` that are in `env` and not empty."""
    refuse_unknown(env, prefix, names)
    given = {name: env.get(prefix + name.upper(), "") for name in names}
    # Kubernetes and Docker set REDIS_PORT=tcp://… for a service that is called redis.
    linked = {name for name in ("http_port", "redis_port") if given[name].startswith("tcp://")}
    return {name: value for name, value in given.items() if value.strip() and name not in linked}


def beaten(flags: Mapping[str, object], names: Collection[str]) -> set[str]:
    """Those of `names` in the environment that `flags` make void, though their names differ."""
    void = set()
    if "http_addr" in flags:
        void |= {"http_host", "http_port"}
    if flags.keys() & {"http_host", "http_port"}:
        void.add("http_addr")
    if flags.keys() & {"redis_addr", "redis_host", "redis_port"}:
        void |= {"store_url", "redis_addr", "redis_host", "redis_port", *MODES}
    if "auth" in flags:
        void |= set(access.NAMES)
    if flags.keys() & {"api_keys", "api_keys_submit"}:
        void.add("auth")
    url = str(flags.get("store_url", ""))
    if url.startswith("sqlite:"):
        void |= {name for name in names if name.startswith("redis_")}
    elif url:
        void |= {"redis_addr", "redis_host", "redis_port", "redis_db", "redis_tls", *MODES}
        void |= {"redis_username", "redis_password"} if "@" in url else set()
    return void
