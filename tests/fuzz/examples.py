"""Hypothesis: tasks, whole requests, settings and Retry-After, each in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as limits
from hypothesis import strategies as st

from rebound.adapters.api.app import Api
from rebound.adapters.stores.sqlite import SqliteStore
from tests.fuzz import configured, waits
from tests.fuzz.mutations import NAMES, VALID, VALUES
from tests.fuzz.oracle import Oracle
from tests.fuzz.report import Row
from tests.unit.asgi import call, document, make_api, make_engine
from tests.unit.test_validation_any import names, parts, tasks, values

SLOW = timedelta(seconds=10)
"""What takes longer hangs."""
STATUSES = (200, 201, 204, 400, 403, 404, 405, 409, 413, 415)
WHOLE = b'{"source":"s","destination":{"url":"http://a.test"},"%s":%s}'

short_values = st.sampled_from([value.encode() for value in VALUES if len(value) < 5_000])
bodies = st.one_of(
    st.binary(),
    values.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda valid, fields: json.dumps({**valid, **fields}).encode(),
        st.sampled_from([{}, *VALID]),
        st.dictionaries(names, values | parts, max_size=3),
    ),
    tasks.map(msgspec.json.encode),
    st.builds(lambda name, value: WHOLE % (name.encode(), value), names, short_values),
)
ids = st.sampled_from(["a", "batch", "%", "%2F", "..", "x" * 255, "x" * 256, "%00", "é"])
paths = st.one_of(
    st.binary().map(lambda rest: b"/" + rest),
    st.sampled_from(["/tasks", "/tasks/batch", "/health", "/livez", "/readyz", "/docs", "//"])
    .map(str.encode),
    st.builds("/tasks/{}{}".format, ids | st.sampled_from(NAMES),
              st.sampled_from(["", "/", "/replay", "/cancel", "/x"])).map(str.encode),
)  # fmt: skip
methods = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", ""]
)
queries = st.binary() | st.lists(
    st.builds("{}={}".format, st.sampled_from(["state", "limit", "cursor", "source", "x", ""]),
              st.sampled_from(["", "1", "dead", "%", "%FF", "9" * 30, "a&b", "\x00"])),
    max_size=3,
).map("&".join).map(str.encode)  # fmt: skip
values_of_headers = st.binary(max_size=9) | st.sampled_from(
    [b"application/json", b"application/json; charset=x", b"http://a", b"none", b"7", b'"', b'"\\"']
)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"content-type", b"origin", b"host", b"sec-fetch-site", b"x"])
        | st.just(b"idempotency-key"),
        values_of_headers,
    )
    # The server in front lets nothing else pass.
    | st.tuples(st.just(b"content-length"), st.integers(0, 2**63).map(lambda n: b"%d" % n)),
    max_size=4,
)


class Run(NamedTuple):
    """How many examples, and which."""

    count: int
    seed: int

    def row(self, what: str, test: Callable[..., None], *strategies: Any) -> Row:
        """Call `test` with `count` examples of what `strategies` make."""
        made = 0

        def counted(example: tuple[Any, ...]) -> None:
            nonlocal made
            made += 1
            test(*example)

        limited = limits(
            max_examples=self.count, deadline=SLOW, database=None, phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )  # fmt: skip
        failures = []
        try:
            limited(seed(self.seed)(given(st.tuples(*strategies))(counted)))()
        except Exception as error:
            failures.append("\n".join([repr(error), *getattr(error, "__notes__", [])]))
        return Row(what, made, failures, "hypothesis")


def run(count: int, seed: int) -> list[Row]:
    """`count` examples in all."""
    part, half = Run(count // 10, seed), Run(count // 5, seed)
    loop = asyncio.new_event_loop()
    store = SqliteStore(":memory:")
    loop.run_until_complete(store.open())
    app = make_api(make_engine(store))
    oracle = Oracle(document())

    def task(body: bytes) -> None:
        reply = loop.run_until_complete(call(app, "POST", "/tasks", body))
        verdict = oracle.judge(body)
        assert verdict.fits(reply.status, reply.json), (reply, verdict)

    def request(*parts: Any) -> None:
        assert loop.run_until_complete(status(app, *parts)) in STATUSES

    try:
        return [
            half.row("tasks that a second validator judges alike", task, bodies),
            part.row("whole requests", request, methods, paths, queries, headers, bodies),
            Run(3 * part.count, seed).row(
                "settings", configured.check, configured.variables, configured.flags
            ),
            Run(4 * part.count, seed).row("Retry-After", waits.check, waits.values),
        ]
    finally:
        loop.run_until_complete(store.aclose())
        loop.close()


async def status(
    app: Api,
    method: str,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> int:
    """What a request is answered with, of whatever bytes."""
    scope = {
        "type": "http", "method": method, "raw_path": path, "query_string": query,
        "headers": headers,
    }  # fmt: skip
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        found.append(message.get("status", 0))

    await app(scope, receive, send)
    return found[0]
