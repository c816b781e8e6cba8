"""The file: opened with what durability needs, its errors in words that say what to do."""

from __future__ import annotations

from importlib import resources

import apsw

BUSY_TIMEOUT_MS = 4000
"""How long a call waits for another process's transaction."""


def connect(path: str) -> apsw.Connection:
    """Open the file, or make it. Raises apsw.Error."""
    db = apsw.Connection(path)
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
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
