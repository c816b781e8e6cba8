"""Apache Kafka's programs. Maven fetches them (`pom.xml`) to `target/`, where they stay.

KAFKA_VERSION names another version than the pom's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "target"
NEEDED = 17
"""Oldest Java that runs the broker."""
# starts in half the time of the defaults, and a test's load never reaches what it costs
JVM = ("-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def java_version() -> int:
    """Which Java there is; 0 where there is none."""
    if shutil.which("java") is None:
        return 0
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def folder_of_jars() -> Path:
    """Where Kafka's files are, or will be after `jars`; another place when the pom changes."""
    pom = (HERE / "pom.xml").read_bytes() + " ".join(_version()).encode()
    return TARGET / f"kafka-{hashlib.sha256(pom).hexdigest()[:12]}"


def _version() -> list[str]:
    version = os.environ.get("KAFKA_VERSION")
    return [f"-Dkafka.version={version}"] if version else []


def jars() -> Path:
    """Folder with Kafka's files. Raises CalledProcessError where Maven cannot fetch them."""
    folder = folder_of_jars()
    if not folder.exists():
        TARGET.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TARGET) as fresh:
            _copy(Path(fresh) / "jars")
            try:
                (Path(fresh) / "jars").rename(folder)
            except OSError:  # another run was faster
                if not folder.exists():
                    raise
    return folder


def _copy(folder: Path) -> None:
    subprocess.run(
        ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",
         f"-DoutputDirectory={folder}", *_version()],
        cwd=HERE, check=True, timeout=600,
    )  # fmt: skip


def console_producer() -> str:
    """Kafka's own producer for keys and values on stdin."""
    old = os.environ.get("KAFKA_VERSION", "").startswith(("2.", "3."))
    return "kafka.tools.ConsoleProducer" if old else "org.apache.kafka.tools.ConsoleProducer"


def java(main: str, *arguments: str, options: tuple[str, ...] = JVM) -> list[str]:
    """The command that runs one of Kafka's programs."""
    return ["java", *options, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", f"{jars()}/*", main, *arguments]  # fmt: skip
