"""The task that a record becomes when its handler has failed."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from rebound.domain import validation
from rebound.domain.attempt import DeadReason, Leg, State
from rebound.domain.backoff import STRATEGIES, Backoff, Strategy, delay
from rebound.domain.destination import Base64, Destination, HeaderList
from rebound.domain.errors import Reject, ValidationError
from rebound.domain.record import ERROR, EXPIRES, FAILURES, GROUP, TIMESTAMP, Header, Record
from rebound.domain.task import Task

DELIVERIES: Final = 100
"""Attempts to bring a record back. They have nothing to do with how often its handler may fail."""
DELIVERY_DELAY: Final = 1.0
DELIVERY: Final = Backoff(max_delay=600, jitter="equal")
"""With these the brokers may be away for about half a day; then comes the dead leg."""
LONGEST: Final = 31_536_000.0
MAX_ID: Final = 255
MAX_ERROR: Final = 256
"""Characters of the handler's error that a dead letter tells."""


class RetryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Task's policy, for records: how often, and when, the handler gets a record again."""

    max_retries: Annotated[int, Meta(ge=0, le=100)] = 5
    """Failures of the handler after which the record is dead; 0 and 1 both mean one."""
    base_delay: Annotated[float, Meta(ge=0.001, le=86400)] = 10
    """Seconds; the k-th failure waits the k-th delay."""
    backoff: Backoff | None = None
    ttl: Annotated[float, Meta(ge=0.001, le=31_536_000)] | None = None
    """Seconds from the first failure after which the record is dead as `expired`."""
    client_id: Annotated[str, Meta(max_length=255)] = ""
    is_priority: bool = False


def policy(given: RetryPolicy | Task | Mapping[str, object] | None) -> RetryPolicy:
    """`given` as a RetryPolicy; of a Task only the policy counts. Raises ValidationError."""
    if given is None:
        return RetryPolicy()
    if isinstance(given, Task):
        return RetryPolicy(**{name: getattr(given, name) for name in RetryPolicy.__struct_fields__})
    try:
        return msgspec.convert(msgspec.to_builtins(given), RetryPolicy)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValidationError(f"retry: {error}", field="retry") from None


class Redelivery(NamedTuple):
    """What all records of one consumer have in common."""

    group: str
    brokers: str
    """As in `kafka://brokers/topic`."""
    retry: RetryPolicy
    dead_topic: str | None
    strategies: Mapping[str, Strategy] = STRATEGIES

    def check(self, topics: Iterable[str]) -> None:
        """Raise ValidationError where failures of these topics could not become tasks."""
        for topic in topics:
            for error in (ValueError(), Reject()):
                task = self.task(Record(topic, 0, 0, None, b""), error, 0.0)
                valid = validation.from_python(task)
                validation.check(valid, max_payload=1, strategies=self.strategies)

    def is_foreign(self, record: Record) -> bool:
        """True where the failure of another group brought the record back."""
        return record.group is not None and record.group != self.group

    def task(self, record: Record, error: BaseException, now: float) -> Task:
        """What to store when the handler raised `error`, at `now` seconds since the epoch.

        It brings the record back after the policy's delay, or to the dead topic at once.
        """
        failures, most = record.failures + 1, max(self.retry.max_retries, 1)
        again = failures < most and not isinstance(error, Reject)
        task = self._task(record, error, failures if again else None)
        if not again:
            return replace(task, failures=most, max_retries=most)
        if self.retry.ttl is not None:
            task = _expiring(task, record.expires, self.retry.ttl, now)
        backoff, base = self.retry.backoff or Backoff(), self.retry.base_delay
        # The same chance for the same record: a repeated submission must be the same task.
        wait = delay(backoff, base, failures, _chance(task.id, self.group), self.strategies)
        return replace(
            task, delay=min(wait, LONGEST), max_retries=DELIVERIES, base_delay=DELIVERY_DELAY,
            backoff=DELIVERY,
        )  # fmt: skip

    def buried(self, record: Record, error: BaseException, why: str) -> Task:
        """The dead letter of a record that no store takes, for a producer. Needs a dead topic."""
        return replace(
            self._task(record, error, None), state=State.DELIVERING, leg=Leg.DEAD,
            dead_reason=DeadReason.REJECTED, main_error=why,
        )  # fmt: skip

    def elsewhere(self, task: Task) -> Task:
        """The same where its id is taken by the task of another group, cluster or former topic."""
        to = task.destination
        own = _short(self.group, to.address, str(to.timestamp))
        return replace(task, id=f"{task.id[: MAX_ID - len(own) - 1]}:{own}")

    def _task(self, record: Record, error: BaseException, failures: int | None) -> Task:
        headers = record.own_headers
        data, encoding = _text(record.value)
        return Task(
            id=_id(record),
            source=self.group,
            destination=Destination(
                url=f"kafka://{self.brokers}/{record.topic}",
                headers=_listed(headers, {FAILURES: failures, GROUP: self.group}),
                partition=record.partition,
                timestamp=record.timestamp,
            ),
            dead_destination=self._dead(record, None if failures else error),
            base_delay=self.retry.base_delay,
            backoff=self.retry.backoff,
            client_id=self.retry.client_id,
            is_priority=self.retry.is_priority,
            message_data=data,
            message_encoding=encoding,
            message_key=None if record.key is None else _json(record.key),
        )

    def _dead(self, record: Record, error: BaseException | None) -> Destination | None:
        """Without partition, of which the dead topic may have fewer, and written when it is.

        A topic that keeps records for some days would drop an old one at once.
        """
        if self.dead_topic is None:
            return None
        said = None if error is None else _said(error)
        return Destination(
            url=f"kafka://{self.brokers}/{self.dead_topic}",
            headers=_listed(record.own_headers, {TIMESTAMP: record.timestamp, ERROR: said}),
        )


def same_record(stored: Task, task: Task) -> bool:
    """True where `stored` is the task of the same record, though perhaps of another policy."""

    def record(one: Task) -> tuple[object, ...]:
        to = one.destination
        return (
            one.source, to.address, to.partition, to.timestamp, one.message_key, one.message_data,
            one.message_encoding,
        )  # fmt: skip

    return record(stored) == record(task)


def _expiring(task: Task, expires: int | None, ttl: float, now: float) -> Task:
    """With what is left of the `ttl`, which began at the first failure."""
    end = int((now + ttl) * 1000) if expires is None else expires
    to = task.destination
    headers: HeaderList = [*(to.headers or ()), (EXPIRES, str(end))]
    left = ttl if expires is None else min(max(0.001, end / 1000 - now), LONGEST)
    return replace(task, ttl=left, destination=replace(to, headers=headers))


def _id(record: Record) -> str:
    """`{topic:partition}:offset`: the part in braces keeps a partition in one place."""
    end = f":{record.partition}}}:{record.offset}"
    topic = record.topic
    if len(topic) + len(end) + 1 > MAX_ID:
        topic = f"{topic[: MAX_ID - len(end) - 14]}~{_short(topic)}"
    return f"{{{topic}{end}"


def _short(*parts: str) -> str:
    """Twelve characters that differ where `parts` do."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=6).hexdigest()


def _chance(*parts: str) -> float:
    """A number in [0, 1) that is always the same for the same parts."""
    return int(_short(*parts), 16) / 2**48


def _listed(headers: tuple[Header, ...], ours: Mapping[str, object]) -> HeaderList:
    """Headers as a destination has them, with those of `ours` that are not None."""
    listed: HeaderList = [(n, None if v is None else _json(v)) for n, v in headers]
    return listed + [(n, str(v)) for n, v in ours.items() if v is not None]


def _text(value: bytes | None) -> tuple[str | None, str]:
    """`message_data` and `message_encoding`."""
    if value is None:
        return None, "text"
    try:
        return value.decode(), "text"
    except UnicodeDecodeError:
        return b64encode(value).decode(), "base64"


def _json(value: bytes) -> str | Base64:
    """A key, or the value of a header."""
    data, encoding = _text(value)
    return data or "" if encoding == "text" else Base64(data or "")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_ERROR].encode(errors="replace").decode()
