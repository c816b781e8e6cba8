"""One Redis server, or the one that Sentinels name: connections kept open, commands, scripts.

redis-py makes, secures and authenticates the connections. It is not asked to repeat commands: after
a lost reply only the caller knows whether a repeat is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rebound.adapters.stores.redis_scripts import Argument, Script, Wake
from rebound.domain.errors import StoreFull, StoreUnavailable

_pack: Callable[[Any], Any] | None
try:
    from hiredis import pack_command as _pack
except ImportError:  # redis-py works without it, slower
    _pack = None

TRY_TIMEOUT: Final = 2.0
"""Seconds that one exchange may take, connecting included."""
WAIT_TIMEOUT: Final = 1.0
"""Seconds that replicas have to confirm a write."""
IDLE_CHECK: Final = 1.0
"""A connection that was idle for so many seconds is looked at before it is used."""
LISTEN_PING: Final = 10.0
"""Seconds of silence after which a listening connection is asked whether it still stands."""
LISTEN_PAUSE: Final = 0.5
"""Seconds before a listening connection that broke is made again."""
_OURS: Final[dict[str, Any]] = {
    "decode_responses": False,
    "protocol": 2,
    "retry": Retry(NoBackoff(), 0),
    "retry_on_timeout": False,
    "retry_on_error": [],
    "socket_timeout": None,  # an exchange has its time limit as a whole
    "socket_connect_timeout": TRY_TIMEOUT,
    "health_check_interval": 0,
}

BROKEN: Final = (
    exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError, OSError,
)  # fmt: skip


class RedisServer:
    """The server to which a pool of redis-py connects; only the pool's settings are used."""

    def __init__(
        self, pool: Any, size: int, close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`size` is the greatest number of connections; `close` lets go of the pool."""
        self._pool = pool  # a Sentinel's connections ask it where to go, and do not keep it
        self._close = close
        self._class = pool.connection_class
        self._options = {
            k: v
            for k, v in pool.connection_kwargs.items()
            if not k.startswith(("maint_notifications", "orig_", "oss_cluster"))
        } | _OURS
        self._slots = asyncio.Semaphore(size)
        self._closed = False
        self._idle: list[tuple[Any, float]] = []

    async def command(self, *arguments: Argument, repeat: bool = True, asking: bool = False) -> Any:
        try:
            if asking:
                return (await self._exchange([("ASKING",), arguments], repeat))[1]
            return (await self._exchange([arguments], repeat))[0]
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error

    async def run(
        self,
        script: Script,
        prefix: str,
        arguments: Sequence[Argument],
        *,
        repeat: bool = True,
        replicas: int = 0,
    ) -> Any:
        calls: list[Sequence[Argument]] = [("EVALSHA", script.sha, 1, prefix, *arguments)]
        if replicas:  # counts what was written by its own connection alone
            calls.append(("WAIT", replicas, round(WAIT_TIMEOUT * 1000)))
        try:
            try:
                result, *reached = await self._exchange(calls, repeat)
            except exceptions.NoScriptError:
                await self._exchange([("SCRIPT", "LOAD", script.text)], True)
                result, *reached = await self._exchange(calls, repeat)
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error
        if replicas and reached[0] < replicas:
            raise StoreUnavailable(f"only {reached[0]} of {replicas} replicas have confirmed it")
        return result

    async def aclose(self) -> None:
        self._closed = True
        await self._drop_idle()
        if self._close is not None:
            await self._close()

    async def listen(self, channels: Sequence[str], wake: Wake) -> NoReturn:
        while True:
            await self.listen_once(channels, wake)
            await asyncio.sleep(LISTEN_PAUSE)

    async def listen_once(self, channels: Sequence[str], wake: Wake) -> None:
        """Likewise, until the connection breaks or cannot be made."""
        connection = self._connection()
        try:
            async with asyncio.timeout(TRY_TIMEOUT):
                await connection.connect()
                await connection.send_command("SUBSCRIBE", *channels, check_health=False)
            await _messages(connection, wake, len(channels))
        except (exceptions.RedisError, OSError, TimeoutError):
            pass
        finally:
            await connection.disconnect(nowait=True)

    # -- one exchange ------------------------------------------------------------------------

    async def _exchange(self, calls: Sequence[Sequence[Argument]], repeat: bool) -> list[Any]:
        """The replies to commands that go as one. Raises the first error among them."""
        packed = pack(calls[0]) if len(calls) == 1 else b"".join(map(pack, calls))
        try:
            return await self._try(packed, len(calls))
        except exceptions.AuthenticationError:
            raise
        except BROKEN as error:
            await self._drop_idle()  # the others have most likely broken with it
            if not repeat and not isinstance(error, exceptions.ReadOnlyError):
                raise
        return await self._try(packed, len(calls))

    async def _try(self, packed: bytes, count: int) -> list[Any]:
        if self._closed:
            raise ConnectionError("the store is closed")
        async with asyncio.timeout(TRY_TIMEOUT), self._slots:
            connection = await self._connected()
            replies: list[Any] = []
            error: exceptions.ResponseError | None = None
            try:
                await _send(connection, packed)
                for _ in range(count):
                    try:
                        replies.append(await connection.read_response(disable_decoding=True))
                    except exceptions.ResponseError as refused:
                        error = error or refused
            except BaseException:  # a reply that comes late must not answer another command
                await connection.disconnect(nowait=True)
                raise
            if isinstance(error, exceptions.ReadOnlyError):  # not the primary any more: look it up
                await connection.disconnect(nowait=True)
            else:
                await self._keep(connection)
            if error is not None:
                raise error
            return replies

    async def _keep(self, connection: Any) -> None:
        if self._closed:
            await connection.disconnect()
        else:
            self._idle.append((connection, asyncio.get_running_loop().time()))

    async def _drop_idle(self) -> None:
        while self._idle:
            connection, _ = self._idle.pop()
            await connection.disconnect(nowait=not self._closed)

    def _connection(self) -> Any:
        return self._class(**self._options)

    async def _connected(self) -> Any:
        while self._idle:
            connection, since = self._idle.pop()
            if asyncio.get_running_loop().time() - since < IDLE_CHECK:
                return connection
            try:
                if not await _has_ended(connection):
                    return connection
            except (exceptions.RedisError, OSError):
                pass
            await connection.disconnect(nowait=True)
        connection = self._connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


def pack(arguments: Sequence[Argument]) -> bytes:
    """A command as the Redis protocol has it."""
    if _pack is not None:
        packed: bytes = _pack(tuple(arguments))
        return packed
    parts = [b"*%d\r\n" % len(arguments)]
    for one in arguments:
        data = one if isinstance(one, bytes) else str(one).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


async def _send(connection: Any, packed: bytes) -> None:
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # what uvloop says of one that broke while it was idle
        raise ConnectionError(str(error)) from error


async def _messages(connection: Any, wake: Wake, count: int) -> None:
    """Read until the connection breaks. `count` channels confirm that they are subscribed."""
    asked = False
    while True:
        message = await connection.read_response(disable_decoding=True, timeout=LISTEN_PING)
        if message is None:
            if asked:
                raise TimeoutError
            await _send(connection, pack(("PING",)))
        elif message[0] == b"subscribe":
            count -= 1
        asked = message is None
        if message is not None and count <= 0 and message[0] != b"pong":
            wake(message[1].decode() if message[0] == b"message" else None)


async def _has_ended(connection: Any) -> bool:
    """True where the server closed the connection, or sent what nobody asked for."""
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    return bool(await look())


def unavailable(error: BaseException) -> StoreUnavailable:
    """The error of Rebound for one of redis-py."""
    kind = StoreFull if isinstance(error, exceptions.OutOfMemoryError) else StoreUnavailable
    return kind(explain(error))


def explain(error: BaseException) -> str:
    """What is wrong, in a line without secrets."""
    match error:
        case exceptions.OutOfMemoryError():
            return "the store is full: Redis has reached its maxmemory"
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return f"redis refuses the login: {str(error)[:200]}"
        case exceptions.BusyLoadingError():
            return "redis is still loading its data"
        case exceptions.ReadOnlyError():
            return "redis is a read-only replica"
        case exceptions.MovedError():
            return "this redis is part of a Cluster: set REDIS_MODE to cluster"
        case exceptions.TimeoutError() | TimeoutError():
            return f"redis did not answer within {TRY_TIMEOUT:g} s"
        case exceptions.ConnectionError() | OSError():
            return f"redis cannot be reached: {str(error)[:200]}"
        case _:
            return f"redis: {str(error)[:200]}"
