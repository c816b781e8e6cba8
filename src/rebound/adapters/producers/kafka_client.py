"""librdkafka's producers, and the one thread that fetches what became of their records."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from rebound.adapters.producers.kafka_record import Record

LOG: Final = logging.getLogger("rebound.kafka")
ALONE: Final = 0.01
"""Seconds that one client is waited for, where no other has records under way."""
BETWEEN: Final = 0.002
"""Seconds between two looks at several clients: well below the 5 ms that records wait for more."""
IDLE: Final = 1.0
"""Seconds between two looks at clients without records, which may have a login to renew."""
PURGING: Final = 1.0
"""Seconds that records get to come out as purged."""
CLOSING: Final = 5.0
"""Seconds after which a thread that a name server holds is left to itself."""

Value = str | int | float | bool


Delivered = asyncio.Future[tuple[KafkaError | None, Message]]
Results = list[tuple[Delivered, KafkaError | None, Message]]


class Client:
    """One librdkafka producer and what is under way in it.

    The loop calls `produce`, the poller everything else; `under_way` is the loop's to write.
    """

    def __init__(self, properties: Mapping[str, Value]) -> None:
        """Raises KafkaException for properties that librdkafka refuses."""
        self.under_way = 0
        self.working = False
        """True when a record has been acknowledged."""
        self.retired = False
        """Set when no more records will come: closed as soon as none is under way."""
        self.trouble: KafkaError | None = None
        """The last thing that went wrong with the brokers since a record was acknowledged."""
        self.fatal: KafkaError | None = None
        self._results: Results = []
        self._purged = False
        self._producer: Producer | None = Producer(
            {**properties, "error_cb": self._troubled, "logger": LOG}
        )

    def produce(self, topic: str, record: Record, future: Delivered) -> None:
        """Take the record; `future` gets what becomes of it.

        Raises BufferError where there is no room, KafkaException, or ValueError and TypeError for
        what cannot be put into a record.
        """
        assert self._producer is not None
        self._producer.produce(
            topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            timestamp=record.timestamp,
            headers=record.headers,
            on_delivery=partial(self._delivered, future),
        )
        self.under_way += 1

    def poll(self, seconds: float) -> Results:
        """Wait for results, and take those that are there."""
        assert self._producer is not None
        try:
            self._producer.poll(seconds)
        except KafkaException as error:  # a fatal error is raised here, not called back
            self._troubled(error.args[0])
        if self.fatal is not None and not self._purged:
            # What is queued would only wait for its time limit.
            self._purged = True
            self._producer.purge(in_queue=True, in_flight=False, blocking=False)
        results, self._results = self._results, []
        return results

    def close(self) -> Results:
        """End librdkafka's threads; what is still under way comes out as purged."""
        if self._producer is None:
            return []
        results: Results = []
        until = time.monotonic() + PURGING
        while len(self._producer) and time.monotonic() < until:
            self._producer.purge()
            results += self.poll(0.01)
        self._producer = None  # the last reference: librdkafka's destructor runs here
        return results

    def _delivered(self, future: Delivered, error: KafkaError | None, message: Message) -> None:
        self._results.append((future, error, message))

    def _troubled(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:  # comes in addition, and says less
            self.trouble = error


class Poller:
    """A thread that polls every client and hands what it finds to the loop, in batches."""

    def __init__(self, take: Callable[[Client, Results], None]) -> None:
        """`take` is called in the running event loop, which is remembered."""
        self._take = take
        self.loop = asyncio.get_running_loop()
        self._ended = self.loop.create_future()
        self._clients: tuple[Client, ...] = ()
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rebound-kafka", daemon=True)
        self._thread.start()

    def add(self, client: Client) -> None:
        """Poll `client` from now on, until it is retired and nothing is under way in it."""
        self._clients = (*self._clients, client)

    def remove(self, client: Client) -> None:
        """Poll `client` no more."""
        self._clients = tuple(one for one in self._clients if one is not client)

    def wake(self) -> None:
        """Look now: there are records under way, or a client has been retired."""
        if not self._wake.is_set():
            self._wake.set()

    async def aclose(self) -> None:
        """Close every client and end the thread."""
        self._stopping = True
        self.wake()
        await asyncio.wait([self._ended], timeout=CLOSING)
        if self._ended.done():
            self._thread.join()

    # -- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping and not self.loop.is_closed():
            clients = self._clients
            busy = [client for client in clients if client.under_way]
            if not busy:
                self._wake.wait(IDLE)
                self._wake.clear()
            found = False
            for client in clients:
                wait = ALONE if busy == [client] else 0.0
                found = self._look(client, wait) or found
            if len(busy) > 1 and not found:
                self._wake.wait(BETWEEN)
                self._wake.clear()
        for client in self._clients:
            self._tell(self._take, client, client.close())
        self._tell(self._ended.set_result, None)

    def _look(self, client: Client, wait: float) -> bool:
        """Hand over what `client` has; True if that was anything. Never raises."""
        results: Results = []
        try:
            if client.retired and not client.under_way:
                client.close()
                self._tell(self.remove, client)
            else:
                results = client.poll(wait)
        except Exception:
            LOG.exception("polling Kafka failed; trying again")
            time.sleep(IDLE)
        if results:
            self._tell(self._take, client, results)
        return bool(results)

    def _tell(self, call: Callable[..., object], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits
            self.loop.call_soon_threadsafe(call, *values)
