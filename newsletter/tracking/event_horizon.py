"""How far back events reach: figures of sends from before are final, and made from nothing else."""

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
    """Events from before this are gone; None while all are there."""
    return session.scalar(select(_horizon.c.before))


def move(session: Session, before: datetime) -> None:
    """Announce that events from before this go, if there are any."""
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


def final(session: Session, send_ids: Collection[int] | None = None) -> set[int]:
    """Which of these sends (of all) have figures that stand for good."""
    before = horizon(session)
    if before is None:
        return set()
    started = func.coalesce(_send.c.started_at, _send.c.created_at)
    old = select(_send.c.id).where(started < before)
    if send_ids is not None:
        old = old.where(_send.c.id.in_(send_ids))
    return set(session.scalars(old))
