"""What the traces of sends need from the database; reads it only while tracing is on."""

from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Row, select, tuple_

from newsletter import tracing
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import ENDED
from newsletter.tracing import BatchTrace, TracedSend, Value

_send, _batch, _issue = table_of(Send), table_of(Batch), table_of(Issue)

_SENDS = select(_send.c.id, _send.c.created_at, _issue.c.slug).join(
    _issue, _issue.c.id == _send.c.issue_id
)


class TracedBatch(NamedTuple):
    """A batch of a send, and its latest attempt."""

    send: TracedSend
    number: int
    attempt: int
    size: int
    #: When its request left; None if it has not.
    departed_at: datetime | None


def created(session: Session, send: Send, issue: str, *, by: Actor, people: int) -> None:
    """Write the span of what created a send, from its beginning to the commit."""
    origin = "schedule" if send.occasion else "command" if by.user_id is None else "console"
    traced = TracedSend(send.id, send.created_at, issue)
    tracing.on_commit(
        session,
        lambda: tracing.write_root(
            traced,
            "create send",
            begun=tracing.at(traced.made_at),
            attributes={"origin": origin, "recipients": people},
        ),
    )


def planned(session: Session, send_id: int, *, begun: int, people: int) -> None:
    """Write the span of a plan, from its beginning to the commit."""
    if not tracing.is_on():
        return
    of_send = _traced(session.execute(_SENDS.where(_send.c.id == send_id)).one())
    tracing.on_commit(
        session,
        lambda: tracing.write(of_send, "plan send", begun=begun, attributes={"recipients": people}),
    )


def ended(session: Session, send_id: int, *, now: datetime) -> None:
    """Write the span of a send that has ended, from its start on."""
    if not tracing.is_on():
        return
    row = session.execute(
        _SENDS.add_columns(
            _send.c.started_at, _send.c.state, _send.c.planned, _send.c.accepted_count
        ).where(_send.c.id == send_id)
    ).one()
    attributes: dict[str, Value] = {"outcome": row.state, "recipients": row.planned}
    if row.accepted_count is not None:
        attributes["accepted"] = row.accepted_count
    tracing.on_commit(
        session,
        lambda: tracing.write(
            _traced(row),
            "send",
            begun=tracing.at(row.started_at or row.created_at),
            ended=tracing.at(now),
            attributes=attributes,
        ),
    )


def abandoned(session: Session, batches: Collection[tuple[int, int]]) -> None:
    """Write the spans of batches whose worker ended before the answer came."""
    if not tracing.is_on():
        return
    for one in of_batches(session, batches).values():
        begun = None if one.departed_at is None else tracing.at(one.departed_at)
        trace = BatchTrace(one.send, one.number, one.attempt, size=one.size, begun=begun)
        tracing.on_commit(session, partial(trace.end, "uncertain", failed=True))


def unfinished(session: Session) -> list[TracedSend]:
    """The sends that have not ended."""
    rows = session.execute(_SENDS.where(_send.c.state.not_in(ENDED)).order_by(_send.c.id))
    return [_traced(row) for row in rows]


def of_batches(
    session: Session, batches: Collection[tuple[int, int]]
) -> dict[tuple[int, int], TracedBatch]:
    """These (send, number) batches."""
    rows = session.execute(
        _SENDS.add_columns(_batch.c.number, _batch.c.attempt, _batch.c.size, _batch.c.departed_at)
        .join(_batch, _batch.c.send_id == _send.c.id)
        .where(tuple_(_batch.c.send_id, _batch.c.number).in_(sorted(batches)))
    )
    return {
        (row.id, row.number): TracedBatch(
            _traced(row), row.number, row.attempt, row.size, row.departed_at
        )
        for row in rows
    }


def _traced(row: Row[Any]) -> TracedSend:
    return TracedSend(row.id, row.created_at, row.slug)
