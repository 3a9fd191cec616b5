"""Finds the unfinished sends that use a segment or a topic.

A send keeps the expressions of its segments and the topics of its issue from its creation.
"""

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Send
from newsletter.sending.states import ENDED
from subscribers.models import Segment

_send = table_of(Send)


def unfinished_sends(session: Session, segment: Segment) -> list[int]:
    """The ids of unfinished sends to this segment, or that exclude it.

    Includes sends that were created when the segment had another name.
    """
    rows = session.execute(
        select(_send.c.id, _send.c.segments, _send.c.excluded)
        .where(_send.c.state.not_in(ENDED))
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


def unfinished_sends_on(session: Session, slug: str) -> list[int]:
    """The ids of unfinished sends of an issue on this topic."""
    rows = session.execute(
        select(_send.c.id, _send.c.topics).where(_send.c.state.not_in(ENDED)).order_by(_send.c.id)
    )
    return [row.id for row in rows if slug in row.topics]
