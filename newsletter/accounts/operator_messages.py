"""Messages to operators: written with their cause, shown in the console and emailed once.

The transaction that pauses a send or requests a review also writes the message, so that nothing
waits for a user who was not informed. Messages that only the passing of time brings are written by
a task of the clock. notifications.py says which user gets which kind by email.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, func, select, update

from newsletter.accounts.models import OperatorMessage, User
from newsletter.db import webhook_queue
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.db.webhook_queue import WebhookEvent

_message, _user = table_of(OperatorMessage), table_of(User)
#: New messages are counted up to this number.
COUNTED: Final = 100


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
    #: A disk has little space; ``subject`` is what is on it.
    DISK_LOW = "disk_low"
    #: A send ended a day ago and has its first figures; ``subject`` is its number.
    SEND_FINISHED = "send_finished"
    #: A rule of the circuit breaker matched and paused nothing; ``subject`` is the send.
    RATE_HIGH = "rate_high"
    #: Emails left, and the provider reported no events; ``subject`` is empty.
    EVENTS_SILENT = "events_silent"
    #: Suppressions differed from the provider's lists; ``subject`` is the number of the run.
    SUPPRESSIONS_DIFFERED = "suppressions_differed"
    #: A webhook endpoint was disabled because of its answers; ``subject`` is its number.
    WEBHOOK_DISABLED = "webhook_disabled"


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something that a message is written about once."""

    kind: MessageKind
    subject: object
    #: Tells apart several messages of this kind about the same subject.
    occasion: object = ""
    detail: str = ""

    @property
    def key(self) -> str:
        """What there is one message for."""
        return f"{self.kind}:{self.subject}:{self.occasion}"[:200]


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
        "key": Occasion(kind, subject, occasion).key,
        "kind": kind.value,
        "subject": str(subject)[:200],
        "detail": detail[:2000],
        "created_at": now,
    }
    insert = insert_into(session, _message).values(values)
    if not changed(session, insert.on_conflict_do_nothing(index_elements=["key"])):
        return
    message = {name: values[name] for name in ("kind", "subject", "detail")}
    webhook_queue.report(
        session, WebhookEvent.OPERATOR_MESSAGE, lambda: {"message": message}, now=now
    )


def post_all(session: Session, occasions: Iterable[Occasion], *, now: datetime) -> None:
    """Write a message for each of these occasions, as ``post``."""
    for one in occasions:
        post(session, one.kind, one.subject, now=now, occasion=one.occasion, detail=one.detail)


def not_posted(session: Session, occasions: Iterable[Occasion]) -> list[Occasion]:
    """Those of these occasions without a message. Unlike ``post``, it takes no write lock."""
    of_key = {one.key: one for one in occasions}
    if not of_key:
        return []
    known = session.scalars(select(_message.c.key).where(_message.c.key.in_(list(of_key))))
    return [of_key[key] for key in of_key.keys() - set(known)]


def not_emailed(session: Session, *, limit: int = 20) -> Sequence[Row[Any]]:
    """Messages that were not emailed yet, oldest first."""
    waiting = select(_message).where(_message.c.emailed_at.is_(None))
    return session.execute(waiting.order_by(_message.c.id).limit(limit)).all()


def claim_email(session: Session, message_id: int, *, now: datetime) -> bool:
    """Mark a message as emailed, in the transaction that puts its emails into the outbox.

    Returns False if another process did so.
    """
    waits = _message.c.id == message_id, _message.c.emailed_at.is_(None)
    return changed(session, update(_message).where(*waits).values(emailed_at=now)) == 1


def by_ids(session: Session, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """These messages, oldest first."""
    return session.execute(
        select(_message).where(_message.c.id.in_(list(ids))).order_by(_message.c.id)
    ).all()


def latest(session: Session, *, limit: int) -> Sequence[Row[Any]]:
    """The latest messages, newest first."""
    return session.execute(select(_message).order_by(_message.c.id.desc()).limit(limit)).all()


def read_up_to(session: Session, user_id: int) -> int:
    """The id of the last message that this user has read."""
    return session.scalar(select(_user.c.read_up_to).where(_user.c.id == user_id)) or 0


def mark_read(session: Session, user_id: int) -> int:
    """Mark all messages as read by this user; returns ``read_up_to`` from before."""
    before = read_up_to(session, user_id)
    newest = session.scalar(select(func.max(_message.c.id))) or 0
    unread = _user.c.id == user_id, _user.c.read_up_to < newest
    session.execute(update(_user).where(*unread).values(read_up_to=newest))
    return before


def sweep(session: Session, *, before: datetime) -> None:
    """Delete messages that were emailed before this time."""
    session.execute(_message.delete().where(_message.c.emailed_at < before))
