"""The scripts in `lua/`, and what a server must do to run them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple, NoReturn, Protocol

SHARED: Final = ("record", "common")
Argument = str | bytes | int | float


class Script(NamedTuple):
    """A script of `lua/`."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str, *parts: str, shared: Sequence[str] = SHARED) -> Script:
        """`lua/<name>.lua` with what is `shared` and further `parts` behind its first line."""
        folder = resources.files("rebound.adapters.stores").joinpath("lua")
        flags, rest = folder.joinpath(f"{name}.lua").read_text().split("\n", 1)
        before = [folder.joinpath(f"{part}.lua").read_text() for part in (*shared, *parts)]
        text = "\n".join((flags, *before, rest))
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


Wake = Callable[[str | None], None]
"""Takes the channel of a message; None where messages may have been missed."""


class Server(Protocol):
    """Where the keys of one prefix are."""

    async def command(self, *arguments: Argument, repeat: bool = True, asking: bool = False) -> Any:
        """The reply to one command. Raises StoreUnavailable.

        With `repeat` it is sent once more where the connection broke or nothing came back. `asking`
        for a key of a Cluster's slot that is on its way to this server.
        """
        ...

    async def run(
        self,
        script: Script,
        prefix: str,
        arguments: Sequence[Argument],
        *,
        repeat: bool = True,
        replicas: int = 0,
    ) -> Any:
        """The result of a script, which is loaded where the server does not know it.

        Raises StoreUnavailable, also where fewer than `replicas` have confirmed what it wrote.
        """
        ...

    async def listen(self, channels: Sequence[str], wake: Wake) -> NoReturn:
        """Call `wake` for each message, and when it has subscribed (again). Never returns."""
        ...

    async def aclose(self) -> None:
        """Close every connection; those in use when their reply has come."""
        ...
