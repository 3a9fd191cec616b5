"""Which sends that are not over are made for a segment. They keep the rule that they had."""

from sqlalchemy import select

from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from subscribers.schema import Session, table_of

_send = table_of(Send)
_OVER = (SendState.SENT, SendState.CANCELLED)


def unfinished(session: Session, name: str) -> list[int]:
    """The numbers of unfinished sends to this segment, or that leave it out; they are few."""
    rows = session.execute(
        select(_send.c.id, _send.c.segments, _send.c.excluded)
        .where(_send.c.state.not_in(_OVER))
        .order_by(_send.c.id)
    )
    return [
        row.id
        for row in rows
        if name in {one.get("name") for one in (*row.segments, *row.excluded)}
    ]
