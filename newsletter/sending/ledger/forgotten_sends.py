"""Sends that a restored database has lost, and the recipients of their requests.

Only the departure logs know these "forgotten sends". Their recipients get the issue from no
other send; that is the issue with the same slug, or with the same text under another slug. A
recipient is identified by the first bytes of the keyed hash of the address, because a restored
database may give the same id to another subscriber.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    case,
    column,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
    values,
)

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db import bulk_rows
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import SendError
from newsletter.issues.models import Issue, Revision
from newsletter.provider.events import made_mark
from newsletter.sending.models import Batch, Delivery, ForgottenRecipient, ForgottenSend
from newsletter.sending.states import BatchState, DeliveryState
from subscribers.models import Subscriber

_sent, _recipient = table_of(ForgottenSend), table_of(ForgottenRecipient)
_issue, _revision, _subscriber = table_of(Issue), table_of(Revision), table_of(Subscriber)
_batch, _delivery = table_of(Batch), table_of(Delivery)

#: Bytes of an address hash that a log keeps.
PREFIX: Final = 8
#: The exclusion reasons of recipients of forgotten sends.
HAD_BEFORE: Final = "had this issue before the restore"
MAY_HAVE_HAD: Final = "may have had this issue before the restore"
_LAST = b"\xff" * 8
_CHUNK = 5000
#: Batches in these states have not left, so their recipients can still be skipped.
_NOT_DEPARTED = (BatchState.PENDING, BatchState.CLAIMED)


@dataclass(frozen=True, slots=True)
class ForgottenSendInfo:
    """What a departure log records of a send, to identify its issue without the database."""

    slug: str
    content: str
    schedule: str = ""
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnansweredRequests:
    """A request of a forgotten send that the provider did not answer.

    ``send`` is the id of the row in ``forgotten_send``: a restored database may give the
    original id to another send.
    """

    slug: str
    send: int
    made_at: datetime
    batch: int
    people: int

    @property
    def made(self) -> str:
        """When the send was created, as text."""
        return f"{self.made_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _is_of(issue_id: int) -> ColumnElement[bool]:
    """The SQL condition that a forgotten send was of this issue."""
    slug = select(_issue.c.slug).where(_issue.c.id == issue_id)
    texts = select(_revision.c.content).where(
        _revision.c.issue_id == issue_id, _revision.c.content != ""
    )
    return or_(_sent.c.slug.in_(slug), _sent.c.content.in_(texts))


def _issues_of(*which: ColumnElement[bool]) -> Select[Any]:
    """Selects the issues of these forgotten sends."""
    by_slug = select(_issue.c.id).join(_sent, _sent.c.slug == _issue.c.slug).where(*which)
    by_text = (
        select(_revision.c.issue_id)
        .join(_sent, _sent.c.content == _revision.c.content)
        .where(_sent.c.content != "", *which)
    )
    return select(by_slug.union(by_text).subquery().c.id)


def exclusion_reason(issue_id: int) -> ColumnElement[Any]:
    """The SQL expression of the exclusion reason; NULL for recipients of no forgotten send."""
    sends = select(_sent.c.id).where(_is_of(issue_id))
    is_recipient = (
        _recipient.c.forgotten_id.in_(sends),
        _recipient.c.address_prefix == _prefix_of_subscriber(),
    )
    return case(
        (
            exists(select(1).where(*is_recipient, _recipient.c.answered.is_(True))),
            literal(HAD_BEFORE),
        ),
        (exists(select(1).where(*is_recipient)), literal(MAY_HAVE_HAD)),
    )


def _prefix_of_subscriber() -> ColumnElement[bytes]:
    return func.substr(_subscriber.c.address_hash, 1, PREFIX)


def get_or_create(
    session: Session, number: int, made_at: datetime, send_info: ForgottenSendInfo, *, now: datetime
) -> int:
    """Return the id of a forgotten send's row; creates the row if there is none."""
    row = {
        "number": number,
        "made_at": made_at,
        "slug": send_info.slug,
        "content": send_info.content,
        "schedule": send_info.schedule,
        "due_at": send_info.due,
        "found_at": now,
    }
    session.execute(insert_into(session, _sent).values(**row).on_conflict_do_nothing())
    this = _sent.c.number == number, _sent.c.made_at == made_at
    return session.execute(select(_sent.c.id).where(*this)).scalar_one()  # type: ignore[no-any-return]


def add_recipients(
    session: Session, forgotten_id: int, batch: int, prefixes: Iterable[bytes], *, answered: bool
) -> int:
    """Add the recipients of a request; returns how many of them are new to this send."""
    unique = sorted(set(prefixes))
    before = _count_recipients(session, forgotten_id)
    for begin in range(0, len(unique), _CHUNK):
        rows = [
            {
                "forgotten_id": forgotten_id,
                "address_prefix": prefix,
                "batch": batch,
                "answered": answered,
            }
            for prefix in unique[begin : begin + _CHUNK]
        ]
        # An answered request is never replaced by an unanswered one.
        bulk_rows.insert(
            session,
            _recipient,
            rows,
            lambda new: new.on_conflict_do_update(
                index_elements=["forgotten_id", "address_prefix"],
                set_={"batch": new.excluded.batch, "answered": new.excluded.answered},
                where=_recipient.c.answered.is_(False),
            ),
        )
    return _count_recipients(session, forgotten_id) - before


def _count_recipients(session: Session, forgotten_id: int) -> int:
    own = select(func.count()).where(_recipient.c.forgotten_id == forgotten_id)
    return int(session.execute(own).scalar_one())


def skip_planned_recipients(session: Session, forgotten_ids: Collection[int]) -> int:
    """Skip these recipients in pending batches of sends of the same issue; returns how many."""
    not_departed = exists(
        select(1).where(
            _batch.c.send_id == _delivery.c.send_id,
            _batch.c.number == _delivery.c.batch,
            _batch.c.state.in_(_NOT_DEPARTED),
        )
    )
    skipped = 0
    for forgotten_id in sorted(forgotten_ids):
        for answered, why in ((True, HAD_BEFORE), (False, MAY_HAVE_HAD)):
            is_recipient = exists(
                select(1)
                .select_from(_subscriber)
                .join(_recipient, _recipient.c.address_prefix == _prefix_of_subscriber())
                .where(
                    _subscriber.c.id == _delivery.c.subscriber_id,
                    _recipient.c.forgotten_id == forgotten_id,
                    _recipient.c.answered.is_(answered),
                )
            )
            skipped += changed(
                session,
                update(_delivery)
                .where(
                    _delivery.c.issue_id.in_(_issues_of(_sent.c.id == forgotten_id)),
                    _delivery.c.state == DeliveryState.PLANNED,
                    not_departed,
                    is_recipient,
                )
                .values(state=DeliveryState.SKIPPED, reason=why),
            )
    return skipped


def slug_of_run(session: Session, schedule: str, due: datetime) -> str | None:
    """The slug of the issue that a schedule's run at ``due`` sent before the restore, if any."""
    this = _sent.c.schedule == schedule, _sent.c.due_at == due
    return session.scalar(select(_sent.c.slug).where(*this).order_by(_sent.c.id.desc()).limit(1))


def has_issue(session: Session, issue_id: int) -> bool:
    """Whether a forgotten send was of this issue."""
    return session.scalar(select(_sent.c.id).where(_is_of(issue_id)).limit(1)) is not None


def mark_finished(session: Session, issue_id: int, *, now: datetime) -> None:
    """Mark the forgotten sends of an issue as finished, so that schedules take the next issue."""
    session.execute(update(_sent).where(_is_of(issue_id)).values(over_at=now))


def finished_issues() -> Select[Any]:
    """Selects the issues whose forgotten sends are finished."""
    return _issues_of(_sent.c.over_at.is_not(None))


def list_all(session: Session) -> Sequence[tuple[ForgottenSend, int]]:
    """Every forgotten send with the number of its known recipients, the latest first."""
    people = select(func.count()).where(_recipient.c.forgotten_id == _sent.c.id).scalar_subquery()
    rows = session.execute(select(ForgottenSend, people).order_by(_sent.c.made_at.desc())).all()
    return [(row[0], row[1]) for row in rows]


def unanswered(session: Session) -> list[UnansweredRequests]:
    """The unanswered requests of forgotten sends; the provider may have accepted them."""
    which = _sent.c.slug, _sent.c.id, _sent.c.made_at, _recipient.c.batch
    rows = session.execute(
        select(*which, func.count())
        .join(_sent, _sent.c.id == _recipient.c.forgotten_id)
        .where(_recipient.c.answered.is_(False))
        .group_by(*which)
        .order_by(_sent.c.slug, _sent.c.id, _recipient.c.batch)
    )
    return [UnansweredRequests(*row) for row in rows]


def resolve(
    session: Session,
    slug: str,
    batch: int,
    *,
    send: int | None = None,
    sent: bool,
    by: Actor,
    now: datetime,
) -> int:
    """Resolve an unanswered request as sent or not sent; returns the number of its recipients.

    If it was not sent, the next send of the issue has them in its audience. Raises SendError
    if there is no such unanswered request, or if several sends have one and ``send`` is None.
    """
    uncertain = [one for one in unanswered(session) if one.slug == slug]
    matching = [one for one in uncertain if one.batch == batch and send in {None, one.send}]
    if len(matching) != 1:
        known = [f"batch {one.batch} of send {one.send}, made {one.made}" for one in uncertain]
        what = "several sends have an uncertain request for this batch: choose one with --send N"
        raise SendError(
            what if matching else "this request is not uncertain",
            place=f"issue {slug}, batch {batch}" + (f" of send {send}" if send else ""),
            hint=f"Uncertain: {'; '.join(known) or 'none'}.",
        )
    this = (
        _recipient.c.forgotten_id == matching[0].send,
        _recipient.c.batch == batch,
        _recipient.c.answered.is_(False),
    )
    if sent:
        people = changed(session, update(_recipient).where(*this).values(answered=True))
    else:
        people = changed(session, delete(_recipient).where(*this))
        session.execute(update(_sent).where(_sent.c.slug == slug).values(over_at=None))
    audit.record(
        session,
        by,
        "request resolved as sent" if sent else "request resolved as not sent",
        now=now,
        subject=slug,
        send=matching[0].send,
        made=matching[0].made,
        batch=batch,
        people=people,
    )
    return people


def mark_answered(session: Session, requests: Collection[tuple[int, int, int]]) -> int:
    """Resolve requests that an event proves accepted; returns the number of their recipients.

    Each of ``requests`` is (id of the send, ``events.made_mark`` of its creation time, batch).
    """
    if not requests:
        return 0
    sends = {
        (row.number, made_mark(row.made_at)): row.id
        for row in session.execute(select(_sent.c.id, _sent.c.number, _sent.c.made_at))
    }
    accepted = sorted(
        {
            (sends[number, made], batch)
            for number, made, batch in requests
            if (number, made) in sends
        }
    )
    if not accepted:
        return 0
    return changed(
        session,
        update(_recipient)
        .where(
            tuple_(_recipient.c.forgotten_id, _recipient.c.batch).in_(accepted),
            _recipient.c.answered.is_(False),
        )
        .values(answered=True),
    )


def subscriber_ids(session: Session, prefixes: Sequence[bytes]) -> dict[bytes, int]:
    """Prefix of an address hash → id of the subscriber; unknown prefixes are omitted."""
    ids: dict[bytes, int] = {}
    for begin in range(0, len(prefixes), _CHUNK):
        given_prefix = values(column("prefix", LargeBinary), column("last", LargeBinary), name="g")
        some = prefixes[begin : begin + _CHUNK]
        asked = given_prefix.data([(prefix, prefix + _LAST) for prefix in some]).cte("asked")
        # One index lookup for each: a range scan, because only a prefix of the hash is known.
        subscriber_id = (
            select(_subscriber.c.id)
            .where(
                _subscriber.c.address_hash >= asked.c.prefix,
                _subscriber.c.address_hash <= asked.c.last,
            )
            .order_by(_subscriber.c.address_hash)
            .limit(1)
            .correlate(asked)
            .scalar_subquery()
        )
        for row in session.execute(select(asked.c.prefix, subscriber_id.label("id"))):
            if row.id is not None:
                ids[bytes(row.prefix)] = row.id
    return ids
