"""The gauges whose values come from the database, so that all processes agree about them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, func, literal_column, select

from newsletter import metrics
from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.metrics import Gauge, Values
from newsletter.scheduling.leadership import is_held
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import Batch, OutboxEmail, Send
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, SendState
from newsletter.sending.workers import due_work

_send, _batch, _outbox = table_of(Send), table_of(Batch), table_of(OutboxEmail)
_OPEN = (SendState.SENDING, SendState.PAUSED)
#: A literal, not a parameter, so that the database can use partial indexes.
_IS_PENDING = _outbox.c.state == literal_column(f"'{BatchState.PENDING}'")


def read(database: Engine, *, now: datetime) -> dict[Gauge, Values]:
    """Read all of them: a few queries by index or of small tables, none of deliveries."""
    with reading(database) as session:
        outbox = session.execute(
            select(func.count(), func.min(_outbox.c.created_at)).where(_IS_PENDING)
        ).one()
        return {
            metrics.DATABASE_UP: {(): 1},
            metrics.SENDS: _by(SendState, session.execute(_SENDS)),
            metrics.SENDS_PAUSED: _by(PauseCause, session.execute(_PAUSED)),
            metrics.BATCHES: _by(BatchState, session.execute(_BATCHES)),
            metrics.UNCERTAIN_BATCHES: {(): session.scalar(_UNCERTAIN) or 0},
            metrics.OLDEST_DUE_BATCH: {(): _age(due_work.oldest_due_batch(session, now=now), now)},
            metrics.OUTBOX: {(): outbox[0]},
            metrics.OUTBOX_AGE: {(): _age(outbox[1], now)},
            metrics.BACKOFF: {(): int(provider_backoff.in_force(session, now=now) is not None)},
            metrics.CLOCK_HELD: {(): int(is_held(database))},
        }


_SENDS = select(_send.c.state, func.count()).group_by(_send.c.state)
_PAUSED = (
    select(_send.c.paused_by, func.count())
    .where(_send.c.state == SendState.PAUSED)
    .group_by(_send.c.paused_by)
)
_BATCHES = (
    select(_batch.c.state, func.count())
    .where(_batch.c.send_id.in_(select(_send.c.id).where(_send.c.state.in_(_OPEN))))
    .group_by(_batch.c.state)
)
#: Batches of cancelled sends stay uncertain; sent sends have none.
_UNCERTAIN = select(func.count()).where(
    _batch.c.send_id.in_(
        select(_send.c.id).where(_send.c.state.in_([*_OPEN, SendState.CANCELLED]))
    ),
    _batch.c.state == BatchState.UNCERTAIN,
)


def _by(known: Iterable[str], rows: Iterable[Any]) -> Values:
    """The counts by label, with 0 for the values without a row."""
    counts: dict[tuple[str, ...], float] = {(str(value),): 0.0 for value in known}
    counts.update({(str(row[0]),): float(row[1]) for row in rows})
    return counts


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since is not None else 0.0
