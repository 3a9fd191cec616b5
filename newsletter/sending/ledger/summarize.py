"""Deliveries of old issues: summed up in their sends, and then removed.

Once the first of them is gone nobody can say who had the issue, so summing up closes it:
no send may hand it to anybody any more.
"""

from datetime import datetime

from sqlalchemy import delete, exists, func, select, update

from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import SendError
from newsletter.sending.models import Delivery, Send
from newsletter.sending.states import SendState

_send, _delivery = table_of(Send), table_of(Delivery)
_ENDED = (SendState.SENT, SendState.CANCELLED)


def require_open(session: Session, issue_id: int) -> None:
    """Raise SendError when the issue was closed: who has it is not known any more."""
    closed = select(_send.c.summarized_at).where(
        _send.c.issue_id == issue_id, _send.c.summarized_at.is_not(None)
    )
    when = session.execute(closed.limit(1)).scalar()
    if when is not None:
        raise SendError(
            f"who had this issue is not kept any more, since {when:%Y-%m-%d}",
            place=f"issue {issue_id}",
            hint="Send its text under another slug, as an issue of its own.",
        )


def old_issues(session: Session, *, before: datetime) -> list[int]:
    """Issues all of whose sends ended before that, and which are not closed yet."""
    last = func.max(func.coalesce(_send.c.finished_at, _send.c.created_at))
    under_way = func.count().filter(_send.c.state.not_in(_ENDED))
    rows = (
        select(_send.c.issue_id)
        .group_by(_send.c.issue_id)
        .having(last < before, under_way == 0, func.count(_send.c.summarized_at) == 0)
        .order_by(_send.c.issue_id)
    )
    return list(session.scalars(rows))


def close(session: Session, issue_id: int, *, now: datetime) -> None:
    """Sum up the deliveries of each send of an issue, by state; none of them goes yet."""
    sums: dict[int, dict[str, int]] = {}
    for send_id, state, people in session.execute(
        select(_delivery.c.send_id, _delivery.c.state, func.count())
        .where(_delivery.c.issue_id == issue_id)
        .group_by(_delivery.c.send_id, _delivery.c.state)
    ):
        sums.setdefault(send_id, {})[state] = people
    for send_id in session.scalars(select(_send.c.id).where(_send.c.issue_id == issue_id)).all():
        session.execute(
            update(_send)
            .where(_send.c.id == send_id)
            .values(summarized_at=now, final_counts=sums.get(send_id, {}))
        )


def remove(session: Session, *, at_most: int) -> int:
    """Remove so many deliveries of closed issues; returns how many there were, 0 at the end."""
    left = exists(select(1).where(_delivery.c.issue_id == _send.c.issue_id))
    closed = select(_send.c.issue_id).where(_send.c.summarized_at.is_not(None), left).limit(1)
    issue_id = session.scalar(closed)
    if issue_id is None:
        return 0
    of_issue = _delivery.c.issue_id == issue_id
    some = select(_delivery.c.subscriber_id).where(of_issue).limit(at_most)
    return changed(session, delete(_delivery).where(of_issue, _delivery.c.subscriber_id.in_(some)))
