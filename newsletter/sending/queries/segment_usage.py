"""Which sends that are not over are made for a segment. They keep the rule that they had."""

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from subscribers.models import Segment

_send = table_of(Send)
_OVER = (SendState.SENT, SendState.CANCELLED)


def unfinished_sends(session: Session, segment: Segment) -> list[int]:
    """The numbers of unfinished sends to this segment, or that leave it out; they are few.

    Also those that were made when it had another name.
    """
    rows = session.execute(
        select(_send.c.id, _send.c.segments, _send.c.excluded)
        .where(_send.c.state.not_in(_OVER))
        .order_by(_send.c.id)
    )
    return [
        row.id
        for row in rows
        if any(
            segment.id == one["id"] if "id" in one else segment.name == one.get("name")
            for one in (*row.segments, *row.excluded)
        )
    ]
