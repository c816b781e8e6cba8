"""How one setting is declared, read from text and checked."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from rebound.domain.backoff import STRATEGIES, Strategy
from rebound.domain.durations import UNITS, seconds
from rebound.domain.errors import ValidationError
from rebound.settings.addresses import broker

if TYPE_CHECKING:
    from rebound.domain.backoff import Strategy
    from rebound.settings import Config

Kept = TypeVar("Kept")
Given = TypeVar("Given", contravariant=True)
Reader = Callable[[Any], Kept]
"""Turns what was given into what is kept. Raises ValueError with what is allowed instead."""

MAX_SHOWN = 100
"""Characters of a wrong value that its error repeats."""


class Setting(Generic[Kept, Given]):
    """One setting of `Config`: checks what is given once, at construction.

    A dataclass takes the type of `__set__` for its constructor, so that `Config(lease="1m")` is
    well typed and `config.lease` a float.
    """

    name: str
    """As a keyword argument, such as `http_port`."""

    def __init__(
        self,
        read: Reader[Kept],
        description: str,
        default: Kept,
        *,
        shown_default: str = "",
        show: Callable[[str], str] = str,
        secret: bool = False,
    ) -> None:
        """`show` takes what nobody may read out of a value; a secret one is never shown at all."""
        self.description = description
        self.default = default
        self.shown_default = shown_default
        self.secret = secret
        self._read = read
        self._show = show

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def variable(self) -> str:
        """Name of the environment variable, without prefix."""
        return self.name.upper()

    @property
    def flag(self) -> str:
        """Name of the command line's flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def allowed(self) -> str:
        """What may be given, in the words of the error about anything else."""
        try:
            self._read(object())
        except ValueError as error:
            return str(error)
        raise AssertionError(f"{self.name} takes anything")

    @overload
    def __get__(self, config: None, owner: type) -> Kept: ...
    @overload
    def __get__(self, config: Config, owner: type) -> Kept: ...
    def __get__(self, config: Config | None, owner: type) -> Kept:
        """The value; of the class, the default, which is where a dataclass looks for it."""
        if config is None:
            return self.default
        kept: Kept = config.__dict__[self.name]
        return kept

    def __set__(self, config: Config, value: Given) -> None:
        """Check and keep `value`. None, a blank text and the default itself mean the default."""
        given: object = value.strip() if isinstance(value, str) and not self.secret else value
        if given is None or given == "" or given is self.default:
            config.__dict__[self.name] = self.default
            return
        try:
            config.__dict__[self.name] = self._read(given)
        except ValueError as error:
            raise ValidationError(
                f"{self.variable}: {self.said(given)}{error}", field=self.name
            ) from None

    def shown(self, value: object) -> str:
        """`value` as it may be shown to anyone."""
        if self.secret:
            return "'***'"
        return repr(self._show(value) if isinstance(value, str) else value)

    def said(self, value: object) -> str:
        """The beginning of an error about `value`; a secret one is left out."""
        if self.secret:
            return ""
        text = self.shown(value)
        return f"is {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}, "


def text(pattern: str, allowed: str) -> Reader[str]:
    """Text that matches `pattern`; `allowed` says in words what does."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return read


def whole(low: int, high: int) -> Reader[int]:
    """A whole number from `low` to `high`, as such or as text."""
    allowed = f"must be a whole number from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(allowed)
        return value

    return read


def size(low: int, high: int) -> Reader[int]:
    """A number of bytes, also written `64KiB` or `1MiB`."""
    number = whole(low, high)
    factors = {"": 1, "KiB": 1024, "MiB": 1024**2}

    def read(value: object) -> int:
        match = re.fullmatch(r"(\d{1,12}) ?(KiB|MiB)?", str(value), re.ASCII)
        try:
            scaled = isinstance(value, str) and match
            return number(int(match[1]) * factors[match[2] or ""] if scaled and match else value)
        except ValueError as error:
            raise ValueError(f"{error} bytes, or be written like 64KiB or 1MiB") from None

    return read


def duration(low: str, high: str) -> Reader[float]:
    """Seconds from `low` to `high`, as a number or as text like `1h30m`."""
    least, most = seconds(low), seconds(high)
    allowed = f"must be a duration from {low} to {high}, written like 250ms, 1s, 5m, 1h30m, 30d"

    def read(value: object) -> float:
        if isinstance(value, str):
            try:
                value = seconds(value)
            except ValueError:
                raise ValueError(allowed) from None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(allowed)
        if not math.isfinite(value) or not least <= value <= most:
            raise ValueError(allowed)
        return float(value)

    return read


def choice(meanings: Mapping[str, str]) -> Reader[str]:
    """One of the keys, in either case; its meaning is kept."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in meanings:
            raise ValueError(f"must be one of {', '.join(meanings)}")
        return meanings[value.lower()]

    return read


def switch(value: object) -> bool:
    """On or off."""
    if isinstance(value, str):
        value = {
            "on": True, "true": True, "yes": True, "1": True,
            "off": False, "false": False, "no": False, "0": False,
        }.get(value.lower())  # fmt: skip
    if not isinstance(value, bool):
        raise ValueError("must be on or off")
    return value


def listed(read_one: Reader[Kept], allowed: str) -> Reader[tuple[Kept, ...]]:
    """A list, or text with commas, of what `read_one` reads."""

    def read(value: object) -> tuple[Kept, ...]:
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            if value.strip() and not parts:  # a mistake; where empty means no limit, a costly one
                raise ValueError(allowed)
            value = parts
        if not isinstance(value, Sequence | set | frozenset) or isinstance(value, bytes):
            raise ValueError(allowed)
        try:
            return tuple(read_one(one) for one in value)
        except ValueError:
            raise ValueError(allowed) from None

    return read


def status(value: object) -> int | str:
    """An HTTP status from 300 to 599, or a class of them: `3xx`, `4xx`, `5xx`."""
    if isinstance(value, str) and re.fullmatch(r"[345]xx", value, re.IGNORECASE):
        return value.lower()
    return whole(300, 599)(value)


def spoken(duration: float) -> str:
    """A duration in seconds as people write it: `1h30m`."""
    rest = round(duration * 1000)
    parts = []
    for unit, length in sorted(UNITS.items(), key=lambda item: -item[1]):
        count, rest = divmod(rest, round(length * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def check_strategies(strategies: Mapping[str, Strategy]) -> None:
    """Raise ValidationError unless each is a function under a name that is free."""
    if not isinstance(strategies, Mapping):
        raise ValidationError("strategies: must be functions by name", field="strategies")
    for name, strategy in strategies.items():
        if not isinstance(name, str) or not 1 <= len(name) <= 255 or name in STRATEGIES:
            allowed = "must be of 1 to 255 characters and no built-in one"
            raise ValidationError(f"strategies: the name {name!r} {allowed}", field="strategies")
        if not callable(strategy):
            raise ValidationError(f"strategies: {name!r} is no function", field="strategies")


def any_or_broker(value: object) -> str:
    """A broker, or `*` for any."""
    return "*" if value == "*" else broker(value)


def file(value: object) -> str:
    """The path of a file that is there."""
    if not isinstance(value, str) or not os.path.isfile(value):  # Path raises for a long one
        raise ValueError("must be a file")
    return value


host = text(r"[\w.:%-]{1,255}", "must be a host name or an IP address")
anything = text(r"[^\ud800-\udfff]*", "must be text in UTF-8")
namespace = text(r"[A-Za-z0-9._:-]{1,64}", "must be 1 to 64 letters, digits, '.', '_', ':', '-'")
brokers = listed(broker, "must be host:port, several with commas; ports are 1 to 65535")
mode = choice({"standalone": "standalone", "sentinel": "sentinel", "cluster": "cluster"})
allowed_brokers = listed(any_or_broker, "must be * or host:port, several with commas")
statuses = listed(status, "must be statuses from 300 to 599 or 3xx, 4xx, 5xx, with commas")
level = choice(
    {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error"}
)
environment = choice({"dev": "dev", "prod": "prod", "production": "prod", "staging": "prod"})


CLIENTS_KEY = "API_KEY"
"""Read by the commands that call a service; not a misspelt API_KEYS."""


def refuse_unknown(env: Mapping[str, str], prefix: str, known: Collection[str]) -> None:
    """Raise ValidationError for a setting that looks misspelt."""
    names = [prefix + name.upper() for name in known]
    for name in env if prefix else ():
        if name.startswith(prefix) and name not in (*names, f"{prefix}{CLIENTS_KEY}"):
            near = difflib.get_close_matches(name, names, 1, 0.9)
            if near:
                raise ValidationError(f"{name}: is no setting; did you mean {near[0]}?")


def contradiction(config: Config, name: str, value: object, other: str) -> ValidationError:
    """The error of a setting that says otherwise than another one."""
    said = vars(type(config))[name].said(value) or "is given, "
    return ValidationError(
        f"{name.upper()}: {said}but {other.upper()} says otherwise; give only one of them",
        field=name,
    )
