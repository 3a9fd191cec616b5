"""What the sandbox keeps, in one SQLite file: requests, mails, events, suppressions.

A request's shared body is stored once and each person's part as one row, so a
million mails cost no memory; a mail is put together when somebody reads it.
"""

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from newsletter.sandbox.schema import SCHEMA

_NEW_EVENT = "INSERT INTO event (mail_id, due, kind, body) VALUES (?, ?, ?, ?)"
#: An event to come: (mail, due time, kind, body).
EventRow = tuple[int, float, str, str]


class SandboxEmail(NamedTuple):
    """One person's mail, as it was accepted."""

    id: int
    message_id: str
    number: int
    at: float
    email: str
    state: str
    body: dict[str, Any]
    part: dict[str, Any]


class DueEvent(NamedTuple):
    """An event whose time has come."""

    id: int
    mail_id: int
    kind: str
    body: str


class Store:
    """The sandbox's memory; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A stand-in may forget its last second in a power cut; the product may not.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(SCHEMA)

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
        """Keep a request and its (address, personalization) parts; returns the first mail's id."""
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

    def schedule(self, events: Sequence[EventRow]) -> None:
        """Keep events."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_NEW_EVENT, events)
            self._db.execute("COMMIT")

    def due(self, limit: int) -> list[DueEvent]:
        """The events whose time has come, earliest first."""
        rows = self._read(
            "SELECT id, mail_id, kind, body FROM event WHERE posted = 0 AND due <= ?"
            " ORDER BY due, id LIMIT ?",
            (time.time(), limit),
        )
        return [DueEvent(*row) for row in rows]

    def posted(self, events: Sequence[DueEvent]) -> None:
        """Mark events as delivered to the webhook, and show their kinds on the mails."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE event SET posted = 1 WHERE id = ?", ((e.id,) for e in events)
            )
            self._db.executemany(
                "UPDATE mail SET state = ? WHERE id = ?", ((e.kind, e.mail_id) for e in events)
            )
            self._db.execute("COMMIT")

    def put_off(self, events: Sequence[DueEvent], seconds: float) -> None:
        """Try these again later."""
        with self._lock:
            due = time.time() + seconds
            self._db.executemany(
                "UPDATE event SET due = ? WHERE id = ?", ((due, e.id) for e in events)
            )

    def suppress(self, kind: str, email: str, reason: str, at: float | None = None) -> None:
        """Put an address on one of the account's own lists."""
        with self._lock:
            self._db.execute(
                "INSERT OR IGNORE INTO suppression VALUES (?, ?, ?, ?)",
                (kind, email.lower(), reason, int(at or time.time())),
            )

    def unsuppress(self, kind: str, email: str) -> bool:
        """Take an address off a list."""
        with self._lock:
            return (
                self._db.execute(
                    "DELETE FROM suppression WHERE kind = ? AND email = ?", (kind, email.lower())
                ).rowcount
                > 0
            )

    def lists_of(self, emails: Sequence[str], lists: Collection[str]) -> dict[str, frozenset[str]]:
        """Address (lower case) → those of these lists that it stands on."""
        found: dict[str, set[str]] = {}
        for begin in range(0, len(emails), 500):
            chunk = [email.lower() for email in emails[begin : begin + 500]]
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT email, kind FROM suppression WHERE email IN ({marks})"  # noqa: S608
            for email, kind in self._read(sql, chunk):
                if kind in lists:
                    found.setdefault(email, set()).add(kind)
        return {email: frozenset(kinds) for email, kinds in found.items()}

    def suppressions(
        self, kind: str, *, email: str, begin: int, end: int, limit: int, offset: int
    ) -> list[tuple[str, str, int]]:
        """(address, reason, created) of a list, a page of it."""
        return self._read(
            "SELECT email, reason, created FROM suppression WHERE kind = ? AND email LIKE ? || '%'"
            " AND created BETWEEN ? AND ? ORDER BY created DESC, email LIMIT ? OFFSET ?",
            (kind, email.lower(), begin, end, limit, offset),
        )

    def mails(self, *, search: str, before: int | None, limit: int) -> list[SandboxEmail]:
        """The latest mails to addresses that contain ``search``, those before an id."""
        rows = self._read(
            "SELECT mail.id, message_id, number, at, email, state, body, part FROM mail"
            " JOIN request ON request.id = request_id"
            " WHERE mail.id < ? AND instr(lower(email), ?) > 0 ORDER BY mail.id DESC LIMIT ?",
            (before or 2**62, search.lower(), limit),
        )
        return [_mail(row) for row in rows]

    def mail(self, mail_id: int) -> SandboxEmail | None:
        """One mail."""
        rows = self._read(
            "SELECT mail.id, message_id, number, at, email, state, body, part FROM mail"
            " JOIN request ON request.id = request_id WHERE mail.id = ?",
            (mail_id,),
        )
        return _mail(rows[0]) if rows else None

    def events_of(self, mail_id: int) -> list[dict[str, Any]]:
        """What happened to a mail so far, in order."""
        rows = self._read(
            "SELECT body FROM event WHERE mail_id = ? AND posted = 1 ORDER BY due, id", (mail_id,)
        )
        return [orjson.loads(row[0]) for row in rows]

    def accepted(self, after: int) -> Iterator[SandboxEmail]:
        """Every mail behind an id, in order, in slices; of the body only its custom args."""
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
        """Counts of everything."""
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
        """Forget everything."""
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
