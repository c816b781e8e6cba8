"""Ids of Rebound's own."""

from __future__ import annotations

import time
from uuid import RFC_4122, UUID

import pytest

from rebound.ids import uuid7


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    text = uuid7()
    one = UUID(text)
    assert (str(one), one.version, one.variant) == (text, 7, RFC_4122)
    assert before <= one.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_of_one_moment_differ_and_those_of_a_later_one_sort_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_732_800_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now * 1_000_000)
    at_once = {uuid7() for _ in range(1000)}
    now += 1
    assert len(at_once) == 1000
    assert max(at_once) < uuid7()
