"""Which operator messages a user gets by email, and whether at once or each morning.

Owners and approvers get every kind unless they choose otherwise; editors and viewers get none.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, exists, select, update

from newsletter.accounts.models import DigestEntry, Role, User
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import AccountError

_user, _entry = table_of(User), table_of(DigestEntry)


@dataclass(frozen=True, slots=True)
class Notifications:
    """What a user gets by email."""

    kinds: frozenset[MessageKind]
    #: One email each morning instead of one for each message.
    digest: bool
    #: Whether these are the kinds of the user's role, which follow the role.
    of_role: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """A user with an address for emails."""

    user_id: int
    email: str
    notifications: Notifications


def kinds_of_role(role: Role) -> frozenset[MessageKind]:
    """The kinds that a user with this role gets without a choice."""
    return frozenset(MessageKind) if role.covers(Role.APPROVER) else frozenset()


def of_user(user: User | Row[Any]) -> Notifications:
    """What this user gets."""
    if user.notify is None:
        return Notifications(kinds_of_role(Role(user.role)), user.digest, of_role=True)
    kinds = frozenset(kind for kind in MessageKind if kind in user.notify)
    return Notifications(kinds, user.digest, of_role=False)


def choose(session: Session, user: User, kinds: Collection[MessageKind], *, digest: bool) -> None:
    """Save the choice. The kinds of the user's role are saved as no choice, so they follow it."""
    chosen = frozenset(kinds)
    own = [kind.value for kind in MessageKind if kind in chosen]
    values = {
        "notify": None if chosen == kinds_of_role(Role(user.role)) else own,
        "digest": digest,
    }
    session.execute(update(_user).where(_user.c.id == user.id).values(values))
    session.expire(user)


def parse_kinds(names: Iterable[str]) -> frozenset[MessageKind]:
    """The kinds with these names; AccountError for an unknown one."""
    found = set()
    for name in names:
        try:
            found.add(MessageKind(name))
        except ValueError:
            hint = f"Kinds: {', '.join(MessageKind)}."
            raise AccountError("there is no such kind of message", place=name, hint=hint) from None
    return frozenset(found)


def readers(session: Session) -> Sequence[Reader]:
    """All users with a password."""
    rows = session.execute(select(_user).where(_user.c.password != "").order_by(_user.c.id))
    return [Reader(row.id, row.email, of_user(row)) for row in rows]


def queue(session: Session, reader: Reader, message_id: int, *, now: datetime) -> None:
    """Keep a message for the user's next morning email."""
    values = {"user_id": reader.user_id, "message_id": message_id, "queued_at": now}
    session.execute(insert_into(session, _entry).values(values).on_conflict_do_nothing())


def digests_due(session: Session, *, day: str, queued_before: datetime) -> Sequence[Row[Any]]:
    """The users (id, email) with messages for the morning email of ``day``, which had none yet."""
    waits = exists().where(_entry.c.user_id == _user.c.id, _entry.c.queued_at < queued_before)
    due = select(_user.c.id, _user.c.email).where(_user.c.digest_on < day, waits)
    return session.execute(due.order_by(_user.c.id)).all()


def claim_digest(session: Session, user_id: int, *, day: str) -> list[int]:
    """The ids of the messages that wait for a user, for the morning email of ``day``.

    Empty if another process has taken them. They are the caller's only if its transaction commits.
    """
    unsent = _user.c.id == user_id, _user.c.digest_on < day
    if not changed(session, update(_user).where(*unsent).values(digest_on=day)):
        return []
    taken = delete(_entry).where(_entry.c.user_id == user_id).returning(_entry.c.message_id)
    return sorted(session.scalars(taken))
