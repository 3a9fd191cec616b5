"""Figures of a send, kept as events arrive, so that no page has to count rows."""

from collections.abc import Mapping

from sqlalchemy import select

from newsletter.tracking.models import SendCount
from subscribers.schema import Session, insert_into, table_of

_count = table_of(SendCount)


def add(session: Session, more: Mapping[tuple[int, str], int]) -> None:
    """Add to the figures: (send, what) → how many more."""
    if not more:
        return
    insert = insert_into(session, _count)
    statement = insert.on_conflict_do_update(
        index_elements=["send_id", "what"], set_={"count": _count.c.count + insert.excluded.count}
    )
    # Always in the same order: two posts that count the same send must not deadlock.
    rows = [
        {"send_id": send_id, "what": str(what), "count": number}
        for (send_id, what), number in sorted(more.items())
    ]
    session.connection().execute(statement, rows)


def of_send(session: Session, send_id: int) -> dict[str, int]:
    """What → how many, of one send."""
    rows = session.execute(select(_count.c.what, _count.c.count).where(_count.c.send_id == send_id))
    return {row[0]: row[1] for row in rows}
