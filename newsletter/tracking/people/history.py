"""One person's history: what they agreed to, what they were sent, and what became of it.

Each source is asked for as much as the page needs, by an index on the person, and the
sources are then put in order. Nothing here reads more than one person's rows.
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
from newsletter.tracking.people.privacy import theirs
from subscribers.models import Consent, Subscriber, Suppression

_issue, _send, _batch = table_of(Issue), table_of(Send), table_of(Batch)
_delivery, _event, _notice = table_of(Delivery), table_of(EventRow), table_of(OutboxEmail)
_consent, _suppression = table_of(Consent), table_of(Suppression)

A_PAGE = 50
#: Further back than this many pages nobody reads: an export holds everything.
MOST_PAGES = 100


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened. ``words`` are ours; all other texts are others', to be escaped."""

    at: datetime
    #: ``person``, ``consent``, ``delivery``, ``event``, ``suppression`` or ``mail``.
    sort: str
    #: What happened, by the name that its sort has for it: an act, a state, a kind of event.
    what: str
    #: The issue that it is about.
    issue: str = ""
    send_id: int | None = None
    #: What shows or explains it.
    detail: str = ""
    #: Where it came from: a form, an import, a network address.
    source: str = ""
    by_machine: bool = False


def of_person(
    session: Session, person: Subscriber, *, page: int = 0
) -> tuple[list[HistoryEntry], bool]:
    """A page of the history, the youngest first, and whether there is more."""
    page = max(0, min(page, MOST_PAGES - 1))
    first, enough = page * A_PAGE, (page + 1) * A_PAGE + 1
    sources = (
        [HistoryEntry(person.created_at, "person", "joined", source=person.source)],
        _suppressions(session, person),
        _consents(session, person, enough),
        _deliveries(session, person, enough),
        _events(session, person, enough),
        _mails(session, person, enough),
    )
    # Of one moment, consequences stand above their causes: the sources are in order of life.
    merged = heapq.merge(*reversed(sources), key=lambda entry: entry.at, reverse=True)
    entries = list(islice(merged, first, enough))
    return entries[:A_PAGE], len(entries) > A_PAGE and page + 1 < MOST_PAGES


def _suppressions(session: Session, person: Subscriber) -> list[HistoryEntry]:
    row = session.execute(
        select(_suppression).where(_suppression.c.address_hash == person.address_hash)
    ).one_or_none()
    if row is None:
        return []
    found = [HistoryEntry(row.at, "suppression", row.reason, detail=row.evidence)]
    if row.underlying_reason:
        found.append(HistoryEntry(row.underlying_at, "suppression", row.underlying_reason))
    return sorted(found, key=lambda entry: entry.at, reverse=True)


def _consents(session: Session, person: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    mine = select(_consent).where(_consent.c.subscriber_id == person.id)
    for row in session.execute(
        mine.order_by(_consent.c.at.desc(), _consent.c.id.desc()).limit(limit)
    ):
        source = " · ".join(part for part in (row.source, row.ip) if part)
        yield HistoryEntry(row.at, "consent", row.act, detail=row.wording, source=source)


def _deliveries(session: Session, person: Subscriber, limit: int) -> Iterator[HistoryEntry]:
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
        .where(theirs(person.id))
        .order_by(at.desc(), _issue.c.id.desc())
        .limit(limit)
    )
    for row in session.execute(query):
        yield HistoryEntry(
            row.at, "delivery", row.state, row.title, row.send_id, detail=row.reason or ""
        )


def _events(session: Session, person: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    mine: Select[Any] = (
        select(_event, _issue.c.title)
        .outerjoin(_issue, _issue.c.id == _event.c.issue_id)
        .where(_event.c.subscriber_id == person.id, _event.c.kind != EventKind.PROCESSED)
        .order_by(_event.c.at.desc(), _event.c.key)
        .limit(limit)
    )
    for row in session.execute(mine):
        yield HistoryEntry(
            row.at,
            "event",
            row.kind,
            row.title or "",
            row.send_id,
            detail=row.link or _reason(row.raw),
            by_machine=row.by_machine,
        )


def _mails(session: Session, person: Subscriber, limit: int) -> Iterator[HistoryEntry]:
    columns = _notice.c.created_at, _notice.c.kind, _notice.c.subject, _notice.c.state
    became = _notice.c.outcome, _notice.c.outcome_reason
    mine: Iterable[Row[Any]] = session.execute(
        select(*columns, *became)
        .where(_notice.c.email == person.email)
        .order_by(_notice.c.created_at.desc(), _notice.c.id.desc())
        .limit(limit)
    )
    for row in mine:
        detail = " · ".join(part for part in (row.subject, row.outcome_reason) if part)
        yield HistoryEntry(row.created_at, "mail", row.outcome or row.state, detail=detail)


def _reason(raw: str) -> str:
    """The server's words, of what was received; nothing of what was erased."""
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ""
    found = said.get("reason") or said.get("response") or said.get("by") or ""
    return str(found)[:500]
