"""Imports point one way, files stay small: the rules of the house, checked."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "rebound"
INNER = ("ports", "accepting", "attempting", "engine", "worker", "batcher")
FILES = sorted(SOURCE.rglob("*.py"))
THIRD_PARTY = {
    "adapters/stores/sqlite": {"apsw"},
    "adapters/stores/redis": {"redis", "hiredis"},
    "adapters/stores/records": set(),
    "adapters/producers/http": {"aiohttp", "yarl", "multidict"},
    "adapters/producers/failures": {"aiohttp"},
    "adapters/producers/answers": {"aiohttp"},
    "adapters/producers/resolver": {"aiohttp"},
    "adapters/producers/kafka": {"confluent_kafka"},
    "adapters/producers/provenance": set(),
    "adapters/consumers": {"confluent_kafka"},
    "adapters/listeners": set(),
    "adapters/api": {"yaml"},
    "frameworks/starlette": {"starlette"},
    "frameworks/django": {"django", "asgiref"},
}
"""The one outside library of each adapter; msgspec is everybody's."""


def name_of(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").as_posix()


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(file: str) -> tuple[str, ...]:
    """What a module of Rebound may import of Rebound."""
    if file.startswith("domain/"):
        return ("rebound.domain",)
    if file == "ports":
        return ("rebound.domain",)
    if file == "batcher":
        return ("rebound.domain.errors",)
    if file == "accepting":
        return ("rebound.domain", "rebound.ports", "rebound.attempting", "rebound.ids")
    if file == "attempting":
        return ("rebound.domain", "rebound.ports")
    if file == "engine":
        inner = ("rebound.accepting", "rebound.attempting", "rebound.batcher")
        return ("rebound.domain", "rebound.ports", *inner)
    if file == "worker":
        return ("rebound.domain", "rebound.ports", "rebound.engine")
    if file.startswith("adapters/api"):
        return ("rebound.domain", "rebound.ports", "rebound.engine", "rebound.adapters.api")
    if file.startswith("adapters/"):
        own = "rebound." + file.rpartition("/")[0].replace("/", ".")
        return ("rebound.domain", "rebound.ports", own)
    return ("rebound",)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_inwards(file: Path) -> None:
    may = allowed(name_of(file))
    for name in imports(file):
        if name.split(".")[0] == "rebound" and name not in ("rebound", "rebound.__version__"):
            assert any(name == m or name.startswith(m + ".") for m in may), (
                f"{name_of(file)} imports {name}"
            )


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_domain_knows_no_io_and_adapters_one_library(file: Path) -> None:
    name = name_of(file)
    outside = {
        i.split(".")[0]
        for i in imports(file)
        if i.split(".")[0] not in sys.stdlib_module_names and not i.startswith("rebound")
    } - {"msgspec"}
    if name.startswith("domain/") or name in INNER:
        assert not outside
    for prefix, library in THIRD_PARTY.items():
        if name.startswith(prefix):
            assert outside <= library, f"{name} imports {outside}"


@pytest.mark.parametrize(
    "file", [f for f in FILES if name_of(f).startswith("domain/")], ids=name_of
)
def test_the_domain_has_no_clock_no_chance_and_no_log(file: Path) -> None:
    forbidden = {"time", "random", "logging", "asyncio", "os", "socket", "threading", "secrets"}
    assert not {i.split(".")[0] for i in imports(file)} & forbidden


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_are_under_300_lines_and_functions_under_40(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno if documented else node.lineno
            assert (node.end_lineno or 0) - (start or 0) <= 40, f"{node.name} in {name_of(file)}"


ALLOWED_BASES = {
    "Protocol", "Exception", "Enum", "StrEnum", "Struct", "NamedTuple", "Generic",
    "AbstractResolver", "Formatter", "Handler", "HttpToolsProtocol",  # by aiohttp, logging, uvicorn
    "AppConfig", "BaseCommand",  # asked for by Django
    "DeliveryError", "ReboundError", "StoreUnavailable", "ValidationError", "WrongState",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_inherits_but_from_protocols_errors_enums_and_structs(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                inner = base.value if isinstance(base, ast.Subscript) else base
                name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")
                assert name in ALLOWED_BASES, f"{node.name}({name})"
