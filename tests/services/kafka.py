"""Apache Kafka for tests, benchmarks and `make services`: KRaft, one broker, loopback only."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.services.java import JVM, java

USERS = {"rebound": "rebound-secret", "stranger": "stranger-secret"}
"""Who may log in with SASL/PLAIN; what they may do is said with `KafkaBroker.allow`."""
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


def steady_port() -> int:
    """A free port below the range of outgoing connections.

    A broker is killed and started again on its port. Were that one of the ports that the system
    gives to clients, a client that knocks meanwhile could be given it, and even reach itself.
    """
    while True:
        with socket.socket() as s:
            port = random.randrange(15_000, 32_000)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def tls(certificates: Path) -> dict[str, str]:
    """Settings of a listener that asks for certificates: `broker.pem`, for those of `client.pem`.

    Each file has a key and its self-signed certificate.
    """
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "client.crt"),
        "ssl.client.auth": "required",
    }


def settings(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """server.properties, with a port for each protocol and for CONTROLLER.

    Who comes without a login is a super user; topics are made by hand.
    """
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(
            f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in ports
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{login} {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        # one broker, small, and no waiting for consumers that could still come
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        "log.cleaner.dedupe.buffer.size": "2097152",
        "controlled.shutdown.enable": "false",
        # a broker that was killed is let in again when its old session is over (default 9 s)
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


class KafkaBroker:
    """One broker; `kill` and `start` again keep its ports and data.

    `bootstrap` is for clients without a login, `sasl_bootstrap` for those of USERS, `tls_bootstrap`
    for those with a certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        certificates: Path | None = None,
        properties: Mapping[str, str] | None = None,
        options: tuple[str, ...] = JVM,
        outlives: bool = False,
    ) -> None:
        """`certificates` as for `tls`, `properties` of server.properties, `options` of Java.

        The broker ends with its starter, however that ends, unless it `outlives` it.
        """
        self.port, self.sasl_port, self.tls_port = port or steady_port(), steady_port(), 0
        ports = {"PLAINTEXT": self.port, "SASL_PLAINTEXT": self.sasl_port}
        own = dict(properties or {})
        if certificates is not None:
            self.tls_port = ports["SSL"] = steady_port()
            own |= tls(certificates)
        self.log = folder / "kafka.log"
        self._folder = folder
        self._options = options
        self._outlives = outlives
        self._guard: subprocess.Popen[bytes] | None = None
        self._file = folder / "server.properties"
        all_ = settings(folder, {**ports, "CONTROLLER": steady_port()}) | own
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(f"{name}={value}\n" for name, value in all_.items()))
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def sasl_bootstrap(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def tls_bootstrap(self) -> str:
        return f"127.0.0.1:{self.tls_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, topic: str) -> str:
        return f"kafka://{self.bootstrap}/{topic}"

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(quiet(self.bootstrap))
        return self._admin

    def start(self, seconds: float = 60.0) -> None:
        """Return when the broker answers; TimeoutError or RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            if not (self._folder / "data").exists():
                tool = java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c",
                            str(self._file), options=self._options)  # fmt: skip
                subprocess.run(tool, stdout=log, stderr=log, check=True, timeout=seconds)
            self._process = subprocess.Popen(
                java("kafka.Kafka", str(self._file), options=self._options),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        if not self._outlives:
            # its stdin ends when this process does, and only then
            self._guard = subprocess.Popen(
                ["sh", "-c", f"read _; kill -9 {self.pid}"],
                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(seconds)
        except BaseException:
            self.kill()
            raise

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for port in filter(None, (self.port, self.sasl_port, self.tls_port)):
            while not _listens(port):
                self._check(deadline)
                time.sleep(0.05)
        while True:
            self._check(deadline)
            try:
                if self.admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                continue

    def _check(self, deadline: float) -> None:
        assert self._process is not None
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        if self._process.poll() is not None:
            raise RuntimeError(f"Kafka ended with {self._process.returncode}:\n{tail}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"Kafka does not answer on {self.bootstrap}:\n{tail}")

    def kill(self) -> None:
        """As a crash: kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._admin = None
        self._end(signal.SIGTERM)

    def _end(self, with_signal: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._guard is not None:  # before its process number may be another's
            self._guard.kill()
            self._guard.communicate()
        process.send_signal(with_signal)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def create_topic(self, name: str, partitions: int = 1, **config: Any) -> str:
        """Make a topic (`max_message_bytes=…` is `max.message.bytes`) and wait for its leaders."""
        new = NewTopic(
            name, partitions, 1, config={k.replace("_", "."): str(v) for k, v in config.items()}
        )
        self.admin.create_topics([new])[name].result(30)
        deadline = time.monotonic() + 30
        while True:
            seen = self.admin.list_topics(name, timeout=10).topics[name]
            if len(seen.partitions) == partitions and all(
                p.leader >= 0 for p in seen.partitions.values()
            ):
                return name
            if time.monotonic() > deadline:
                raise TimeoutError(f"topic {name} has no leader")

    def allow(self, user: str, topic: str, *operations: AclOperation) -> None:
        """Let a user of USERS do what is named with one topic (WRITE and DESCRIBE by default)."""
        bindings = [
            AclBinding(
                ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*",
                operation, AclPermissionType.ALLOW,
            )
            for operation in operations or (AclOperation.WRITE, AclOperation.DESCRIBE)
        ]  # fmt: skip
        for result in self.admin.create_acls(bindings).values():
            result.result(30)


def quiet(bootstrap: str) -> dict[str, Any]:
    """Settings of a client whose broker may be away: it reconnects fast and prints nothing."""
    return {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 100,
            "broker.address.family": "v4"}  # fmt: skip


def login(user: str) -> dict[str, str]:
    """Settings of a client (librdkafka) that logs in at `sasl_bootstrap`."""
    return {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
            "sasl.username": user, "sasl.password": USERS[user]}  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
