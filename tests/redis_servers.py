"""Real Redis in the forms of production: a master with replicas and Sentinels, a Cluster, TLS.

Each node is a process of its own, on free loopback ports, that a test may stop, kill, freeze and
start again.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from tests.conftest import free_port, need

SILENT_AFTER = 1000
"""Milliseconds after which a node that says nothing is held to be down."""
SLOTS = 16384
QUICK = ("SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200, "PING-PERIOD", 200)
"""Lets Sentinels, which look about every two to ten seconds, find each other sooner."""


def until(what: str, holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when `holds`; a server that does not answer yet counts as no."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except RedisError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"still not: {what}")


def follow(master: Node, replicas: int) -> bool:
    """Whether so many replicas have everything that `master` has."""
    with Redis(port=master.port, socket_timeout=2) as client:
        client.publish("follow", "")  # WAIT is about what its own connection has written
        return int(client.wait(replicas, 1000)) >= replicas


@contextmanager
def stopped_if_broken(group: Any) -> Iterator[None]:
    """Stop what runs of a group that does not come up."""
    try:
        yield
    except BaseException:
        group.stop()
        raise


class Node:
    """One redis-server, which keeps its folder, port and configuration when it is started again."""

    def __init__(self, folder: Path, *lines: str, sentinel: bool = False, tls: bool = False):
        """`lines` are those of redis.conf; `tls` leaves no port without it."""
        folder.mkdir(parents=True)
        self.port = free_port()
        self._port_name = "tls-port" if tls else "port"
        self._program = [need("redis-server"), str(folder / "redis.conf")]
        self._program += ["--sentinel"] if sentinel else []
        self._process: subprocess.Popen[bytes] | None = None
        common = ["bind 127.0.0.1", f"{self._port_name} {self.port}", f"dir {folder}"]
        common += ["port 0"] if tls else []
        common += [] if sentinel else ['save ""', "repl-diskless-sync-delay 0"]
        (folder / "redis.conf").write_text("\n".join([*common, *lines, ""]))
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(self._program, stdout=subprocess.DEVNULL)

    def stop(self, with_signal: int = signal.SIGKILL) -> None:
        """End it; nothing happens to one that has ended."""
        if self._process is not None:
            self._process.send_signal(with_signal)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hang until `thaw`: connections stay, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | int, **options: Any) -> Any:
        """The answer to one command. Raises RedisError."""
        client = Redis(port=self.port, decode_responses=True, socket_timeout=2, **options)
        with client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def info(self, name: str) -> Any:
        """One value of INFO; None where it has none of that name."""
        return self.ask("INFO").get(name)


class Sentinels:
    """A master, its replicas and the Sentinels that watch it under the name `mymaster`."""

    name = "mymaster"

    def __init__(
        self, folder: Path, *lines: str, replicas: int = 1, sentinels: int = 3, password: str = ""
    ):
        """`lines` of redis.conf for the data; `password` is that of the Sentinels."""
        self.master = Node(folder / "data0", *lines)
        behind = f"replicaof 127.0.0.1 {self.master.port}"
        self.data = [self.master]
        self.data += [Node(folder / f"data{n + 1}", behind, *lines) for n in range(replicas)]
        self.sentinels: list[Node] = []
        with stopped_if_broken(self):
            until("the replicas follow", self._in_step)
            watch = [
                f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} {sentinels // 2 + 1}",
                f"sentinel down-after-milliseconds {self.name} {SILENT_AFTER}",
                f"sentinel failover-timeout {self.name} 1000",
            ]
            if password:
                watch += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
            for n in range(sentinels):
                self.sentinels.append(Node(folder / f"sentinel{n}", *watch, sentinel=True))
            login = {"password": password} if password else {}
            until("the Sentinels are up", lambda: all(s.ask(*QUICK, **login) for s in self))
            until("the Sentinels know each other", lambda: all(self._knows(s, login) for s in self))

    def __iter__(self) -> Any:
        return iter(self.sentinels)

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.sentinels]

    def stop(self) -> None:
        for node in (*self.sentinels, *self.data):
            node.stop()

    def _in_step(self) -> bool:
        return follow(self.master, len(self.data) - 1)

    def _knows(self, sentinel: Node, login: dict[str, str]) -> bool:
        found = sentinel.ask("SENTINEL", "MASTER", self.name, **login)
        others, replicas = len(self.sentinels) - 1, len(self.data) - 1
        return (int(found["num-other-sentinels"]), int(found["num-slaves"])) == (others, replicas)


class Cluster:
    """A Redis Cluster; the replicas of the master `nodes[n]` stand behind all masters."""

    def __init__(self, folder: Path, *lines: str, masters: int = 3, replicas: int = 1):
        """`replicas` of each master."""
        settings = (
            "cluster-enabled yes", f"cluster-node-timeout {SILENT_AFTER}",
            "cluster-replica-validity-factor 0",
        )  # fmt: skip
        count = masters * (1 + replicas)
        ports = [free_port() for _ in range(count)]
        self.nodes = [
            Node(folder / f"node{n}", *settings, f"cluster-port {ports[n]}", *lines)
            for n in range(count)
        ]
        self.masters = self.nodes[:masters]
        with stopped_if_broken(self):
            self._join(ports)

    def _join(self, ports: Sequence[int]) -> None:
        masters = len(self.masters)
        until("every node is up", lambda: all(node.ask("PING") for node in self.nodes))
        for n, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, ports[n])
        edges = [SLOTS * n // masters for n in range(masters + 1)]
        for master, first, end in zip(self.masters, edges, edges[1:], strict=False):
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        until("every node knows the others", lambda: all(map(self._knows_all, self.nodes)))
        for n, replica in enumerate(self.nodes[masters:]):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(self.masters[n % masters]))
        until("the cluster is complete", self._is_complete)

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    def id_of(self, node: Node) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    def owner(self, slot: int, nodes: Sequence[Node] | None = None) -> Node:
        """The master that has `slot` by what the first of `nodes` that answers says."""
        for asked in nodes or self.nodes:
            try:
                ranges = asked.ask("CLUSTER", "SLOTS")
            except RedisError:
                continue
            for first, last, (_, port, *_), *_ in ranges:
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody has slot {slot}")

    def begin_move(self, slot: int, to: Node) -> Callable[[], None]:
        """Set `slot` on its way, and return what moves the keys and ends the move."""
        source = self.owner(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))

        def end() -> None:
            while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            for node in (to, source):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(to))

        return end

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def _knows_all(self, node: Node) -> bool:
        known = node.ask("CLUSTER", "NODES").splitlines()
        return len(known) == len(self.nodes) and all(" connected" in line for line in known)

    def _is_complete(self) -> bool:
        each = len(self.nodes) // len(self.masters) - 1
        states = [node.ask("CLUSTER", "INFO") for node in self.nodes]
        in_step = all(follow(master, each) for master in self.masters)
        return in_step and all("cluster_state:ok" in state for state in states)
