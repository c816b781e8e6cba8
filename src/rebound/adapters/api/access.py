"""Who may call what, by the key that a request comes with."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

from rebound.adapters.api.answer import Forbidden, RateLimited, Unauthorized
from rebound.domain.pace import Pace


class Holder(NamedTuple):
    """Who has one of the keys."""

    digest: bytes
    """Of the key, which itself is not kept here."""
    may_all: bool
    pace: Pace | None


class Access:
    """The keys that are known, and how often each may call."""

    def __init__(
        self,
        keys: Sequence[str],
        submit: Sequence[str] = (),
        *,
        rate: int | None = None,
        describes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keys` may call everything, those of `submit` only what creates tasks and shows one.

        `rate` is how many calls a second there may be with each, counted in this process.
        """
        self.describes = describes
        """Whether the description of the API is open to everybody."""
        self._clock = clock
        self._holders = [
            Holder(sha256(key.encode()).digest(), may_all, Pace(rate) if rate else None)
            for known, may_all in ((keys, True), (submit, False))
            for key in known
        ]

    def admit(self, key: bytes, *, submits: bool) -> None:
        """Let a call pass; `submits` says that it is one of those that every key allows.

        Raises Unauthorized, Forbidden or RateLimited.
        """
        if not key:
            raise Unauthorized
        digest = sha256(key).digest()
        # Every one is looked at: the time tells nothing about which is nearly right.
        found = [h for h in self._holders if hmac.compare_digest(h.digest, digest)]
        if not found:
            raise Unauthorized("this API key is not known")
        holder = found[0]
        if not (holder.may_all or submits):
            raise Forbidden("this API key may only create tasks and look at single ones")
        if holder.pace is not None and (wait := holder.pace.take(self._clock())):
            raise RateLimited(wait)
