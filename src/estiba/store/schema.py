"""The schema, and the migrations that led to it.

    records  one row an object: (kind, id) is its key, `name` is unique within a kind,
             `body` is the owning package's frozen struct as JSON
    intents  work that has begun and has not committed; empty whenever the engine is at rest
    events   what was committed, oldest first; trimmed to the newest MAX_EVENTS

`PRAGMA user_version` counts the migrations applied. A migration is never edited once released.
"""

from __future__ import annotations

import sqlite3

from estiba.model.errors import DataLoss

MAX_EVENTS = 20_000

_MIGRATIONS = (
    """
    CREATE TABLE records (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT,
        body BLOB NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX records_by_name ON records (kind, name) WHERE name IS NOT NULL;
    CREATE TABLE intents (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        object_id TEXT NOT NULL,
        verb TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ns INTEGER NOT NULL,
        type TEXT NOT NULL,
        action TEXT NOT NULL,
        actor_id TEXT NOT NULL,
        attributes TEXT NOT NULL
    );
    CREATE INDEX events_by_time ON events (time_ns);
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the database to the newest schema, one transaction a migration.

    Raises DataLoss when a newer engine wrote the file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise DataLoss(
            f"the state database has schema {version}, this engine knows {len(_MIGRATIONS)}: "
            "start the newer engine that wrote it, or point --data-root elsewhere"
        )
    for number in range(version, len(_MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE;{_MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;"
        )
