"""Finds when work becomes due next. The clock, the workers and the imports wait for this time."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, literal_column, select, union_all

from newsletter.db.orm import Session, table_of
from newsletter.imports.models import UNDER_WAY, ImportJob
from newsletter.scheduling.models import Schedule, ScheduleState
from newsletter.sending.models import Batch, OutboxEmail, Part, ProviderBackoff, Send, Worker
from newsletter.sending.states import BatchState, SendState
from newsletter.tracking.models import ListRemoval
from newsletter.tracking.stats import ab_test_results
from newsletter.webhooks import deliveries as webhook_deliveries

_send, _batch, _backoff = table_of(Send), table_of(Batch), table_of(ProviderBackoff)
_outbox, _worker, _removal = table_of(OutboxEmail), table_of(Worker), table_of(ListRemoval)
_schedule, _import = table_of(Schedule), table_of(ImportJob)

#: A literal, not a parameter, so that the database can use partial indexes.
_PENDING: ColumnElement[str] = literal_column(f"'{BatchState.PENDING}'")
_UNDER_WAY = _batch.c.state.in_([BatchState.CLAIMED, BatchState.IN_FLIGHT])


def next_due(session: Session, now: datetime, *, grace: timedelta) -> datetime | None:
    """When something becomes due: now or earlier if something is due already; None for nothing.

    ``grace`` is how long a batch may be uncertain before uncertain_policy applies. Other
    work starts at the wakeup every half minute.
    """
    times = [
        # Work that starts: sends, schedules, batches, single emails, removals from provider
        # lists, webhooks.
        select(func.min(_send.c.scheduled_for)).where(_send.c.state == SendState.SCHEDULED),
        select(func.min(_schedule.c.next_at)).where(_schedule.c.state == ScheduleState.ACTIVE),
        select(func.min(_batch.c.not_before))
        .join(_send, _send.c.id == _batch.c.send_id)
        .where(
            _batch.c.state == _PENDING,
            _batch.c.part != Part.REST,
            _send.c.state == SendState.SENDING,
        ),
        select(func.min(_outbox.c.not_before)).where(_outbox.c.state == _PENDING),
        select(func.min(_removal.c.next_at)).where(_removal.c.done_at.is_(None)),
        webhook_deliveries.next_due(),
        # Waits that end: the backoff after provider errors, and leases.
        select(func.min(_backoff.c.until)).where(_backoff.c.until > now),
        select(func.min(_batch.c.lease_until)).where(_UNDER_WAY),
        select(func.min(_worker.c.alive_until)).where(
            _worker.c.name.in_(select(_batch.c.worker).where(_UNDER_WAY))
        ),
        select(func.min(_outbox.c.lease_until)).where(_outbox.c.state == BatchState.IN_FLIGHT),
        select(func.min(_import.c.alive_until)).where(_import.c.state.in_(list(UNDER_WAY))),
    ]
    found = list(session.scalars(union_all(*times)))
    uncertain = _batch.c.state == BatchState.UNCERTAIN, _batch.c.departed_at > now - grace
    if (
        departed_at := session.scalar(select(func.min(_batch.c.departed_at)).where(*uncertain))
    ) is not None:
        found.append(departed_at + grace)
    tested = select(_send.c.id).where(
        _send.c.state == SendState.SENDING,
        _send.c.winner.is_(None),
        _send.c.started_at.is_not(None),
    )
    found += [
        ab_test_results.decision(session, send_id)[0] for send_id in session.scalars(tested).all()
    ]
    return min((time for time in found if time is not None), default=None)
