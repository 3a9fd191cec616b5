"""Subscriber status (active, suppressed, unconfirmed, paused) and counts by status.

Small lists are counted at each request. Counts of large ones are stored, and a scheduled job
renews them: no page waits for a count of a million subscribers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, case, func, select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from subscribers.models import StatusCount, Subscriber, SuppressionReason
from subscribers.segments import store as segment_store

_subscriber, _count = table_of(Subscriber), table_of(StatusCount)

#: Lists up to this size are counted at each request, in a few milliseconds.
SMALL = 10_000
_EVERYBODY = "everybody"


class SubscriberStatus(StrEnum):
    """The status of a subscriber."""

    #: Gets emails.
    ACTIVE = "active"
    #: Unsubscribed, bounced, complained, or was suppressed by an operator.
    SUPPRESSED = "suppressed"
    #: Has not confirmed the opt-in.
    UNCONFIRMED = "unconfirmed"
    #: Requested a pause that is not over.
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class StatusCounts:
    """Numbers of subscribers; ``counted_at`` is empty if they were counted just now."""

    people: int
    by_status: Mapping[SubscriberStatus, int]
    counted_at: datetime | None = field(default=None, compare=False)


def status_of(exclusion_reason: str | None) -> SubscriberStatus:
    """The status for an exclusion reason (``segments.store.exclusion_reason`` without topics)."""
    if exclusion_reason is None:
        return SubscriberStatus.ACTIVE
    if exclusion_reason in set(SuppressionReason):
        return SubscriberStatus.SUPPRESSED
    return SubscriberStatus(exclusion_reason)


def has_status(status: SubscriberStatus, now: datetime) -> ColumnElement[bool]:
    """The condition of having this status, over ``segments.store.PEOPLE``."""
    reason = segment_store.exclusion_reason(now, ())
    if status is SubscriberStatus.ACTIVE:
        return reason.is_(None)
    if status is SubscriberStatus.SUPPRESSED:
        return reason.in_(list(SuppressionReason))
    return reason == status.value


def status_counts(session: Session, *, now: datetime) -> StatusCounts | None:
    """The counts, in all and by status; None until a large list is counted for the first time."""
    if is_small(session):
        return count(session, now=now)
    stored = {row.what: row for row in session.execute(select(_count))}
    if _EVERYBODY not in stored:
        return None
    by_status = {s: stored[s].people if s in stored else 0 for s in SubscriberStatus}
    return StatusCounts(stored[_EVERYBODY].people, by_status, stored[_EVERYBODY].counted_at)


def is_small(session: Session) -> bool:
    """Whether all subscribers can be counted while a user waits."""
    some = select(_subscriber.c.id).limit(SMALL + 1).subquery()
    return (session.scalar(select(func.count()).select_from(some)) or 0) <= SMALL


def count(session: Session, *, now: datetime) -> StatusCounts:
    """Count all subscribers; half a second for a million."""
    reason = segment_store.exclusion_reason(now, ())
    status = case(
        (reason.is_(None), SubscriberStatus.ACTIVE.value),
        (reason.in_(list(SuppressionReason)), SubscriberStatus.SUPPRESSED.value),
        else_=reason,
    ).label("status")
    rows = session.execute(
        select(status, func.count()).select_from(segment_store.PEOPLE).group_by(status)
    )
    by_status = dict.fromkeys(SubscriberStatus, 0) | {SubscriberStatus(r[0]): r[1] for r in rows}
    return StatusCounts(sum(by_status.values()), by_status)


def save_counts(session: Session, counts: StatusCounts, *, now: datetime) -> None:
    """Store the counts."""
    rows = [
        {"what": what, "people": people, "counted_at": now}
        for what, people in ((_EVERYBODY, counts.people), *counts.by_status.items())
    ]
    insert = insert_into(session, _count)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["what"],
            set_={name: insert.excluded[name] for name in ("people", "counted_at")},
        ),
        rows,
    )
