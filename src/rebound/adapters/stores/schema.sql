-- One row a task. The caller's fields are written once (body); what became of it, at every settle.
CREATE TABLE IF NOT EXISTS tasks (
    seq         INTEGER PRIMARY KEY,   -- order of creation
    id          TEXT    NOT NULL UNIQUE,
    body        BLOB,                  -- NULL: a stub
    progress    BLOB,                  -- NULL: never settled
    state       TEXT    NOT NULL,      -- as spec, and 'stub'
    queue       TEXT,
    priority    INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    nonce       TEXT    NOT NULL,
    created_at  REAL    NOT NULL,
    updated_at  REAL    NOT NULL,
    due_at      REAL,                  -- while scheduled
    kept_from   REAL,                  -- end of a task that retention forgets some time
    token       TEXT,                  -- of the current lease
    last_token  TEXT,                  -- of the last settled one
    leased_at   REAL,
    expires_at  REAL,                  -- of the lease
    lost        TEXT                   -- starts of leases lost since the last settle, by comma
) STRICT;
CREATE INDEX IF NOT EXISTS tasks_due ON tasks (queue, priority, due_at) WHERE state = 'scheduled';
CREATE INDEX IF NOT EXISTS tasks_leased ON tasks (queue, expires_at) WHERE state = 'delivering';
CREATE INDEX IF NOT EXISTS tasks_state ON tasks (state);
CREATE INDEX IF NOT EXISTS tasks_kept ON tasks (state, kept_from) WHERE kept_from IS NOT NULL;

-- One row a queue that has work, a hold or a limit of its own.
CREATE TABLE IF NOT EXISTS lanes (
    queue         TEXT PRIMARY KEY,
    kind          TEXT NOT NULL,       -- what serves it
    look          REAL,                -- when it is worth looking at
    look_priority REAL,                -- the same for its priority tasks
    held_until    REAL,
    in_flight     INTEGER,             -- its own limit
    is_full       INTEGER NOT NULL DEFAULT 0,
    waits         INTEGER              -- got no slot: look when so many are free
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lanes_look ON lanes (kind, look) WHERE look IS NOT NULL;
CREATE INDEX IF NOT EXISTS lanes_waits ON lanes (kind, waits) WHERE waits IS NOT NULL;
CREATE INDEX IF NOT EXISTS lanes_priority ON lanes (kind, look_priority)
    WHERE look_priority IS NOT NULL;
