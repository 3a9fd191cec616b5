"""The log of who did what: entries are added and never changed.

Triggers refuse to change or delete a row. Each entry also holds a hash over the one
before it, so that rows changed behind the triggers' back show. (Entries cut off the end
do not: compare the last hash with one that you keep elsewhere.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Row, select

from newsletter.accounts.models import AuditEntry
from newsletter.accounts.turn import take_turn
from subscribers.schema import Session, table_of

_entry = table_of(AuditEntry)
_BEGINNING = bytes(32)


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
    take_turn(session)
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
