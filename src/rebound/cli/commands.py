"""The commands that read and change tasks; what they print and the exit code they come to."""

# ruff: noqa: T201 - results go to stdout

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from rebound.cli import desk
from rebound.cli.desk import Desk
from rebound.domain.errors import ReboundError, ValidationError
from rebound.settings import Config
from rebound.settings.readers import CLIENTS_KEY

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
COLUMNS: Final = (
    "ID",
    "STATE",
    "LEG",
    "ATTEMPT",
    "CREATED",
    "NEXT ATTEMPT",
    "SOURCE",
    "DESTINATION",
)
_INPUT_FAULTS: Final = (400, 413)
_raw = msgspec.json.Decoder(msgspec.Raw)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@asynccontextmanager
async def at_desk(args: Namespace, *, create: bool = False) -> AsyncIterator[Desk]:
    """Where the arguments say. Raises ReboundError where there is no such store.

    Only what brings tasks in may `create` a file.
    """
    if args.url:
        key = args.api_key or os.environ.get(f"REBOUND_{CLIENTS_KEY}", "")
        async with desk.remote(args.url, key) as one:
            yield one
        return
    config = Config.for_service(store_url=args.store_url)
    path = config.sqlite_path if config.store_kind == "sqlite" else ""
    if path and path != ":memory:" and not create and not Path(path).exists():
        raise ReboundError(f"there is no store {path}; give --store-url or --url")
    async with desk.local(config) as one:
        yield one


async def submit(args: Namespace) -> int:
    """Hand in the tasks of a file, one line for each."""
    texts = tasks_in(_read(args.file))
    worst = OK
    async with at_desk(args, create=True) as one:
        number = 0
        async for result in one.submit(texts):
            number += 1
            print(result.id, result.status, flush=True)
            if result.status in _INPUT_FAULTS:
                worst = worst or BAD_INPUT
            elif result.status >= 300:
                worst = FAILED
            if result.error:
                complain(f"task {number}: {result.error}")
    return worst


async def show(args: Namespace) -> int:
    """Print a task as JSON."""
    async with at_desk(args) as one:
        print(msgspec.json.format(await one.show(args.id), indent=2).decode())
    return OK


async def list_(args: Namespace) -> int:
    """Print a page of tasks, newest first."""
    names = ("state", "leg", "source", "client_id", "limit", "cursor")
    wanted = {name: value for name in names if (value := getattr(args, name)) is not None}
    async with at_desk(args) as one:
        tasks, cursor = await one.page(wanted)
    if args.json:
        for task in tasks:
            print(msgspec.json.encode(task).decode())
    elif tasks:
        _print_table([COLUMNS, *map(_row, tasks)])
    if cursor is not None:
        print(f"more: --cursor {cursor}", file=sys.stderr)
    return OK


async def change(args: Namespace) -> int:
    """Replay, cancel or delete tasks, one line for each."""
    code = OK
    async with at_desk(args) as one:
        act = {"replay": one.replay, "cancel": one.cancel, "delete": one.delete}[args.command]
        for id_ in args.ids:
            try:
                print(id_, await act(id_), flush=True)
            except ReboundError as error:
                complain(str(error))
                code = FAILED
    return code


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"rebound: {' '.join(text.split())}", file=sys.stderr)


def tasks_in(data: bytes) -> Sequence[bytes]:
    """The JSON text of each task: one object, a list, `{"tasks": [...]}`, or one a line.

    Raises ValidationError for anything else.
    """
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        return _document(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        lines = data.split(b"\n")
        if len(lines) == 1:
            raise ValidationError(f"the input is not JSON: {error}") from None
    tasks = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                tasks.append(_one(bytes(_raw.decode(line))))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValidationError) as error:
            raise ValidationError(f"line {number} of the input: {error}") from None
    return tasks


def _document(data: bytes) -> Sequence[bytes]:
    whole = bytes(_raw.decode(data)) if data else b"[]"
    if whole.startswith(b"{"):
        members = _object.decode(whole)
        if list(members) != ["tasks"]:
            return [whole]
        whole = bytes(members["tasks"])
    if not whole.startswith(b"["):
        raise ValidationError("the input is no task: expected an object or a list of them")
    return [_one(bytes(task)) for task in _array.decode(whole)]


def _one(text: bytes) -> bytes:
    if not text.startswith(b"{"):
        raise ValidationError("expected an object")
    return text


def _read(name: str) -> bytes:
    if name == "-" and sys.stdin is None:
        raise ValidationError("-: stdin is closed")
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ValidationError(f"{name}: {(error.strerror or str(error)).lower()}") from None


def _row(task: Mapping[str, Any]) -> tuple[str, ...]:
    to = task["destination"] or {}
    url = to.get("url") or f"kafka://{to.get('host')}:{to.get('port') or 9092}/{to.get('topic')}"
    cells = (
        task["id"], task["state"], task["leg"], task["attempt"], task["created_at"],
        task["next_attempt_at"], task["source"], url if to else None,
    )  # fmt: skip
    return tuple("-" if cell is None else str(cell) for cell in cells)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
