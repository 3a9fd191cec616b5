"""A subscriber's history: consents, suppressions, deliveries, events and single emails.

Each source is read by an index, only as far as the page needs, and then the sources are merged in
order of time. No query reads another subscriber's rows.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import Row, Select, func, select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.provider.events import EventKind
from newsletter.sending.models import Batch, Delivery, OutboxEmail, Send
from newsletter.tracking.models import EventRow
from newsletter.tracking.people.privacy import is_delivery_to
from subscribers.models import Consent, Subscriber, Suppression

_issue, _send, _batch = table_of(Issue), table_of(Send), table_of(Batch)
_delivery, _event, _email = table_of(Delivery), table_of(EventRow), table_of(OutboxEmail)
_consent, _suppression = table_of(Consent), table_of(Suppression)

_PAGE_SIZE = 50
#: The history ends after this many pages; the subscriber's data export has everything.
_MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened. Texts come from outside, so a page has to escape them."""

    at: datetime
    #: ``person``, ``consent``, ``delivery``, ``event``, ``suppression`` or ``mail``.
    sort: str
    #: What happened, by the name that its sort uses: an act of consent, a state, an event kind.
    what: str
    #: The title of the issue.
    issue: str = ""
    send_id: int | None = None
    #: The evidence, or an explanation.
    detail: str = ""
    #: Where it came from: a form, an import, a network address.
    source: str = ""
    by_machine: bool = False


def of_subscriber(
    session: Session, subscriber: Subscriber, *, page: int = 0
) -> tuple[list[HistoryEntry], bool]:
    """A page of the history, the latest entry first, and whether there is another page."""
    page = max(0, min(page, _MAX_PAGES - 1))
    first, end = page * _PAGE_SIZE, (page + 1) * _PAGE_SIZE + 1
    sources = (
        [HistoryEntry(subscriber.created_at, "person", "joined", source=subscriber.source)],
        _suppressions(session, subscriber),
        _consents(session, subscriber, end),
        _deliveries(session, subscriber, end),
        _events(session, subscriber, end),
        _emails(session, subscriber, end),
    )
    # Entries of the same time: the sources are in order of cause, so a consequence is above it.
    merged = heapq.merge(*reversed(sources), key=lambda entry: entry.at, reverse=True)
    entries = list(islice(merged, first, end))
    return entries[:_PAGE_SIZE], len(entries) > _PAGE_SIZE and page + 1 < _MAX_PAGES


def _suppressions(session: Session, subscriber: Subscriber) -> list[HistoryEntry]:
    row = session.execute(
        select(_suppression).where(_suppression.c.address_hash == subscriber.address_hash)
    ).one_or_none()
    if row is None:
        return []
    entries = [HistoryEntry(row.at, "suppression", row.reason, detail=row.evidence)]
    if row.underlying_reason:
        entries.append(HistoryEntry(row.underlying_at, "suppression", row.underlying_reason))
    return sorted(entries, key=lambda entry: entry.at, reverse=True)


def _consents(session: Session, subscriber: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    query = select(_consent).where(_consent.c.subscriber_id == subscriber.id)
    for row in session.execute(
        query.order_by(_consent.c.at.desc(), _consent.c.id.desc()).limit(limit)
    ):
        source = " · ".join(part for part in (row.source, row.ip) if part)
        yield HistoryEntry(row.at, "consent", row.act, detail=row.wording, source=source)


def _deliveries(session: Session, subscriber: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    at = func.coalesce(
        _batch.c.departed_at, _batch.c.settled_at, _send.c.started_at, _send.c.created_at
    ).label("at")
    columns = (_delivery.c.send_id, _delivery.c.state, _delivery.c.reason, _issue.c.title, at)
    query = (
        select(*columns)
        .select_from(_delivery)
        .join(_issue, _issue.c.id == _delivery.c.issue_id)
        .join(_send, _send.c.id == _delivery.c.send_id)
        .outerjoin(
            _batch,
            (_batch.c.send_id == _delivery.c.send_id) & (_batch.c.number == _delivery.c.batch),
        )
        .where(is_delivery_to(subscriber.id))
        .order_by(at.desc(), _issue.c.id.desc())
        .limit(limit)
    )
    for row in session.execute(query):
        yield HistoryEntry(
            row.at, "delivery", row.state, row.title, row.send_id, detail=row.reason or ""
        )


def _events(session: Session, subscriber: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    query: Select[Any] = (
        select(_event, _issue.c.title)
        .outerjoin(_issue, _issue.c.id == _event.c.issue_id)
        .where(_event.c.subscriber_id == subscriber.id, _event.c.kind != EventKind.PROCESSED)
        .order_by(_event.c.at.desc(), _event.c.key)
        .limit(limit)
    )
    for row in session.execute(query):
        yield HistoryEntry(
            row.at,
            "event",
            row.kind,
            row.title or "",
            row.send_id,
            detail=row.link or _reason(row.raw),
            by_machine=row.by_machine,
        )


def _emails(session: Session, subscriber: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    columns = _email.c.created_at, _email.c.kind, _email.c.subject, _email.c.state
    rows: Iterable[Row[Any]] = session.execute(
        select(*columns, _email.c.outcome, _email.c.outcome_reason)
        .where(_email.c.email == subscriber.email)
        .order_by(_email.c.created_at.desc(), _email.c.id.desc())
        .limit(limit)
    )
    for row in rows:
        detail = " · ".join(part for part in (row.subject, row.outcome_reason) if part)
        yield HistoryEntry(row.created_at, "mail", row.outcome or row.state, detail=detail)


def _reason(raw: str) -> str:
    """The receiving server's answer in a stored event; empty where the event was erased."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ""
    reason = fields.get("reason") or fields.get("response") or fields.get("by") or ""
    return str(reason)[:500]
