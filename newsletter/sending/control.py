"""What an operator does with sends: make one, pause, resume, cancel, and see where it stands."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from newsletter.errors import NothingToDoError, SendError
from newsletter.issues.models import Issue, Revision
from newsletter.issues.reading import Draft
from newsletter.rendering.render import Rendered
from newsletter.sending import oversight
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.sending.plan import audience_size, left_out_of
from newsletter.sending.states import SEND_NEXT, SendState
from subscribers import segments, topics
from subscribers.schema import Session, table_of

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_issue, _revision = table_of(Issue), table_of(Revision)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a send stands: its row, its issue's slug, and its people and batches by state."""

    send: Send
    slug: str
    batches: dict[str, int]
    people: dict[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether every planned delivery stands in exactly one state."""
        return sum(self.people.values()) == self.send.planned


def create(
    session: Session,
    draft: Draft,
    rendered: Rendered,
    segment_names: Sequence[str],
    *,
    at: datetime,
    now: datetime,
    rate: float | None = None,
) -> Send:
    """Freeze the issue as it is rendered now and schedule it to these segments.

    Raises SegmentError or TopicError for an unknown one, NothingToDoError when nobody
    would get it.
    """
    topics.require(session, draft.topics)
    chosen = [segments.find(session, name) for name in dict.fromkeys(segment_names)]
    revision = _freeze(session, draft, now)
    expressions = [segment.expression for segment in chosen]
    who = (revision.issue_id, expressions, draft.topics)
    if not audience_size(session, *who, now=now):
        left_out = left_out_of(session, *who, now=now)
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise NothingToDoError(
            "nobody would get this issue",
            place=f"segment {', '.join(segment.name for segment in chosen)}",
            hint=f"Left out: {why}." if why else "The segment has no people.",
        )
    send = Send(
        issue_id=revision.issue_id,
        revision_id=revision.id,
        segments=[{"name": s.name, "expression": s.expression} for s in chosen],
        topics=list(draft.topics),
        state=SendState.SCHEDULED,
        scheduled_for=at,
        created_at=now,
        timetable={"per_second": rate} if rate else {},
    )
    session.add(send)
    session.flush()
    session.add(
        Variant(
            send_id=send.id,
            subject=rendered.subject,
            sender_email=rendered.from_email,
            sender_name=rendered.from_name,
            reply_to=rendered.reply_to,
            html=rendered.html,
            text=rendered.text,
            placeholders=rendered.placeholders.to_json(),
        )
    )
    session.flush()
    return send


def _freeze(session: Session, draft: Draft, now: datetime) -> Revision:
    """The stored revision of this very text, made if it is new."""
    digest = hashlib.sha256(draft.source.encode()).hexdigest()
    issue = session.scalar(select(Issue).where(_issue.c.slug == draft.slug))
    if issue is None:
        issue = Issue(slug=draft.slug, title=draft.title, created_at=now)
        session.add(issue)
        session.flush()
    revision = session.scalar(
        select(Revision).where(_revision.c.issue_id == issue.id, _revision.c.digest == digest)
    )
    if revision is None:
        last = session.execute(
            select(func.max(_revision.c.number)).where(_revision.c.issue_id == issue.id)
        ).scalar_one()
        revision = Revision(
            issue_id=issue.id,
            number=(last or 0) + 1,
            source=draft.source,
            digest=digest,
            created_at=now,
        )
        session.add(revision)
        session.flush()
    return revision


def find(session: Session, send_id: int) -> Send:
    """The send of this number; SendError when there is none."""
    send = session.get(Send, send_id)
    if send is None:
        raise SendError(
            "there is no such send", place=f"send {send_id}", hint="See newsletter sends."
        )
    return send


def pause(session: Session, send_id: int, *, reason: str) -> None:
    """Let no further batch leave."""
    _move(session, send_id, SendState.PAUSED, reason=reason)


def resume(session: Session, send_id: int, *, now: datetime) -> None:
    """Go on where it stopped: with its batches, or with its schedule if it was not planned yet."""
    send = find(session, send_id)
    if send.started_at is None:
        _move(
            session,
            send_id,
            SendState.SCHEDULED,
            only=SendState.PAUSED,
            reason="",
            scheduled_for=now,
        )
    else:
        _move(session, send_id, SendState.SENDING, only=SendState.PAUSED, reason="")
        oversight.finish(session, now=now)


def cancel(session: Session, send_id: int, *, now: datetime) -> int:
    """End the send; what had left has left. Returns how many people stay without the issue."""
    _move(session, send_id, SendState.CANCELLED, reason="cancelled", finished_at=now)
    return oversight.drop_pending(session, send_id, now=now, reason="cancelled")


def hold_late(session: Session, send_id: int, *, now: datetime) -> None:
    """Pause a send that nothing started in time, for the operator to decide."""
    late = now - find(session, send_id).scheduled_for
    reason = (
        f"due {_hours(late)} ago while nothing ran, which is later than sending.late_limit allows; "
        f"`newsletter sends resume {send_id}` starts it now"
    )
    oversight.move_send(
        session, send_id, SendState.PAUSED, only_from=[SendState.SCHEDULED], reason=reason
    )


def due(session: Session, *, now: datetime) -> list[tuple[int, datetime]]:
    """Scheduled sends whose time has come: (send, when it was due), earliest first."""
    rows = session.execute(
        select(_send.c.id, _send.c.scheduled_for)
        .where(_send.c.state == SendState.SCHEDULED, _send.c.scheduled_for <= now)
        .order_by(_send.c.scheduled_for, _send.c.id)
    )
    return [(row.id, row.scheduled_for) for row in rows]


def standing(session: Session, send_id: int) -> Standing:
    """Where a send stands, counted from its rows."""
    send = find(session, send_id)
    slug = session.execute(select(_issue.c.slug).where(_issue.c.id == send.issue_id)).scalar_one()
    people = session.execute(
        select(_delivery.c.state, func.count())
        .where(_delivery.c.send_id == send_id)
        .group_by(_delivery.c.state)
    )
    return Standing(send, slug, batch_states(session, send_id), {row[0]: row[1] for row in people})


def batch_states(session: Session, send_id: int) -> dict[str, int]:
    """People of a send by the state of their batch: cheap, for progress."""
    rows = session.execute(
        select(_batch.c.state, func.sum(_batch.c.size))
        .where(_batch.c.send_id == send_id)
        .group_by(_batch.c.state)
    )
    return {row[0]: int(row[1]) for row in rows}


def listed(session: Session, *, limit: int = 50) -> list[tuple[Send, str]]:
    """The latest sends with their issues' slugs, newest first."""
    rows = session.execute(
        select(Send, _issue.c.slug)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .order_by(_send.c.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


def _move(
    session: Session,
    send_id: int,
    target: SendState,
    *,
    only: SendState | None = None,
    **values: object,
) -> None:
    send = find(session, send_id)
    if not oversight.move_send(
        session, send_id, target, only_from=[only] if only else None, **values
    ):
        possible = ", ".join(sorted(SEND_NEXT[SendState(send.state)])) or "nothing more"
        raise SendError(
            f"it is {send.state} and cannot become {target}",
            place=f"send {send_id}",
            hint=f"From here it can become: {possible}.",
        )


def _hours(late: timedelta) -> str:
    minutes = int(late.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min"
