"""Lists sends by phase or search words, with their progress."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import UNSETTLED, BatchState, SendState

_send, _batch, _issue = table_of(Send), table_of(Batch), table_of(Issue)


class Phase(StrEnum):
    """A group of send states, as filters of the list show them."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in progress"
    PAUSED = "paused"
    ENDED = "ended"


PHASES = {
    Phase.SCHEDULED: (SendState.DRAFT, SendState.APPROVED, SendState.SCHEDULED),
    Phase.IN_PROGRESS: (SendState.PLANNING, SendState.SENDING),
    Phase.PAUSED: (SendState.PAUSED,),
    Phase.ENDED: (SendState.SENT, SendState.CANCELLED),
}


@dataclass(frozen=True, slots=True)
class SendListEntry:
    """A send in the list."""

    send: Send
    slug: str
    title: str
    #: Recipients in settled and in uncertain batches; both 0 for sends that ended.
    settled: int = 0
    uncertain: int = 0

    @property
    def share(self) -> float:
        """The share of recipients in settled batches, 0 to 1."""
        return self.settled / self.send.planned if self.send.planned else 0.0


def page(
    session: Session,
    *,
    phase: Phase | None = None,
    words: str = "",
    before: int | None = None,
    limit: int,
) -> list[SendListEntry]:
    """Sends, newest first, of this phase and with all ``words`` in the issue's title or slug."""
    conditions: list[ColumnElement[bool]] = []
    if phase is not None:
        conditions.append(_send.c.state.in_(PHASES[phase]))
    for word in words.split()[:10]:
        in_title = _issue.c.title.icontains(word, autoescape=True)
        conditions.append(or_(in_title, _issue.c.slug.icontains(word, autoescape=True)))
    if before is not None:
        conditions.append(_send.c.id < before)
    return _entries(session, conditions, [_send.c.id.desc()], limit)


def active(session: Session, *, limit: int = 20) -> list[SendListEntry]:
    """Sends that are being planned, sending or paused, the oldest first."""
    states = [*PHASES[Phase.IN_PROGRESS], *PHASES[Phase.PAUSED]]
    return _entries(session, [_send.c.state.in_(states)], [_send.c.id], limit)


def scheduled(session: Session, *, limit: int = 5) -> list[SendListEntry]:
    """Scheduled sends, the next one first."""
    order = [_send.c.scheduled_for, _send.c.id]
    return _entries(session, [_send.c.state == SendState.SCHEDULED], order, limit)


def latest_sent(session: Session, *, limit: int = 1) -> list[SendListEntry]:
    """Sends that are sent, the latest first."""
    order = [_send.c.started_at.desc(), _send.c.id.desc()]
    return _entries(session, [_send.c.state == SendState.SENT], order, limit)


def started_since(session: Session, since: datetime, *, limit: int) -> list[SendListEntry]:
    """Sends that started at ``since`` or later, the latest first."""
    conditions = [_send.c.started_at >= since]
    return _entries(session, conditions, [_send.c.started_at.desc(), _send.c.id.desc()], limit)


def counts_by_phase(session: Session) -> dict[Phase, int]:
    """Phase → number of sends."""
    rows = session.execute(select(_send.c.state, func.count()).group_by(_send.c.state))
    by_state = {row[0]: row[1] for row in rows}
    return {phase: sum(by_state.get(s, 0) for s in states) for phase, states in PHASES.items()}


def uncertain_counts(session: Session) -> dict[int, int]:
    """Send → recipients in uncertain batches."""
    rows = session.execute(
        select(_batch.c.send_id, func.sum(_batch.c.size))
        .join(_send, _send.c.id == _batch.c.send_id)
        # A sent or scheduled send has no uncertain batch; a cancelled one may have some.
        .where(_send.c.state.not_in([SendState.SENT, SendState.SCHEDULED]))
        .where(_batch.c.state == BatchState.UNCERTAIN)
        .group_by(_batch.c.send_id)
        .order_by(_batch.c.send_id)
    )
    return {row[0]: int(row[1]) for row in rows}


def send_ids_by_issue(session: Session, issue_ids: Collection[int]) -> dict[int, list[int]]:
    """Issue → the ids of its sends, the latest first."""
    send_ids: dict[int, list[int]] = {}
    rows = session.execute(
        select(_send.c.issue_id, _send.c.id)
        .where(_send.c.issue_id.in_(issue_ids))
        .order_by(_send.c.id.desc())
    )
    for issue_id, send_id in rows:
        send_ids.setdefault(issue_id, []).append(send_id)
    return send_ids


def _entries(
    session: Session, conditions: Sequence[ColumnElement[bool]], order: Sequence[Any], limit: int
) -> list[SendListEntry]:
    rows = session.execute(
        select(Send, _issue.c.slug, _issue.c.title)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(*conditions)
        .order_by(*order)
        .limit(limit)
    ).all()
    unfinished = [row[0].id for row in rows if row[0].state not in PHASES[Phase.ENDED]]
    progress = _progress(session, unfinished)
    return [
        SendListEntry(send, slug, title, *progress.get(send.id, (0, 0)))
        for send, slug, title in rows
    ]


def _progress(session: Session, send_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Send → (recipients in settled batches, recipients in uncertain batches)."""
    if not send_ids:
        return {}
    settled = func.coalesce(func.sum(_batch.c.size).filter(_batch.c.state.not_in(UNSETTLED)), 0)
    uncertain = func.coalesce(
        func.sum(_batch.c.size).filter(_batch.c.state == BatchState.UNCERTAIN), 0
    )
    rows = session.execute(
        select(_batch.c.send_id, settled, uncertain)
        .where(_batch.c.send_id.in_(send_ids))
        .group_by(_batch.c.send_id)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}
