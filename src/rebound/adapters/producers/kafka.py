"""Delivers tasks to `kafka://` destinations with librdkafka."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from rebound.adapters.producers.kafka_client import Client, Delivered, Poller, Results, Value
from rebound.adapters.producers.kafka_record import Record, record
from rebound.adapters.producers.resolver import Resolver
from rebound.domain.brokers import normal, peers, route
from rebound.domain.destination import Destination
from rebound.domain.errors import Deferred, DeliveryError, Rejected, ValidationError
from rebound.domain.networks import Guard
from rebound.domain.task import Task
from rebound.ports import Receipt

DEFAULTS: Final[Mapping[str, Value]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # keys land where Java's clients put them
    "linger.ms": 5,
    "reconnect.backoff.max.ms": 1000,  # so that a broker that comes back is found at once
    "topic.metadata.propagation.max.ms": 10_000,  # after that a topic is said to be unknown
    "client.id": "rebound",
    "log_level": 0,  # what librdkafka would write to stderr is told with the failed attempt
}
ONE_BY_ONE: Final[Mapping[str, Value]] = {"batch.num.messages": 1, "linger.ms": 0}
KEPT: Final = 64
"""Clients that stay open; of more, those without records under way are closed."""
MOST: Final = 256
"""Clients that may be open while all of them have records under way: each has several threads."""
ROOM: Final = 0.05
"""Seconds between two tries to get a record into a full queue."""
TRIES: Final = 20
REFUSED: Final = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_EXCEPTION,  # the name is not valid
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
"""Errors that a further attempt would meet again."""
LATE: Final = (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT)


class KafkaProducer:
    """A `ports.Producer`. Keeps one librdkafka producer per list of brokers, made on first use."""

    def __init__(
        self,
        brokers: Sequence[str],
        properties: Mapping[str, Value],
        refusal: Callable[[Destination], str | None] = lambda _: None,
        guard: Guard = Guard(),  # noqa: B008
    ) -> None:
        """`brokers` are those of `kafka:///topic`, `properties` librdkafka's for all clients.

        `refusal` says why no task may go to a destination, or None. `guard` judges the addresses
        of the brokers that a task names before they get a client; librdkafka connects by itself.
        """
        self._guard = guard
        self._brokers = normal(tuple(brokers))
        self._properties = {**DEFAULTS, **properties}
        self._refusal = refusal
        self._clients: OrderedDict[_Way, Client] = OrderedDict()
        self._judging: dict[tuple[str, ...], asyncio.Task[DeliveryError | None]] = {}
        self._poller: Poller | None = None

    async def send(self, task: Task, /) -> Receipt:
        """Deliver to `task.target`: every replica in sync has the record when this returns.

        Raises DeliveryError, Rejected, or Deferred where there is no room for the record.
        """
        if why := self._refusal(task.target):
            raise Rejected(why)
        brokers, topic = route(task.target.address)
        try:
            one = record(task)
        except (ValidationError, UnicodeError) as error:
            raise Rejected(f"cannot be put into a record: {error}") from None
        way = _Way(brokers or self._brokers)
        if brokers and way not in self._clients and (bad := await self._judged(brokers)):
            raise bad
        while True:
            try:
                client, result = self._produced(way, topic, one)
            except BufferError:
                client, result = await self._room_for(way, topic, one)
            failed, message = await result
            if failed is None:
                told = f"partition {message.partition()}, offset {message.offset()}"
                return Receipt(response=told)
            if failed.code() != KafkaError.MSG_SIZE_TOO_LARGE or way.one_by_one:
                raise _failure(client, failed)
            # The limit of a topic is one for batches: its companions may have been too much.
            way = way._replace(one_by_one=True)

    async def _judged(self, brokers: tuple[str, ...]) -> DeliveryError | None:
        """What `_judge` says, asked once for all records that come meanwhile."""
        judging = self._judging.get(brokers)
        if judging is None:
            judging = self._judging[brokers] = asyncio.create_task(self._judge(brokers))
            judging.add_done_callback(lambda _: self._judging.pop(brokers, None))
        return await asyncio.shield(judging)

    async def _judge(self, brokers: tuple[str, ...]) -> DeliveryError | None:
        """Rejected where one of the brokers has an address that is not allowed."""
        for host, port in peers(brokers):
            if (host, port) in self._guard.brokers:
                continue
            try:
                found = await Resolver().resolve(host, port, socket.AF_UNSPEC)
            except OSError:
                return DeliveryError(f"cannot resolve host {host}")
            for each in found:
                if why := self._guard.address(each["host"]):
                    return Rejected(f"{host} is {why}")
        return None

    async def aclose(self) -> None:
        """Give up what is under way, and release every connection and thread."""
        self._clients.clear()
        judging = [*self._judging.values()]
        for one in judging:
            one.cancel()
        await asyncio.gather(*judging, return_exceptions=True)
        poller, self._poller = self._poller, None
        if poller is not None:
            await poller.aclose()

    # -- records -----------------------------------------------------------------------------

    def _produced(self, way: _Way, topic: str, one: Record) -> tuple[Client, Delivered]:
        """Hand the record to a client. Raises BufferError or DeliveryError."""
        client, poller = self._client(way)
        result: Delivered = poller.loop.create_future()
        try:
            client.produce(topic, one, result)
        except BufferError:
            raise
        except KafkaException as error:
            raise _failure(client, error.args[0]) from None
        except (ValueError, TypeError) as error:
            raise Rejected(f"cannot be put into a record: {error}") from None
        if client.under_way == 1:
            poller.wake()
        return client, result

    async def _room_for(self, way: _Way, topic: str, one: Record) -> tuple[Client, Delivered]:
        for _ in range(TRIES):
            await asyncio.sleep(ROOM)
            with contextlib.suppress(BufferError):
                return self._produced(way, topic, one)
        raise Deferred("the queue to the brokers is full")

    def _take(self, client: Client, results: Results) -> None:
        client.under_way -= len(results)
        for future, error, message in results:
            if error is None:
                client.working, client.trouble = True, None
            if not future.done():
                future.set_result((error, message))

    # -- clients -----------------------------------------------------------------------------

    def _client(self, way: _Way) -> tuple[Client, Poller]:
        """The client to use now. Raises DeliveryError, or Deferred where there are too many."""
        if self._poller is None:
            self._poller = Poller(self._take)
        client = self._clients.get(way)
        if client is not None and client.fatal is not None:
            self._retire(way)
            client = None
        if client is None:
            self._make_room()
            client = self._open(way)
            self._clients[way] = client
            self._poller.add(client)
        else:
            self._clients.move_to_end(way)
        return client, self._poller

    def _open(self, way: _Way) -> Client:
        own = ONE_BY_ONE if way.one_by_one else {}
        try:
            return Client({**self._properties, **own, "bootstrap.servers": ",".join(way.brokers)})
        except KafkaException as error:
            raise DeliveryError(_said(error.args[0])) from None

    def _make_room(self) -> None:
        while len(self._clients) >= KEPT:
            idle = next(
                (way for way, client in self._clients.items() if not client.under_way), None
            )
            if idle is not None:
                self._retire(idle)
            elif len(self._clients) >= MOST:
                raise Deferred(f"{MOST} lists of brokers are in use, which is the most")
            else:
                break

    def _retire(self, way: _Way) -> None:
        self._clients.pop(way).retired = True
        if self._poller is not None:
            self._poller.wake()


class _Way(NamedTuple):
    """What has a client of its own."""

    brokers: tuple[str, ...]
    one_by_one: bool = False


def try_out(properties: Mapping[str, Value]) -> None:
    """Raise ValueError, with what librdkafka says, for properties that it refuses."""
    try:
        Client({**DEFAULTS, **properties}).close()
    except KafkaException as error:
        said = error.args[0].str().removeprefix("Failed to create producer: ")
        raise ValueError(said) from None
    except (ValueError, TypeError) as error:
        raise ValueError(str(error)) from None


def _failure(client: Client, error: KafkaError) -> DeliveryError:
    fatal = client.fatal
    if fatal is not None and error.code() in (KafkaError._PURGE_QUEUE, KafkaError._FATAL):
        if client.working and fatal.code() not in REFUSED:  # its successor will do it
            return Deferred(_said(fatal))
        error = fatal
    if error.code() in REFUSED:
        return Rejected(_said(error))
    late = error.code() in LATE
    if late and client.trouble is not None:
        return DeliveryError(f"{_said(error)}; {_said(client.trouble)}", timed_out=True)
    return DeliveryError(_said(error), timed_out=late)


def _said(error: KafkaError) -> str:
    return f"{error.name()}: {error.str().removeprefix('Unable to produce message: ')}"
