"""`make services`: a Kafka that runs on until `make stop`, at 127.0.0.1:9092 where that is free."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from tests.services.java import NEEDED, TARGET, folder_of_jars, java_version
from tests.services.kafka import KafkaBroker

RUNNING = TARGET / "running.json"


def start() -> int:
    if java_version() < NEEDED:
        print(f"Kafka needs Java >= {NEEDED}: apt-get install default-jre-headless")
        return 1
    if shutil.which("mvn") is None and not folder_of_jars().exists():
        print("Kafka is fetched by Maven: apt-get install maven")
        return 1
    found = running()
    if found is None:
        found = begin()
    print(f"Kafka: KAFKA_BROKERS={found['brokers']} (process {found['pid']}, log {found['log']})")
    print("topics are made on first use; `make stop` ends it and removes its data")
    return 0


def begin() -> dict[str, str]:
    folder = Path(tempfile.mkdtemp(prefix="rebound-kafka-"))
    broker = KafkaBroker(
        folder,
        port=9092 if free(9092) else None,
        properties={"auto.create.topics.enable": "true", "num.partitions": "4"},
        outlives=True,
    )
    broker.start()
    found = {"pid": str(broker.pid), "brokers": broker.bootstrap, "log": str(broker.log)}
    RUNNING.write_text(json.dumps(found))
    return found


def running() -> dict[str, str] | None:
    """What `start` wrote, if that process is there and still is a Kafka."""
    try:
        found: dict[str, str] = json.loads(RUNNING.read_text())
        command = Path(f"/proc/{found['pid']}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return found if b"kafka.Kafka" in command.split(b"\0") else None


def stop() -> int:
    found = running()
    if found is not None:
        os.kill(int(found["pid"]), signal.SIGTERM)
        for _ in range(200):
            if running() is None:
                break
            time.sleep(0.05)
        else:
            os.kill(int(found["pid"]), signal.SIGKILL)
        shutil.rmtree(Path(found["log"]).parent, ignore_errors=True)
        print(f"stopped: process {found['pid']}")
    RUNNING.unlink(missing_ok=True)
    return 0


def free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    sys.exit({"start": start, "stop": stop}[sys.argv[1]]())
