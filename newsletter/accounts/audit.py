"""The log of who did what: entries are added and never changed.

Triggers refuse to change or delete a row. Each entry also holds a hash over the one
before it, so that rows changed behind the triggers' back show. (Entries cut off the end
do not: compare the last hash with one that you keep elsewhere.)
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
#: Entries an hour by people who are not signed in: of one kind about one account, and of all.
_ABOUT_ONE, _OF_OUTSIDERS = 10, 60


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a user, or a program without an account."""

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
    """Write down what is done, in its transaction: at the end, because others wait for it."""
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
    """The same for what somebody does who is not signed in, as long as that is not too much.

    Nobody can delete an entry, so strangers may not write as many as they like: no more than
    so many an hour of one kind about one account, and of all kinds. One entry an hour says that
    others were left out.
    """
    about = f"{action}\0{actor.user_id or ''}\0{subject}"
    passed = True
    for purpose, value, limit in (
        ("log about", about, _ABOUT_ONE),
        ("log of outsiders", "", _OF_OUTSIDERS),
    ):
        key = rate_limit.key_of(secret, purpose, value)
        passed &= rate_limit.hit(session, key, limit=limit if passed else 0, window=_HOUR, now=now)
    # Also an entry that is one too many is written, and taken back: equal work tells nothing.
    with session.begin_nested() as point:
        record(session, actor, action, now=now, subject=subject)
        if not passed:
            point.rollback()
    if not passed:
        _say_once(session, secret, now=now)


def _say_once(session: Session, secret: bytes, *, now: datetime) -> None:
    key = rate_limit.key_of(secret, "log left out", "")
    if rate_limit.hit(session, key, limit=1, window=_HOUR, now=now):
        record(session, Actor(None, "(not signed in)"), "more tries than are logged", now=now)


def entries(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[Row[Any]]:
    """The last entries, or those before one of them; the youngest first."""
    query = select(_entry).order_by(_entry.c.id.desc()).limit(limit)
    return session.execute(query if before is None else query.where(_entry.c.id < before)).all()


def first_broken(session: Session) -> int | None:
    """The first entry that was changed, or follows one that is gone; None when all is well."""
    chain = _BEGINNING
    query = select(_entry).order_by(_entry.c.id).execution_options(yield_per=1000)
    # Read in pieces: what is not read to its end has to be closed.
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
