"""Holds what stands in Redis against itself, page by page, while workers go on.

A record says where its task belongs. Each is read together with its places by one script, so that
what is judged was true at one moment; each mend is one script that first sees whether the record
still is as it was read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from rebound.adapters.stores import redis_places as places
from rebound.adapters.stores import redis_records as rows
from rebound.adapters.stores.redis_health import server_findings
from rebound.adapters.stores.redis_records import Row
from rebound.adapters.stores.redis_scripts import Script, Server
from rebound.domain import finding
from rebound.domain.finding import Damage, Finding, Report
from rebound.domain.task import Task
from rebound.ports import Examined

PAGE: Final = 500
AT_ONCE: Final = 50
"""Records that one script looks at: some milliseconds."""
BYTES: Final = 4 * 1024 * 1024
"""Bytes of records that one script reads."""


class Parted(Protocol):
    """A store in one part, or in several."""

    @property
    def parts(self) -> Sequence[tuple[Server, str]]:
        """Each prefix of keys with the server that has them."""
        ...

    async def aclose(self) -> None:
        """Release every connection."""
        ...


class Seen(NamedTuple):
    """A record, and the sets that have its id, at one moment."""

    row: Row | None
    """None: what stands there is no record."""
    stands: Mapping[str, float]


class RedisDoctor:
    """`ports.Examiner` of a store in Redis, which it closes in the end."""

    def __init__(
        self, store: Parted, *, lease: float, replicas: int = 0, shift: Callable[[], float] = float
    ) -> None:
        """`lease`: what a lease without an end gets, in seconds; so many `replicas` confirm writes.

        `shift` gives seconds that are added to the server's clock, for tests.
        """
        self._store = store
        self._lease = lease
        self._replicas = replicas
        self._shift = shift

    async def surroundings(self) -> Sequence[Finding]:
        found: list[Finding] = []
        for server, _ in self._store.parts:
            found += await server_findings(server, self._replicas)
        return list(dict.fromkeys(found))  # parts may share a server

    async def examine(self, *, repair: bool) -> Examined:
        report = Report()
        tasks, lanes = 0, set[str]()
        for part in self._store.parts:
            one = _Examination(part, report, self._lease, repair, rows.micros(self._shift()))
            await one.run()
            tasks, lanes = tasks + one.tasks, lanes | one.queues
        return Examined(tasks, len(lanes), report.findings())

    async def aclose(self) -> None:
        await self._store.aclose()


class _Examination:
    """One pass over the keys of one prefix."""

    def __init__(
        self, part: tuple[Server, str], report: Report, lease: float, repair: bool, shift: int
    ) -> None:
        self.tasks = 0
        self.queues: set[str] = set()
        self._server, self._prefix = part
        self._report = report
        self._lease = lease
        self._repair = repair
        self._shift = shift
        self._astray: set[str] = set()
        """Ids that are not in their lane; those of another release may be in another one."""
        self._scripts = {name: Script.load(name) for name in ("examine", "lane", "mend")}

    async def run(self) -> None:
        """Records, then lanes and lists, then what was not in its lane and in no other."""
        queues = self.queues
        async for keys in self._keys():
            names = [key.removeprefix(self._prefix) for key in keys]
            ids = [name[2:] for name in names if name.startswith("t:")]
            self.tasks += len(ids)
            await self._records(ids, last=False)
            for name in names:
                kind, _, rest = name.partition(":")
                if kind in ("d", "d!", "x", "h"):
                    queues.add(rest)
                elif kind in ("lanes", "lanes!", "waits"):
                    async for page in self._members(name):
                        queues.update(page)
        for queue in queues:
            for set_ in (*places.LINES, places.LEASES):
                async for page in self._members(set_ + queue):
                    await self._line(queue, page)
        for set_ in places.LISTS:
            async for page in self._members(set_):
                await self._list(page)
        await self._records(self._astray, last=True)
        for queue in queues:
            await self._lane(queue)

    # -- records -----------------------------------------------------------------------------

    async def _records(self, ids: Iterable[str], *, last: bool) -> None:
        """Judge each, a few at once."""
        every = list(ids)
        for at in range(0, len(every), AT_ONCE):
            await self._some(every[at : at + AT_ONCE], last=last)

    async def _some(self, left: list[str], *, last: bool) -> None:
        """Judge each by its record; again where it changed in between, for then it lives."""
        for _ in range(3):
            again: list[str] = []
            whole = await self._examine([(id_, "") for id_ in left], (), bodies=True)
            read = dict(zip(left, whole, strict=True))
            tasks = {id_: places.task(id_, seen.row) for id_, seen in read.items()}
            pairs = [(id_, task.queue if task else "") for id_, task in tasks.items()]
            for (id_, queue), seen in zip(pairs, await self._examine(pairs), strict=True):
                same = places.fields(read[id_].row) == places.fields(seen.row)
                if not same or not await self._judge(id_, queue, tasks[id_], seen, last=last):
                    again.append(id_)
            left = again

    async def _judge(
        self, id_: str, queue: str, task: Task | None, seen: Seen, *, last: bool
    ) -> bool:
        """Report what is wrong with one. False where it changed before it could be mended."""
        row = seen.row
        if row is not None and not (row.g or row.b):
            return True  # gone since it was listed, or what _list and _line will find
        stub = row is not None and row.b is None and row.f is not None
        if row is None or (task is None and not (stub and row.g)):
            listed = any(set_ in seen.stands for set_ in places.LISTS)
            wanted = {} if listed or row is None else {"by:dead": places.created(row)}
            self._report.add(finding.UNREADABLE, id_, mended=False)
            damages = {finding.UNLISTED} if wanted else set()
        else:
            wanted = places.wanted(row, task, self._lease)
            damages = places.damages(wanted, seen.stands)
        if not last and damages & {finding.UNQUEUED, finding.UNLEASED}:
            self._astray.add(id_)
            return True
        return not damages or await self._mend(damages, id_, queue, seen, wanted, places.SETS)

    # -- lists and lanes ---------------------------------------------------------------------

    async def _list(self, ids: Sequence[str]) -> None:
        """See whether the members of a list have records."""
        keys = [f"{self._prefix}t:{id_}" for id_ in ids]
        if not ids or await self._server.command("EXISTS", *keys) == len(ids):
            return
        for id_, seen in zip(ids, await self._examine([(i, "") for i in ids]), strict=True):
            if seen.row is not None and not (seen.row.g or seen.row.b) and seen.stands:
                await self._mend({finding.ORPHAN}, id_, "", seen, {}, places.LISTS)

    async def _line(self, queue: str, ids: Sequence[str]) -> None:
        """See whether the members of a lane wait or are leased."""
        sets = (*places.LINES, places.LEASES)
        pairs = [(id_, queue) for id_ in ids]
        for id_, seen in zip(ids, await self._examine(pairs, sets), strict=True):
            here = set(seen.stands)
            if seen.row is None or not here:
                continue
            if not (seen.row.g or seen.row.b):
                await self._mend({finding.ORPHAN}, id_, queue, seen, {}, sets)
                continue
            leased = places.is_leased(seen.row)
            wrong = here & {*places.LINES} if leased or places.is_over(seen.row) else set()
            damages = {finding.TWICE} if wrong else set()
            if not leased and places.LEASES in here:
                wrong, damages = wrong | {places.LEASES}, damages | {finding.PHANTOM}
            if here - wrong:
                self._astray.discard(id_)
            if damages:
                await self._mend(damages, id_, queue, seen, {}, tuple(wrong))

    async def _lane(self, queue: str) -> None:
        """See whether a lane is listed as it should be."""
        damage = places.lane_seen(await self._run("lane", queue)).damage
        if damage is not None:
            mending = self._repair and damage is not finding.UNVISITED
            if mending:
                await self._run("mend", queue, "", *[""] * 6)
            self._report.add(damage, queue, mended=mending)

    # -- their parts -------------------------------------------------------------------------

    async def _mend(
        self, damages: set[Damage], id_: str, queue: str, seen: Seen,
        wanted: Mapping[str, float], sets: Sequence[str],
    ) -> bool:  # fmt: skip
        """Report damage, and with `repair` put the id into those of `sets` that are `wanted`.

        False where the record has changed; then it is not reported.
        """
        if self._repair:
            seconds, micros = await self._server.command("TIME")
            now = int(seconds) * 1_000_000 + int(micros) + self._shift
            moves: list[Any] = []
            for set_ in sets:
                name = set_ + queue if set_.endswith(":") else set_
                if set_ in wanted and set_ not in seen.stands:
                    at = wanted[set_] + (now if set_ == places.LEASES else 0)
                    moves += name, f"{at:.0f}"
                elif set_ not in wanted and set_ in seen.stands:
                    moves += name, ""
            fields = [value or b"" for value in places.fields(seen.row)[:6]]
            if not await self._run("mend", queue, id_, *fields, *moves):
                return False
        for damage in damages:
            self._report.add(damage, id_, mended=self._repair)
        return True

    async def _examine(
        self,
        pairs: Sequence[tuple[str, str]],
        sets: Sequence[str] = places.SETS,
        *,
        bodies: bool = False,
    ) -> list[Seen]:
        """The record of each id, and where it stands in `sets`, those of its queue included."""
        seen: list[Seen] = []
        while len(seen) < len(pairs):
            flat = [value for pair in pairs[len(seen) :][:AT_ONCE] for value in pair]
            reply = await self._run("examine", int(bodies), BYTES, len(sets), *sets, *flat)
            for other, fields, scores in reply:
                found = zip(sets, scores, strict=True)
                stands = {set_: float(score) for set_, score in found if score is not None}
                seen.append(Seen(None if other else Row(*fields), stands))
        return seen

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._server.run(
            self._scripts[script], self._prefix, (self._shift, *arguments)
        )

    async def _keys(self) -> AsyncIterator[list[str]]:
        """Every key of the prefix, some of them more than once."""
        cursor, pattern = b"0", f"{self._prefix}*"
        while True:
            cursor, keys = await self._server.command(
                "SCAN", cursor, "MATCH", pattern, "COUNT", PAGE
            )
            yield [key.decode() for key in keys]
            if cursor == b"0":
                return

    async def _members(self, name: str) -> AsyncIterator[list[str]]:
        """Every member of a sorted set, some of them more than once."""
        cursor = b"0"
        while True:
            cursor, found = await self._server.command(
                "ZSCAN", self._prefix + name, cursor, "COUNT", PAGE
            )
            yield [member.decode() for member in found[::2]]
            if cursor == b"0":
                return
