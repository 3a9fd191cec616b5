"""Finds out whether the provider's event webhook is silent although emails left."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import BatchState, SendState
from newsletter.tracking.models import EventRow

_event, _send, _batch = table_of(EventRow), table_of(Send), table_of(Batch)
#: Emails that left before this time are not waited for any more.
_RECENT = timedelta(days=3)
#: The provider's clock may differ from ours, and its events have whole seconds.
_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class EventSilence:
    """Emails that the provider accepted, and no event since."""

    #: When the first of these emails left.
    since: datetime
    emails: int
    last_event: datetime | None


def find(session: Session, *, limit: timedelta, now: datetime) -> EventSilence | None:
    """The silence, if it has lasted for ``limit``; None if events come or ``limit`` is zero.

    Events are compared by the time at which they happened, which an index has. An unsubscribe by
    our own link does not prove that the webhook works.
    """
    if not limit:
        return None
    last_event = session.scalar(
        select(_event.c.at)
        .where(_event.c.at <= now, _event.c.kind != EventKind.UNSUBSCRIBE)
        .order_by(_event.c.at.desc())
        .limit(1)
    )
    after = max((last_event or now - _RECENT) + _TOLERANCE, now - _RECENT)
    recent = select(_send.c.id).where(
        _send.c.started_at.is_not(None),
        _send.c.state != SendState.CANCELLED,
        _send.c.finished_at.is_(None) | (_send.c.finished_at > after),
    )
    since, emails = session.execute(
        select(func.min(_batch.c.departed_at), func.sum(_batch.c.size)).where(
            _batch.c.send_id.in_(recent),
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.departed_at > after,
        )
    ).one()
    if since is None or since > now - limit:
        return None
    return EventSilence(since, int(emails), last_event)


def occasions(session: Session, *, limit: timedelta, now: datetime) -> list[Occasion]:
    """The message about this silence. The last event before it tells silences apart."""
    silence = find(session, limit=limit, now=now)
    if silence is None:
        return []
    began = silence.last_event.isoformat() if silence.last_event else ""
    emails = f"{silence.emails:,} email{'' if silence.emails == 1 else 's'}"
    detail = f"{emails} left since {silence.since:%Y-%m-%d %H:%M} UTC. The last event was "
    detail += f"of {silence.last_event:%Y-%m-%d %H:%M} UTC." if silence.last_event else "never."
    return [Occasion(MessageKind.EVENTS_SILENT, "", began, detail)]
