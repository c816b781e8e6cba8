"""What the benchmarks rely on: that the sink counts, and that the peers stay what they were."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.request import urlopen

import pytest
from bench import peers
from bench.arrivals import Arrivals
from bench.sink import sink

SINKS = ["python", "nginx"] if shutil.which("nginx") else ["python"]


@pytest.mark.parametrize("kind", SINKS)
def test_the_sink_counts_what_came_and_not_who_asked(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "python":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    with sink() as url:
        arrivals = Arrivals(url)
        assert arrivals.count() == 0
        for _ in range(3):
            urlopen(url, data=b"{}").close()
        assert [arrivals.count(), arrivals.count()] == [3, 3]
        assert Arrivals(url).count() == 0


@pytest.mark.parametrize("folder", sorted({peer.folder for peer in peers.PEERS.values()}))
def test_a_peer_is_pinned_to_versions_and_no_more(folder: str) -> None:
    lines = (Path(peers.__file__).parent / folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith(f"{folder}==") for line in lines)
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
