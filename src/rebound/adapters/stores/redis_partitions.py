"""The store in a Redis Cluster: eight parts, each a `RedisStore` in a slot of its own.

A task stays in the part that its id says, so that whatever happens to it touches one slot; a lane
has a share of its limit in each. Reasons: docs/adr/0017-parts-by-id-in-a-cluster.md.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from itertools import count
from typing import Final, TypeVar
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from rebound.adapters.stores import redis_finding as finding
from rebound.adapters.stores.redis import RedisStore
from rebound.adapters.stores.redis_connecting import Place, cluster
from rebound.adapters.stores.redis_scripts import Server
from rebound.domain.errors import StoreUnavailable
from rebound.domain.task import Task
from rebound.ports import Claimed, Filter, Found, Retention, Stored, Submission

PARTS: Final = 8
"""For good: it is part of where a task stands."""
FAILED_PAUSE: Final = 0.5
"""Seconds before a part that failed is asked again."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(namespace: str) -> list[str]:
    """The prefix of the keys of each part, so chosen that they lie evenly over the slots.

    Each in the middle half of its eighth, so that three masters or more have some each.
    """
    width = REDIS_CLUSTER_HASH_SLOTS // PARTS

    def fits(prefix: str, part: int) -> bool:
        place, within = divmod(key_slot(prefix.encode()), width)
        return place == part and width // 4 <= within < width * 3 // 4

    return [
        next(one for n in count() if fits(one := f"{{{namespace}:{part}.{n}}}:", part))
        for part in range(PARTS)
    ]


def share(total: int, part: int) -> int:
    """What one part gets of `total`, so that all of them together get just that."""
    return (total + part) // PARTS


def kept(retention: Retention, part: int) -> Retention:
    """Retention for one part."""
    return retention._replace(
        max_succeeded=share(retention.max_succeeded, part),
        max_stubs=share(retention.max_stubs, part),
    )


class RedisPartitions:
    """`ports.Store` in the parts of a Cluster."""

    name = "redis"

    def __init__(
        self,
        place: Place,
        *,
        namespace: str = "rebound",
        retention: Retention = Retention(),  # noqa: B008
        pool_size: int = 64,
        replicas: int = 0,
        look_every: float = 1.0,
        shift: Callable[[], float] | None = None,
    ) -> None:
        """At most `pool_size` connections to each node; `replicas` and `shift` as for `RedisStore`.

        `look_every`: after how many seconds a part is looked at that nothing is known of.
        """
        prefixes = spread(namespace)
        self._cluster = cluster(place, pool_size, prefixes)
        self._parts = [
            RedisStore(
                "",
                prefix=prefix,
                retention=kept(retention, part),
                server=self._cluster.part(prefix),
                replicas=replicas,
                shift=shift,
            )
            for part, prefix in enumerate(prefixes)
        ]
        self._look_every = look_every
        self._lines: dict[tuple[str, ...], Line] = {}

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> Sequence[str]:
        warnings = [warning for part in self._parts for warning in await part.open()]
        return list(dict.fromkeys(warnings))

    async def ping(self) -> None:
        await _all(part.ping() for part in self._parts)

    async def time(self) -> float:
        return await self._parts[0].time()

    async def aclose(self) -> None:
        await self._cluster.aclose()

    @property
    def parts(self) -> Sequence[tuple[Server, str]]:
        """Each prefix of keys with the server that has them, for the doctor."""
        return [one for part in self._parts for one in part.parts]

    # -- the hot path ------------------------------------------------------------------------

    async def add(self, submissions: Sequence[Submission], /) -> Sequence[Stored]:
        places = defaultdict(list)
        for n, one in enumerate(submissions):
            places[_part(one.task.id)].append(n)
        answers = await _all(
            self._parts[part].add([submissions[n] for n in numbers])
            for part, numbers in places.items()
        )
        numbered = {
            n: stored
            for numbers, answer in zip(places.values(), answers, strict=True)
            for n, stored in zip(numbers, answer, strict=True)
        }
        return [numbered[n] for n in range(len(submissions))]

    async def claim(
        self,
        limit: int,
        /,
        *,
        free: int,
        slots: int,
        kinds: Collection[str],
        lease: float,
        lane_limit: int,
        random: float,
    ) -> Claimed:
        line = self._lines.setdefault(tuple(kinds), Line(self._look_every))
        parts = line.begin(limit)
        replies = await asyncio.gather(
            *(
                self._parts[part].claim(
                    (limit + n) // len(parts),
                    free=math.ceil(free / PARTS),
                    slots=math.ceil(slots / PARTS),
                    kinds=kinds,
                    lease=lease,
                    lane_limit=max(1, share(lane_limit, part)),
                    random=random,
                )
                for n, part in enumerate(parts)
            ),
            return_exceptions=True,
        )
        return line.end(dict(zip(parts, replies, strict=True)))

    async def settle(self, tasks: Sequence[Task], /) -> Sequence[str]:
        return await self._lost(tasks, lambda part, some: part.settle(some))

    async def extend(self, tasks: Sequence[Task], /, *, lease: float) -> Sequence[str]:
        return await self._lost(tasks, lambda part, some: part.extend(some, lease=lease))

    async def hold(self, queue: str, /, *, seconds: float | None) -> None:
        await _all(part.hold(queue, seconds=seconds) for part in self._parts)

    async def limit(self, queue: str, /, *, in_flight: int | None) -> None:
        await _all(
            part.limit(queue, in_flight=in_flight and max(1, share(in_flight, n)))
            for n, part in enumerate(self._parts)
        )

    async def watch(self, kinds: Collection[str], wake: Callable[[], None], /) -> None:
        line = self._lines.setdefault(tuple(kinds), Line(self._look_every))
        channels = {
            channel: n for n, part in enumerate(self._parts) for channel in part.channels(kinds)
        }

        def woken(channel: str | None) -> None:
            line.wake(range(PARTS) if channel is None else [channels[channel]])
            wake()

        if not channels:
            await asyncio.Event().wait()
        await self._cluster.listen(list(channels), woken)

    # -- for people --------------------------------------------------------------------------

    async def get(self, id_: str, /) -> Task | None:
        return await self._parts[_part(id_)].get(id_)

    async def find(self, wanted: Filter, /, *, limit: int, cursor: str | None = None) -> Found:
        return await finding.find(self._page, wanted, limit, cursor)

    async def swap(self, before: Task, after: Task | None, /) -> bool:
        return await self._parts[_part(before.id)].swap(before, after)

    # -- their parts -------------------------------------------------------------------------

    async def _page(
        self, score: bytes, last: bytes, most: int, most_bytes: int, *sets: str
    ) -> finding.Page:
        limits = (most, most_bytes // PARTS)
        pages = await _all(part.page(score, last, *limits, *sets) for part in self._parts)
        return finding.merged(pages)

    async def _lost(
        self,
        tasks: Sequence[Task],
        verb: Callable[[RedisStore, Sequence[Task]], Awaitable[Sequence[str]]],
    ) -> Sequence[str]:
        places = defaultdict(list)
        for task in tasks:
            places[_part(task.id)].append(task)
        answers = await _all(verb(self._parts[part], some) for part, some in places.items())
        return [id_ for answer in answers for id_ in answer]


class Line:
    """When each part is to be looked at next by workers of the same kinds."""

    def __init__(self, look_every: float) -> None:
        self._look_every = look_every
        self._due = [0.0] * PARTS
        self._look = [0.0] * PARTS
        self._blocked: set[int] = set()

    def wake(self, parts: Iterable[int]) -> None:
        """Something may be due in `parts`."""
        for part in parts:
            self._due[part] = 0.0

    def begin(self, limit: int) -> list[int]:
        """The parts to look at, one at least and at most `limit`, longest ago looked at first.

        Those that left something because of the limits are looked at by every claim.
        """
        now = asyncio.get_running_loop().time()
        line = sorted(range(PARTS), key=self._look.__getitem__)
        parts = [
            part
            for part in line
            if min(self._due[part], self._look[part]) <= now or part in self._blocked
        ]
        parts = parts[:limit] or line[:1]  # for what time it is, if nothing else
        for part in parts:
            self._due[part] = math.inf  # unless a wake comes while it is looked at
        return parts

    def end(self, replies: dict[int, Claimed | BaseException]) -> Claimed:
        """All in one. Raises what a part raised where none gave out a task."""
        now = asyncio.get_running_loop().time()
        tasks: list[Task] = []
        buried: list[Task] = []
        errors = []
        at = 0.0
        for part, reply in replies.items():
            self._look[part] = now + self._look_every
            if isinstance(reply, BaseException):
                self._due[part] = min(self._due[part], now + FAILED_PAUSE)
                errors.append(reply)
                continue
            tasks += reply.tasks
            buried += reply.buried
            at = max(at, reply.now)
            self._blocked.discard(part)
            if reply.blocked:
                self._blocked.add(part)
            if reply.next_due is not None:
                self._due[part] = min(self._due[part], now + reply.next_due - reply.now)
        if errors and (not tasks or not all(isinstance(e, StoreUnavailable) for e in errors)):
            raise errors[0]
        due = min(self._due)
        next_due = at + due - now if due < math.inf else None
        return Claimed(tasks, at, next_due, bool(self._blocked), buried)


def _part(id_: str) -> int:
    return crc32(id_.encode()) % PARTS


async def _all(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """The results, when all calls have ended. Raises the first error among them."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
