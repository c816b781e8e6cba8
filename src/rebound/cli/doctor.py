"""`rebound doctor`: looks settings, store and what stands in it over, and mends what it may."""

# ruff: noqa: T201 - results go to stdout

from __future__ import annotations

import asyncio
import textwrap
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rebound import wiring
from rebound.cli.commands import FAILED, OK
from rebound.domain.errors import StoreUnavailable
from rebound.domain.finding import Finding, Severity, by_severity
from rebound.settings import SETTINGS, Config
from rebound.settings.addresses import host_and_port
from rebound.settings.risks import risks

WIDTH: Final = 100
NAMED: Final = 10
"""Ids or lanes that a paragraph names."""
BROKER_TIMEOUT: Final = 3.0


async def doctor(args: Namespace) -> int:
    """Print what was found, the worst first; 1 where something is wrong and was not mended."""
    config = Config.for_service(store_url=args.store_url)
    findings = [*risks(config), *await _brokers(config)]
    seen, more = await _store(config, repair=args.repair)
    findings = by_severity([*findings, *more])
    if args.json:
        for finding in findings:
            print(msgspec.json.encode(finding).decode())
    else:
        print(seen)
        for finding in findings:
            print(f"\n{_paragraph(finding)}")
        if not findings:
            print("no findings")
    return FAILED if any(finding.is_wrong for finding in findings) else OK


async def _store(config: Config, *, repair: bool) -> tuple[str, list[Finding]]:
    """A line about the store, and what was found there."""
    path = config.sqlite_path if config.store_kind == "sqlite" else ""
    if path == ":memory:":
        return f"{config.store_shown}: nothing to look at from outside", []
    if path and not Path(path).exists():
        return config.store_shown, [_missing(path)]
    examiner = wiring.make_examiner(config)
    began = time.monotonic()
    findings: list[Finding] = []
    try:
        findings += await examiner.surroundings()
        tasks, lanes, more = await examiner.examine(repair=repair)
    except StoreUnavailable as error:
        return config.store_shown, [*findings, _unusable(error)]
    finally:
        await examiner.aclose()
    took = time.monotonic() - began
    return (
        f"{config.store_shown}: {_count(tasks, 'task')} and {_count(lanes, 'lane')} looked over"
        f" in {took:.1f} s",
        [*findings, *more],
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _missing(path: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        title=f"there is no store {path}",
        meaning=f"No file is there, seen from {Path.cwd()}; a service makes it when it starts.",
        remedy="Give --store-url or STORE_URL as the service has it, with an absolute path:"
        " sqlite:////var/lib/rebound/rebound.db.",
    )


def _unusable(error: StoreUnavailable) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        title="the store cannot be used",
        meaning=f"{str(error).rstrip('.')}. Services answer 503 and nothing is delivered.",
        remedy="Mend that; services and workers go on by themselves. Then run this again.",
    )


async def _brokers(config: Config) -> list[Finding]:
    """Whether any broker of KAFKA_BROKERS answers, where the setting is used."""
    brokers = config.kafka_brokers
    if brokers == SETTINGS["kafka_brokers"].default:
        return []
    answers = await asyncio.gather(*map(_answers, brokers))
    silent = [broker for broker, answer in zip(brokers, answers, strict=True) if not answer]
    if not silent:
        return []
    return [
        Finding(
            severity=Severity.WARNING if any(answers) else Severity.ERROR,
            title=f"no connection to {', '.join(silent)} (KAFKA_BROKERS)",
            meaning="One broker that answers is enough to find the others."
            if any(answers)
            else "Records to kafka:///topic are not delivered; each goes by its task's policy.",
            remedy="See whether these brokers run and can be reached from this host.",
        )
    ]


async def _answers(broker: str) -> bool:
    host, port = host_and_port(broker)
    try:
        async with asyncio.timeout(BROKER_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port or 9092)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _paragraph(finding: Finding) -> str:
    """The finding for people, wrapped."""
    word = "MENDED" if finding.mended else finding.severity.upper()
    title = f"{finding.title[0].upper()}{finding.title[1:]}"
    parts = [f"{word}: {title}.", "" if finding.mended else finding.meaning, finding.remedy]
    if finding.subjects:
        parts.append(_named(finding.subjects, finding.count))
    return textwrap.fill(
        " ".join(filter(None, parts)), WIDTH, break_long_words=False, break_on_hyphens=False
    )


def _named(subjects: Sequence[str], count: int) -> str:
    left = count - NAMED
    more = f" and {left} more (--json names {len(subjects)})" if left > 0 else ""
    return f"[{', '.join(subjects[:NAMED])}{more}]"
