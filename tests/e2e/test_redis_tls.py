"""Redis over TLS, with a private authority and certificates of clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebound import Config, Destination, Rebound, StoreUnavailable, Task
from tests.certificates import sign
from tests.redis_servers import Node


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, and what it signed for a server and for a client."""
    folder = tmp_path_factory.mktemp("certificates")
    sign(folder, "IP:127.0.0.1", "server", "client")
    return folder


@pytest.fixture
def secure(tmp_path: Path, certificates: Path) -> Iterator[Node]:
    """A server that speaks TLS alone, with clients that show a certificate."""
    lines = {
        "tls-cert-file": "server.pem", "tls-key-file": "server.key", "tls-ca-cert-file": "ca.pem",
    }  # fmt: skip
    node = Node(
        tmp_path / "redis", *(f"{k} {certificates / v}" for k, v in lines.items()), tls=True
    )
    yield node
    node.stop()


async def test_client_certificate_signed_by_a_private_authority_is_let_in_and_no_other(
    secure: Node, certificates: Path
) -> None:
    task = Task(source="tests", destination=Destination(url="http://one.test"), delay=60)
    known = {"redis_addr": secure.address, "redis_tls_ca": str(certificates / "ca.pem")}
    shown = {
        "redis_tls_cert": str(certificates / "client.pem"),
        "redis_tls_key": str(certificates / "client.key"),
    }
    async with Rebound(Config(**known, **shown), worker=False) as rebound:
        assert (await rebound.create_task(task)).id
    for refused in (known, {"redis_addr": secure.address, "redis_tls": "on", **shown}):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await Rebound(Config(**refused), worker=False).start()
