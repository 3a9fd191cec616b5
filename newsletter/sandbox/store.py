"""The sandbox's storage in one SQLite file: requests, emails, events, suppressions.

A request's body is stored once, and each recipient's part as one row, so a million emails need no
memory. An email is composed when it is read.
"""

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, body TEXT NOT NULL,
    args TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS mail (
    id INTEGER PRIMARY KEY, request_id INTEGER NOT NULL REFERENCES request, number INTEGER NOT NULL,
    email TEXT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'processed');
CREATE INDEX IF NOT EXISTS mail_email ON mail (email);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, mail_id INTEGER NOT NULL, due REAL NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, posted INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS event_due ON event (due) WHERE posted = 0;
CREATE INDEX IF NOT EXISTS event_mail ON event (mail_id);
CREATE TABLE IF NOT EXISTS suppression (
    kind TEXT NOT NULL, email TEXT NOT NULL, reason TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (kind, email)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS suppression_email ON suppression (email);
"""
_NEW_EVENT = "INSERT INTO event (mail_id, due, kind, body) VALUES (?, ?, ?, ?)"
#: An event to come: (mail, due time, kind, body).
PlannedEvent = tuple[int, float, str, str]


class SandboxEmail(NamedTuple):
    """The email to one recipient, as it was accepted."""

    id: int
    message_id: str
    number: int
    at: float
    email: str
    state: str
    body: dict[str, Any]
    part: dict[str, Any]


class DueEvent(NamedTuple):
    """An event that is due."""

    id: int
    mail_id: int
    kind: str
    body: str


class Store:
    """The database; may be shared between threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        # Fast, and a sandbox may lose its last second in a power cut.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def accept(
        self,
        message_id: str,
        body: dict[str, Any],
        parts: Sequence[tuple[str, dict[str, Any]]],
    ) -> int:
        """Store a request and its (address, personalization) parts; returns the first ID."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            request = self._db.execute(
                "INSERT INTO request (message_id, at, body, args) VALUES (?, ?, ?, ?)",
                (
                    message_id,
                    time.time(),
                    orjson.dumps(body).decode(),
                    orjson.dumps({"custom_args": body.get("custom_args", {})}).decode(),
                ),
            ).lastrowid
            first = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM mail").fetchone()[0]
            self._db.executemany(
                "INSERT INTO mail (id, request_id, number, email, part) VALUES (?, ?, ?, ?, ?)",
                (
                    (first + n, request, n, email, orjson.dumps(part).decode())
                    for n, (email, part) in enumerate(parts)
                ),
            )
            self._db.execute("COMMIT")
            return int(first)

    def schedule(self, events: Sequence[PlannedEvent]) -> None:
        """Store events to be posted when they are due."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_NEW_EVENT, events)
            self._db.execute("COMMIT")

    def due(self, limit: int) -> list[DueEvent]:
        """The events that are due, the earliest first."""
        rows = self._read(
            "SELECT id, mail_id, kind, body FROM event WHERE posted = 0 AND due <= ?"
            " ORDER BY due, id LIMIT ?",
            (time.time(), limit),
        )
        return [DueEvent(*row) for row in rows]

    def posted(self, events: Sequence[DueEvent]) -> None:
        """Mark events as posted, and set the states of their emails."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE event SET posted = 1 WHERE id = ?", ((e.id,) for e in events)
            )
            self._db.executemany(
                "UPDATE mail SET state = ? WHERE id = ?", ((e.kind, e.mail_id) for e in events)
            )
            self._db.execute("COMMIT")

    def suppress(self, kind: str, email: str, reason: str, at: float | None = None) -> None:
        """Put an address on one of the account's suppression lists."""
        with self._lock:
            self._db.execute(
                "INSERT OR IGNORE INTO suppression VALUES (?, ?, ?, ?)",
                (kind, email.lower(), reason, int(at or time.time())),
            )

    def unsuppress(self, kind: str, email: str) -> bool:
        """Take an address off a list; returns whether it was on it."""
        with self._lock:
            return (
                self._db.execute(
                    "DELETE FROM suppression WHERE kind = ? AND email = ?", (kind, email.lower())
                ).rowcount
                > 0
            )

    def lists_of(self, emails: Sequence[str], lists: Collection[str]) -> dict[str, frozenset[str]]:
        """Address (lower case) → those of ``lists`` that it is on."""
        by_address: dict[str, set[str]] = {}
        for begin in range(0, len(emails), 500):
            chunk = [email.lower() for email in emails[begin : begin + 500]]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT email, kind FROM suppression WHERE email IN ({marks})"  # noqa: S608
            for email, kind in self._read(sql, chunk):
                if kind in lists:
                    by_address.setdefault(email, set()).add(kind)
        return {email: frozenset(kinds) for email, kinds in by_address.items()}

    def suppressions(
        self, kind: str, *, email: str, begin: int, end: int, limit: int, offset: int
    ) -> list[tuple[str, str, int]]:
        """A page of a list: (address, reason, created)."""
        return self._read(
            "SELECT email, reason, created FROM suppression WHERE kind = ? AND email LIKE ? || '%'"
            " AND created BETWEEN ? AND ? ORDER BY created DESC, email LIMIT ? OFFSET ?",
            (kind, email.lower(), begin, end, limit, offset),
        )

    def mails(self, *, search: str, before: int | None, limit: int) -> list[SandboxEmail]:
        """The latest emails before an ID, to addresses that contain ``search``."""
        rows = self._read(
            "SELECT mail.id, message_id, number, at, email, state, body, part FROM mail"
            " JOIN request ON request.id = request_id"
            " WHERE mail.id < ? AND instr(lower(email), ?) > 0 ORDER BY mail.id DESC LIMIT ?",
            (before or 2**62, search.lower(), limit),
        )
        return [_mail(row) for row in rows]

    def mail(self, mail_id: int) -> SandboxEmail | None:
        """One email; None when there is no such ID."""
        rows = self._read(
            "SELECT mail.id, message_id, number, at, email, state, body, part FROM mail"
            " JOIN request ON request.id = request_id WHERE mail.id = ?",
            (mail_id,),
        )
        return _mail(rows[0]) if rows else None

    def events_of(self, mail_id: int) -> list[dict[str, Any]]:
        """The posted events of an email, in order."""
        rows = self._read(
            "SELECT body FROM event WHERE mail_id = ? AND posted = 1 ORDER BY due, id", (mail_id,)
        )
        return [orjson.loads(row[0]) for row in rows]

    def accepted(self, after: int) -> Iterator[SandboxEmail]:
        """Every email after an ID, in order. Its ``body`` has the custom args only."""
        while True:
            rows = self._read(
                "SELECT mail.id, message_id, number, at, email, state, args, part FROM mail"
                " JOIN request ON request.id = request_id"
                " WHERE mail.id > ? ORDER BY mail.id LIMIT 5000",
                (after,),
            )
            if not rows:
                return
            for row in rows:
                yield _mail(row)
            after = rows[-1][0]

    def summary(self) -> dict[str, Any]:
        """The numbers of requests, recipients and events."""
        (requests,), (mails,) = (
            self._read(f"SELECT count(*) FROM {table}", ())[0]  # noqa: S608
            for table in ("request", "mail")
        )
        (pending,) = self._read("SELECT count(*) FROM event WHERE posted = 0", ())[0]
        kinds = self._read("SELECT kind, count(*) FROM event WHERE posted = 1 GROUP BY kind", ())
        return {
            "requests": requests,
            "recipients": mails,
            "pending_events": pending,
            "events": dict(kinds),
        }

    def reset(self) -> None:
        """Delete everything."""
        with self._lock:
            for table in ("event", "mail", "request", "suppression"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608

    def _read(self, sql: str, values: Sequence[object]) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _mail(row: Sequence[Any]) -> SandboxEmail:
    mail_id, message_id, number, at, email, state, body, part = row
    shared, own = orjson.loads(body), orjson.loads(part)
    return SandboxEmail(mail_id, message_id, number, at, email, state, shared, own)
