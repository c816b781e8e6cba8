"""The doctor beside workers that are busy: it has nothing to say and nothing to mend."""

from __future__ import annotations

import asyncio

from aiohttp import web

from rebound import Config, wiring
from tests.e2e.conftest import Got, Receiver, Service

TASKS = 500


def moody(got: Got) -> web.Response:
    """A third of first attempts fail."""
    return web.Response(status=500 if got.attempt == 1 and hash(got.id) % 3 == 0 else 200)


async def test_beside_busy_workers_of_which_one_is_killed_a_doctor_finds_nothing_to_mend(
    service: Service, receiver: Receiver, store: dict[str, str]
) -> None:
    receiver.answers["/moody"] = moody
    short = {"LEASE": "1s", "RETENTION_SUCCEEDED": "300ms", "DEDUP_WINDOW": "600ms"}
    await service.serve("serve", CONCURRENCY="40", **short)
    killed = service.run("work", CONCURRENCY="20", LANE_CONCURRENCY="3", **short)
    submitting = asyncio.create_task(
        service.create_many(
            [
                {
                    "id": f"t{n}", "destination": {"url": receiver.url("/moody")},
                    "lane": f"lane{n % 20}", "is_priority": n % 7 == 0,
                    "base_delay": 0.2, "delay": n % 5 / 10,
                }
                for n in range(TASKS)
            ]
        )
    )  # fmt: skip
    config = Config(store_url=store["STORE_URL"], namespace=store.get("NAMESPACE", "rebound"))
    examiner = wiring.make_examiner(config)
    looks, most = 0, 0
    try:
        async with asyncio.timeout(60):
            while len(receiver.counts()) < TASKS or looks < 5:
                seen = await examiner.examine(repair=True)
                assert list(seen.findings) == []
                looks, most = looks + 1, max(most, seen.tasks)
                if killed.alive and len(receiver.counts()) > TASKS / 3:
                    killed.kill()
    finally:
        await submitting
        await examiner.aclose()
    assert most > TASKS / 4
