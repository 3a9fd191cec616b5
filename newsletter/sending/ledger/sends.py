"""Changes the state of sends; a transition that states.py does not allow changes nothing."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import bindparam, exists, func, select, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db import webhook_queue
from newsletter.db.orm import Session, changed, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.issues.models import Issue
from newsletter.sending import traces
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.reasons import PauseCause, is_failure, remedy
from newsletter.sending.states import (
    UNSETTLED,
    DeliveryState,
    SendState,
    sends_that_may_become,
)

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_issue = table_of(Issue)

_FINISHED = select(_send.c.id).where(
    _send.c.state == SendState.SENDING,
    ~exists(select(1).where(_batch.c.send_id == _send.c.id, _batch.c.state.in_(UNSETTLED))),
)
_PLANNED_COUNT = select(func.count()).where(
    _delivery.c.send_id == bindparam("of_send"), _delivery.c.state == DeliveryState.PLANNED
)

#: Recipients whose email the provider accepted, once none is planned any more.
_ACCEPTED = (
    _send.c.planned
    - _send.c.transferred
    - select(func.count())
    .where(
        _delivery.c.send_id == _send.c.id,
        _delivery.c.state.in_([DeliveryState.SKIPPED, DeliveryState.REJECTED]),
        _delivery.c.reason.is_not(None),  # they have one, and an index by it
    )
    .scalar_subquery()
)


def move_send(
    session: Session,
    send_id: int,
    target: SendState,
    *,
    only_from: Collection[SendState] | None = None,
    paused_by: PauseCause | None = None,
    **values: object,
) -> bool:
    """Move a send to ``target`` if its state allows that; otherwise returns False.

    ``paused_by`` is for a pause; any other transition clears it.
    """
    sources = sends_that_may_become(target) & frozenset(only_from or SendState)
    moved = changed(
        session,
        update(_send)
        .where(_send.c.id == send_id, _send.c.state.in_(sources))
        .values(state=target, paused_by=paused_by, **values),
    )
    return moved == 1


def pause(
    session: Session,
    send_id: int,
    cause: PauseCause,
    *,
    reason: str,
    now: datetime,
    only_from: Collection[SendState] | None = None,
    **values: object,
) -> bool:
    """Pause a send and email the operators; returns False when it has ended."""
    paused = move_send(
        session,
        send_id,
        SendState.PAUSED,
        only_from=only_from,
        paused_by=cause,
        reason=reason[:1000],
        paused_at=now,
        **values,
    )
    if paused:
        operator_messages.post(
            session,
            MessageKind.SEND_PAUSED,
            send_id,
            now=now,
            occasion=now.isoformat(),
            detail=f"{reason[:1000].rstrip('.')}. {remedy(cause)}",
        )
        report_pause(session, send_id, cause, reason=reason, now=now)
    return paused


def report(
    session: Session, event: WebhookEvent, send_id: int, *, now: datetime, **more: str
) -> None:
    """Report an event of a send to webhook endpoints."""

    def data() -> dict[str, object]:
        row = session.execute(
            select(_send, _issue.c.slug, _issue.c.title)
            .join(_issue, _issue.c.id == _send.c.issue_id)
            .where(_send.c.id == send_id)
        ).one()
        send = {
            "id": row.id,
            "issue": row.slug,
            "title": row.title,
            "state": row.state,
            "scheduled_for": row.scheduled_for.isoformat(),
            "recipients": row.planned,
            "accepted": row.accepted_count,
        }
        return {"send": send, **more}

    webhook_queue.report(session, event, data, now=now)


def report_pause(
    session: Session, send_id: int, cause: PauseCause, *, reason: str, now: datetime
) -> None:
    """Report a pause to webhook endpoints, and a failure if the send could not go on."""
    why = {"cause": cause.value, "reason": reason[:1000], "remedy": remedy(cause)}
    report(session, WebhookEvent.SEND_PAUSED, send_id, now=now, **why)
    if is_failure(cause):
        report(session, WebhookEvent.SEND_FAILED, send_id, now=now, **why)


def pause_scheduled(
    session: Session, send_id: int, cause: PauseCause, *, reason: str, now: datetime
) -> bool:
    """Pause a scheduled send, so that an operator decides; False when it has started."""
    only = [SendState.SCHEDULED]
    return pause(session, send_id, cause, reason=reason, now=now, only_from=only)


def finish(session: Session, *, now: datetime) -> int:
    """Mark sends without an open batch as sent; returns how many there are.

    A send that then still has planned recipients is paused. They are in no batch, which only a
    bug or a change by another program can cause.
    """
    done = session.scalars(_FINISHED).all()
    for send_id in done:
        in_no_batch = session.scalar(_PLANNED_COUNT, {"of_send": send_id})
        if in_no_batch:
            why = f"{in_no_batch:,} recipients are in no batch"
            pause(session, send_id, PauseCause.DEFECT, reason=why, now=now)
        elif move_send(session, send_id, SendState.SENT, finished_at=now, accepted_count=_ACCEPTED):
            archive_queries.publish(session, send_id, now=now)
            traces.ended(session, send_id, now=now)
            report(session, WebhookEvent.SEND_FINISHED, send_id, now=now)
    return len(done)
