"""How far back the stored events reach. The counters of older sends are final.

They cannot be counted again, because a part of their events is deleted.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import exists, func, select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Send
from newsletter.tracking.models import EventHorizon, EventRow

_horizon, _event, _send = table_of(EventHorizon), table_of(EventRow), table_of(Send)
_NAME = "event"


def horizon(session: Session) -> datetime | None:
    """Events from before this time are deleted; None while all of them are there."""
    return session.scalar(select(_horizon.c.before))


def move(session: Session, before: datetime) -> None:
    """Move the horizon forward to ``before``, if there are events from before it."""
    if not session.scalar(select(exists(select(1).where(_event.c.at < before)))):
        return
    insert = insert_into(session, _horizon).values(name=_NAME, before=before)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"before": insert.excluded.before},
            where=_horizon.c.before < insert.excluded.before,
        )
    )


def final_sends(session: Session, send_ids: Collection[int] | None = None) -> set[int]:
    """Those of these sends (None: of all) whose counters are final."""
    before = horizon(session)
    if before is None:
        return set()
    started = func.coalesce(_send.c.started_at, _send.c.created_at)
    old = select(_send.c.id).where(started < before)
    if send_ids is not None:
        old = old.where(_send.c.id.in_(send_ids))
    return set(session.scalars(old))
