"""Finds out whether the provider's event webhook is silent although emails left."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select

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
TOLERANCE: Final = timedelta(minutes=5)
#: Key of Send.breaker_baseline: the ``mark`` of the silence for which a rule paused the send.
TOLD: Final = "silent"


@dataclass(frozen=True, slots=True)
class EventSilence:
    """Emails that the provider accepted, and no event since."""

    #: When the first of these emails left.
    since: datetime
    emails: int
    last_event: datetime | None

    def occasion(self, say: str = "") -> Occasion:
        """The message about this silence. The last event before it tells silences apart."""
        began = self.last_event.isoformat() if self.last_event else ""
        emails = f"{self.emails:,} email{'' if self.emails == 1 else 's'}"
        detail = f"{emails} left since {self.since:%Y-%m-%d %H:%M} UTC. The last event was "
        detail += f"of {self.last_event:%Y-%m-%d %H:%M} UTC" if self.last_event else "never"
        return Occasion(
            MessageKind.EVENTS_SILENT, "", began, f"{detail}: {say}" if say else f"{detail}."
        )


def find(session: Session, *, limit: timedelta, now: datetime) -> EventSilence | None:
    """The silence, if it has lasted for ``limit``; None if events come or ``limit`` is zero.

    Events are compared by the time at which they happened, which an index has. An unsubscribe by
    our own link does not prove that the webhook works.
    """
    if not limit:
        return None
    last = last_event(session, now=now)
    after = max((last or now - _RECENT) + TOLERANCE, now - _RECENT)
    recent = select(_send.c.id).where(_is_recent(after), _send.c.state != SendState.CANCELLED)
    return _silence(session, _batch.c.send_id.in_(recent), last, after, now - limit)


def of_send(
    session: Session,
    send_id: int,
    *,
    limit: timedelta,
    now: datetime,
    departed_after: datetime | None = None,
    received_by: datetime | None = None,
    departed_by: datetime | None = None,
) -> EventSilence | None:
    """The silence, as ``find``, since emails of this send left; events of any send end it.

    ``received_by`` and ``departed_by`` leave out what came later: the silence as it was then.
    """
    last = last_event(session, now=now, received_by=received_by)
    after = max((last or now - _RECENT) + TOLERANCE, now - _RECENT)
    after = max(after, departed_after or after)
    if after > now - limit:
        return None
    batches = _batch.c.send_id == send_id
    if departed_by is not None:
        batches &= _batch.c.departed_at <= departed_by
    return _silence(session, batches, last, after, now - limit)


def last_event(
    session: Session, *, now: datetime, received_by: datetime | None = None
) -> datetime | None:
    """When the last event up to ``now`` happened, of those received by then."""
    known = (_event.c.at <= now) & (_event.c.kind != EventKind.UNSUBSCRIBE)
    if received_by is not None:
        known &= _event.c.received_at <= received_by
    return session.scalar(select(_event.c.at).where(known).order_by(_event.c.at.desc()).limit(1))


def last_departures(session: Session, send_ids: Collection[int]) -> dict[int, datetime]:
    """Send → when its last accepted email left."""
    rows = session.execute(
        select(_batch.c.send_id, func.max(_batch.c.departed_at))
        .where(
            _batch.c.send_id.in_(send_ids),
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.departed_at.is_not(None),
        )
        .group_by(_batch.c.send_id)
    )
    return {row.send_id: row[1] for row in rows}


def mark(session: Session, *, now: datetime) -> int:
    """What tells this silence from others: when the last event happened, in seconds since 1970."""
    last = last_event(session, now=now)
    return int(last.timestamp()) if last else 0


def occasions(session: Session, *, limit: timedelta, now: datetime) -> list[Occasion]:
    """The message about this silence, unless a rule has paused a send for it, with a message."""
    silence = find(session, limit=limit, now=now)
    if silence is None:
        return []
    this = mark(session, now=now)
    baselines = session.scalars(select(_send.c.breaker_baseline).where(_is_recent(now - _RECENT)))
    told = any(baseline.get(TOLD) == this for baseline in baselines)
    return [] if told else [silence.occasion()]


def _is_recent(after: datetime) -> ColumnElement[bool]:
    """Whether a send has started, and did not end before this time."""
    ended_later = _send.c.finished_at.is_(None) | (_send.c.finished_at > after)
    return _send.c.started_at.is_not(None) & ended_later


def _silence(
    session: Session,
    batches: ColumnElement[bool],
    last: datetime | None,
    after: datetime,
    before: datetime,
) -> EventSilence | None:
    since, emails = session.execute(
        select(func.min(_batch.c.departed_at), func.sum(_batch.c.size)).where(
            batches, _batch.c.state == BatchState.ACCEPTED, _batch.c.departed_at > after
        )
    ).one()
    if since is None or since > before:
        return None
    return EventSilence(since, int(emails), last)
