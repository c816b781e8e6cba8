"""Mutated bodies to a live service: each answer agrees with a second opinion, memory stays flat."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.fuzz.mutations import bodies
from tests.fuzz.oracle import Oracle, Verdict
from tests.fuzz.report import Row
from tests.fuzz.service import Service

WARM = 5
"""One part in so many comes before memory is measured."""
GROWTH = 24.0
"""MiB that memory may have grown by from there to the end."""


def run(service: Service, count: int, seed: int) -> list[Row]:
    """Send `count` bodies to `POST /tasks`."""
    place = urlsplit(service.url)
    wire = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    oracle = Oracle(_ask(wire, "GET", "/openapi.json")[1])
    wrong: list[str] = []
    taken, before = 0, 0.0
    for number, body in enumerate(bodies(random.Random(seed), count)):
        if number == count // WARM:
            before = service.rss
        verdict = oracle.judge(body)
        status, answer = _ask(wire, "POST", "/tasks", body)
        taken += status in (200, 201)
        if not verdict.fits(status, answer):
            wrong.append(_said(body, verdict, status, answer))
    after = service.rss
    rows = [
        Row("mutated bodies that a second validator judges alike", count, wrong,
            f"{taken:,} taken, {count - taken:,} refused"),
    ]  # fmt: skip
    grown = after - before
    flat = [] if grown < GROWTH else [f"memory grew from {before:.1f} to {after:.1f} MiB"]
    measured = f"{before:.1f} MiB after a fifth of them, {after:.1f} at the end"
    return [*rows, Row("memory of the service", count, flat, measured)]


def _ask(
    wire: http.client.HTTPConnection, method: str, path: str, body: bytes = b""
) -> tuple[int, Mapping[str, Any]]:
    wire.request(method, path, body, {"Content-Type": "application/json"})
    response = wire.getresponse()
    return response.status, json.loads(response.read())


def _said(body: bytes, verdict: Verdict, status: int, answer: Mapping[str, Any]) -> str:
    short = body if len(body) < 500 else body[:400] + b"..."
    return f"{status} {answer} but {verdict} for {short!r}"
