"""Ids of Rebound's own."""

from __future__ import annotations

import os
import random
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


def test_a_program_that_seeds_its_chances_gets_other_ids_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    before = random.getstate()
    ids = set()
    for _ in range(3):
        random.seed(1)
        ids.add(uuid7())
    random.setstate(before)
    assert len(ids) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_processes_of_one_fork_give_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        os.write(into, uuid7().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(out, 36).decode() != uuid7()
    os.close(out)
    os.close(into)
