"""The file: opened with what durability needs, its errors in words that say what to do."""

from __future__ import annotations

import os
from importlib import resources

import apsw

from rebound.domain.errors import StoreUnavailable

BUSY_TIMEOUT = 4.0
"""Seconds that a call waits for its turn and for another process's transaction, taken together."""


class StoreFile:
    """The connection to the file at `path`, made when it is first needed.

    Used from one thread.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def connection(self) -> apsw.Connection:
        """Open, and to the file that is there now. Raises apsw.Error or StoreUnavailable.

        SQLite writes on to a file that was deleted: tasks would be accepted into nowhere.
        """
        if self._identity is not None and (found := _identity(self._path)) != self._identity:
            if found is None:
                raise StoreUnavailable(f"{self._path} was removed while it was in use")
            self.close()  # another one was put in its place
        if self._db is None:
            memory = self._path == ":memory:"
            self._path = self._path if memory else os.path.abspath(self._path)
            self._db = connect(self._path)
            self._identity = None if memory else _identity(self._path)
        return self._db

    def close(self) -> None:
        """Let the file go."""
        if self._db is not None:
            self._db.close()
        self._db = self._identity = None


def _identity(path: str) -> tuple[int, int] | None:
    """Which file stands at `path`; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str) -> apsw.Connection:
    """Open the file, or make it. Raises apsw.Error."""
    try:
        db = apsw.Connection(path)
    except UnicodeEncodeError:  # SQLite knows names in UTF-8 only
        raise apsw.CantOpenError from None
    try:
        if db.readonly("main"):  # SQLite opens so what it may not write to, and says nothing
            raise apsw.ReadOnlyError
        db.set_busy_timeout(int(BUSY_TIMEOUT * 1000))
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("BEGIN IMMEDIATE")
        schema = resources.files("rebound.adapters.stores").joinpath("schema.sql").read_text()
        db.execute(schema)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def explain(path: str, error: apsw.Error) -> str:
    """What is wrong with the file, for people."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return f"{path} is locked by another program"
        case apsw.NotADBError():
            return f"{path} is not an SQLite database"
        case apsw.CorruptError():
            return f"{path} is damaged: {error}"
        case apsw.FullError():
            return f"the disk of {path} is full"
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.CantOpenError():
            return f"{path} cannot be opened for writing"
        case _:
            return f"{path}: {error}"
