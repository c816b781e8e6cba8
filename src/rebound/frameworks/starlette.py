"""Rebound in a Starlette or FastAPI program: started and closed with it, at hand in requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

from rebound.domain.errors import ReboundError
from rebound.embedded import Rebound
from rebound.settings import Config

try:
    from starlette.requests import HTTPConnection
except ImportError:
    raise ImportError(
        "rebound.frameworks.starlette needs Starlette or FastAPI: pip install starlette"
    ) from None

STATE: Final = "rebound"
"""Its name in the state of a request: `request.state.rebound`."""
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(rebound: Rebound | Config | None = None, inner: Lifespan | None = None) -> Lifespan:
    """What `Starlette(lifespan=...)` and `FastAPI(lifespan=...)` take.

    With a Config every start of the program makes a new Rebound. `inner` is the program's own
    lifespan: it starts after Rebound and ends before it, and its state is kept. Where Rebound
    cannot start the program does not either. Where a test has overridden `get_rebound` in FastAPI,
    it is the test's that is used, and none is opened.
    """

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as opened:
            override = getattr(app, "dependency_overrides", {}).get(get_rebound)
            if override is not None:
                one = override()
            else:
                one = rebound if isinstance(rebound, Rebound) else Rebound(rebound)
                await opened.enter_async_context(one)
            state = await opened.enter_async_context(inner(app)) if inner is not None else None
            yield {**(state or {}), STATE: one}

    return running


async def get_rebound(connection: HTTPConnection) -> Rebound:
    """The Rebound of the program, for `Depends(get_rebound)` of FastAPI too.

    Asynchronous, because FastAPI would spend a thread on every call otherwise. Raises ReboundError
    where the lifespan did not run.
    """
    rebound = getattr(connection.state, STATE, None)
    if not isinstance(rebound, Rebound):
        raise ReboundError(
            "there is no Rebound in this app: give it lifespan=lifespan(Config(...)), and run it by"
            " a server, or `with TestClient(app)`; a test may override get_rebound instead"
        )
    return rebound
