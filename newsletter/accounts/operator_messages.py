"""Messages to operators: written with their cause, then emailed once to owners and approvers.

The transaction that pauses a send or requests a review also writes the message, so that nothing
waits for a user who was not informed.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, select, update

from newsletter.accounts.models import OperatorMessage, Role, User
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of

_message, _user = table_of(OperatorMessage), table_of(User)


class MessageKind(StrEnum):
    """What happened."""

    #: A send paused itself; ``subject`` is its number.
    SEND_PAUSED = "send_paused"
    #: The provider did not confirm some batches within the grace time; ``subject`` is the send.
    SEND_UNCERTAIN = "send_uncertain"
    #: A review was asked for; ``subject`` is the issue's slug.
    REVIEW_ASKED = "review_asked"
    #: Everything waits for a departure log; ``subject`` is its name.
    LOG_WAITS = "log_waits"
    #: A schedule was due and made no send; ``subject`` is its number.
    SCHEDULE_FAILED = "schedule_failed"
    #: The service could not make a backup; ``subject`` is the folder.
    BACKUP_FAILED = "backup_failed"


def post(
    session: Session,
    kind: MessageKind,
    subject: object,
    *,
    now: datetime,
    occasion: object = "",
    detail: str = "",
) -> None:
    """Write a message in the caller's transaction.

    There is one message for each kind, subject and ``occasion``; a second call changes nothing.
    """
    values = {
        "key": _key(kind, subject, occasion),
        "kind": kind.value,
        "subject": str(subject)[:200],
        "detail": detail[:2000],
        "created_at": now,
    }
    insert = insert_into(session, _message).values(values)
    session.execute(insert.on_conflict_do_nothing(index_elements=["key"]))


def is_posted(session: Session, kind: MessageKind, subject: object, occasion: object) -> bool:
    """Whether this message exists. Unlike ``post``, it takes no write lock."""
    key = _key(kind, subject, occasion)
    return session.scalar(select(_message.c.id).where(_message.c.key == key)) is not None


def _key(kind: MessageKind, subject: object, occasion: object) -> str:
    return f"{kind}:{subject}:{occasion}"[:200]


def not_emailed(session: Session, *, limit: int = 20) -> Sequence[Row[Any]]:
    """Messages that were not emailed yet, oldest first."""
    waiting = select(_message).where(_message.c.emailed_at.is_(None))
    return session.execute(waiting.order_by(_message.c.id).limit(limit)).all()


def emailed(session: Session, message_id: int, *, now: datetime) -> None:
    """Mark a message as emailed, in the transaction that puts its emails into the outbox."""
    session.execute(update(_message).where(_message.c.id == message_id).values(emailed_at=now))


def readers(session: Session) -> Sequence[str]:
    """Addresses of the users who decide about sends: owners and approvers with a password."""
    deciding = [role for role in Role if role.covers(Role.APPROVER)]
    who = select(_user.c.email).where(_user.c.role.in_(deciding), _user.c.password != "")
    return session.scalars(who.order_by(_user.c.id)).all()


def sweep(session: Session, *, before: datetime) -> None:
    """Delete messages that were emailed before this time."""
    session.execute(_message.delete().where(_message.c.emailed_at < before))
