"""Retention of deliveries: stores their totals in the send, then deletes them.

Without deliveries it is not known who has an issue. So an issue with totals is closed: it cannot
be sent again.
"""

from datetime import datetime

from sqlalchemy import delete, exists, func, select, update

from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import SendError
from newsletter.sending.models import Delivery, Send
from newsletter.sending.states import ENDED

_send, _delivery = table_of(Send), table_of(Delivery)


def require_open(session: Session, issue_id: int) -> None:
    """Raise SendError if the issue is closed, because it is not known who has it."""
    closed = select(_send.c.summarized_at).where(
        _send.c.issue_id == issue_id, _send.c.summarized_at.is_not(None)
    )
    when = session.execute(closed.limit(1)).scalar()
    if when is not None:
        raise SendError(
            f"its recipients were deleted on {when:%Y-%m-%d}, after their retention time",
            place=f"issue {issue_id}",
            hint="Send its text under another slug, as a new issue.",
        )


def old_issues(session: Session, *, before: datetime) -> list[int]:
    """Issues that are not closed, and whose sends all ended before this time."""
    last = func.max(func.coalesce(_send.c.finished_at, _send.c.created_at))
    under_way = func.count().filter(_send.c.state.not_in(ENDED))
    rows = (
        select(_send.c.issue_id)
        .group_by(_send.c.issue_id)
        .having(last < before, under_way == 0, func.count(_send.c.summarized_at) == 0)
        .order_by(_send.c.issue_id)
    )
    return list(session.scalars(rows))


def close_issue(session: Session, issue_id: int, *, now: datetime) -> None:
    """Store the totals by state in each send of an issue; deletes no deliveries yet."""
    totals: dict[int, dict[str, int]] = {}
    for send_id, state, people in session.execute(
        select(_delivery.c.send_id, _delivery.c.state, func.count())
        .where(_delivery.c.issue_id == issue_id)
        .group_by(_delivery.c.send_id, _delivery.c.state)
    ):
        totals.setdefault(send_id, {})[state] = people
    for send_id in session.scalars(select(_send.c.id).where(_send.c.issue_id == issue_id)).all():
        session.execute(
            update(_send)
            .where(_send.c.id == send_id)
            .values(summarized_at=now, final_counts=totals.get(send_id, {}))
        )


def delete_deliveries(session: Session, *, at_most: int) -> int:
    """Delete up to ``at_most`` deliveries of a closed issue; returns how many, 0 at the end."""
    has_deliveries = exists(select(1).where(_delivery.c.issue_id == _send.c.issue_id))
    closed = (
        select(_send.c.issue_id).where(_send.c.summarized_at.is_not(None), has_deliveries).limit(1)
    )
    issue_id = session.scalar(closed)
    if issue_id is None:
        return 0
    of_issue = _delivery.c.issue_id == issue_id
    some = select(_delivery.c.subscriber_id).where(of_issue).limit(at_most)
    return changed(session, delete(_delivery).where(of_issue, _delivery.c.subscriber_id.in_(some)))
