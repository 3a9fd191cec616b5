"""The audit log of who did what. Entries are added and never changed.

Triggers refuse to change or delete a row. Each entry also contains a hash of the previous one, so
that changes that bypass the triggers are detected. (Entries removed at the end are not: compare
the last hash with a copy that you keep elsewhere.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Row, select

from newsletter.accounts.models import AuditEntry
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.db.orm import Session, table_of
from subscribers import rate_limit

_entry = table_of(AuditEntry)
_BEGINNING = bytes(32)
_HOUR = timedelta(hours=1)
#: Entries per hour by people who are not signed in: of one kind about one account, and in all.
_ABOUT_ONE, _OF_OUTSIDERS = 10, 60


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an action: a user, or a program without an account."""

    user_id: int | None
    name: str
    ip: str = ""


def record(
    session: Session,
    actor: Actor,
    action: str,
    *,
    now: datetime,
    subject: str = "",
    **detail: str | int | bool,
) -> None:
    """Record an action in its transaction. Call it last, because it takes a lock."""
    lock_audit_chain(session)
    last = session.scalar(select(_entry.c.chain).order_by(_entry.c.id.desc()).limit(1))
    values = {
        "at": now,
        "actor_id": actor.user_id,
        "actor": actor.name[:320],
        "ip": actor.ip[:45],
        "action": action,
        "subject": subject[:320],
        "detail": detail,
    }
    session.execute(_entry.insert().values(**values, chain=_chained(last or _BEGINNING, values)))


def record_outsider(
    session: Session, secret: bytes, actor: Actor, action: str, *, now: datetime, subject: str = ""
) -> None:
    """Record an action of a visitor who is not signed in, up to a limit.

    Entries cannot be deleted, so the number of entries by strangers is limited per hour, for one
    kind about one account and in all. One entry per hour says that others were omitted.
    """
    about = f"{action}\0{actor.user_id or ''}\0{subject}"
    passed = True
    for purpose, value, limit in (
        ("log about", about, _ABOUT_ONE),
        ("log of outsiders", "", _OF_OUTSIDERS),
    ):
        key = rate_limit.key_of(secret, purpose, value)
        passed &= rate_limit.hit(session, key, limit=limit if passed else 0, window=_HOUR, now=now)
    # An entry above the limit is written and rolled back, so that the time reveals nothing.
    with session.begin_nested() as point:
        record(session, actor, action, now=now, subject=subject)
        if not passed:
            point.rollback()
    if not passed:
        _record_limit_reached(session, secret, now=now)


def _record_limit_reached(session: Session, secret: bytes, *, now: datetime) -> None:
    key = rate_limit.key_of(secret, "log left out", "")
    if rate_limit.hit(session, key, limit=1, window=_HOUR, now=now):
        record(session, Actor(None, "(not signed in)"), "more tries than are logged", now=now)


def entries(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[Row[Any]]:
    """The latest entries, or those before entry ``before``; newest first."""
    query = select(_entry).order_by(_entry.c.id.desc()).limit(limit)
    return session.execute(query if before is None else query.where(_entry.c.id < before)).all()


def first_broken(session: Session) -> int | None:
    """The id of the first entry that was changed or follows a removed one; None if intact."""
    chain = _BEGINNING
    query = select(_entry).order_by(_entry.c.id).execution_options(yield_per=1000)
    # The result is streamed, so it has to be closed when the loop ends early.
    with session.execute(query) as rows:
        for row in rows:
            chain = _chained(chain, row._asdict())
            if chain != row.chain:
                return int(row.id)
    return None


def _chained(before: bytes, values: dict[str, Any]) -> bytes:
    at = values["at"].astimezone(UTC).isoformat(timespec="microseconds")
    said = [values[name] for name in ("actor_id", "actor", "ip", "action", "subject", "detail")]
    text = orjson.dumps([at, *said], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(before + text).digest()
