"""Reads what is due to be sent, for the monitoring."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, literal_column, select

from newsletter.db.orm import Session, table_of
from newsletter.sending import heartbeat
from newsletter.sending.ledger import provider_backoff, restore_gate
from newsletter.sending.models import Batch, Part, Send
from newsletter.sending.states import BatchState, SendState

_send, _batch = table_of(Send), table_of(Batch)
#: A literal, not a parameter, so that the database can use the partial index.
_PENDING: ColumnElement[str] = literal_column(f"'{BatchState.PENDING}'")


def oldest_due_batch(session: Session, *, now: datetime) -> datetime | None:
    """When the oldest batch became due that a worker could claim; None if none is due."""
    found: datetime | None = session.scalar(
        select(func.min(_batch.c.not_before))
        .join(_send, _send.c.id == _batch.c.send_id)
        .where(
            _batch.c.state == _PENDING,
            _batch.c.part != Part.REST,
            _batch.c.not_before <= now,
            _send.c.state == SendState.SENDING,
        )
    )
    return found


def neglected_since(session: Session, *, now: datetime, patience: timedelta) -> datetime | None:
    """Since when a batch is due that nobody sends; None while somebody sends, or nobody may."""
    due = oldest_due_batch(session, now=now)
    if due is None or now - due < patience or heartbeat.alive(session, now):
        return None
    if provider_backoff.in_force(session, now=now) or restore_gate.unsettled_logs(session):
        return None
    return due
