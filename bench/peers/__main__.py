"""The rates of all five alone: `python -m bench.peers`; ROUNDS=n: other than three."""

import asyncio
import os
import statistics

from bench.peers import PEERS, deliver
from bench.servers import redis
from bench.sink import sink


async def main() -> None:
    rates: dict[str, list[float]] = {peer: [] for peer in PEERS}
    with redis() as broker, sink() as url:
        for _ in range(int(os.environ.get("ROUNDS", "3"))):
            for peer, what in PEERS.items():
                rates[peer].append(await deliver(peer, broker, url, what.count))
    for peer, all_ in rates.items():
        middle = statistics.median(all_)
        print(f"{peer:<20}{middle:>8,.0f} webhooks/s   ({min(all_):,.0f}–{max(all_):,.0f})")


if __name__ == "__main__":
    asyncio.run(main())
