"""Who may call the API: keys, and where there may be none."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from rebound.domain.errors import ValidationError
from rebound.settings.readers import choice, contradiction, listed

if TYPE_CHECKING:
    from rebound.settings import Config

NAMES = ("api_keys", "api_keys_submit", "rate_limit_per_key")
"""The settings that AUTH=off rules out."""


def key(value: object) -> str:
    """One API key. Raises ValueError."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-+\--~]{16,255}", value):
        raise ValueError
    return value


keys = listed(
    key, "each must be 16 to 255 visible ASCII characters and no comma; several with commas"
)
auth = choice({"off": "off", "none": "off", "false": "off"})


def check(config: Config) -> None:
    """Raise ValidationError for settings that do not go together."""
    given = [name for name in NAMES if getattr(config, name)]
    if config.auth and given:
        raise contradiction(config, "auth", config.auth, given[0])
    if set(config.api_keys) & set(config.api_keys_submit):
        raise ValidationError(
            "API_KEYS_SUBMIT: has a key that API_KEYS has as well", field="api_keys_submit"
        )
    if given == ["rate_limit_per_key"]:
        raise ValidationError(
            "RATE_LIMIT_PER_KEY: needs API_KEYS, for it counts what each key calls",
            field="rate_limit_per_key",
        )


def require_keys(config: Config) -> None:
    """Raise ValidationError where a service in production would be open to other hosts."""
    if config.environment != "prod" or config.auth or config.api_keys or config.api_keys_submit:
        return
    if not _is_loopback(config.http_host):
        raise ValidationError(
            f"API_KEYS: are needed in prod where HTTP_HOST is {config.http_host!r};"
            " AUTH=off says that everybody may call",
            field="api_keys",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
