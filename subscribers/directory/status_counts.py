"""How somebody stands: whether mail reaches them, and how many people stand so.

Small lists are counted when somebody asks. Of large ones the figures are kept, and counted
again by the clock: no page waits for a look at a million people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, case, func, select

from newsletter.db.orm import Session, insert_into, table_of
from subscribers.models import Segment, StatusCount, Subscriber, SuppressionReason
from subscribers.segments import store as segment_store

_subscriber, _headcount, _segment = table_of(Subscriber), table_of(StatusCount), table_of(Segment)

#: Lists up to so many are counted on the spot: some milliseconds.
SMALL = 10_000
_EVERYBODY = "everybody"


class State(StrEnum):
    """How a subscriber stands. Each stands in one of these."""

    #: Gets mail.
    ACTIVE = "active"
    #: Left, bounced, complained, or was barred by an operator.
    SUPPRESSED = "suppressed"
    #: Has not proved opting in.
    UNCONFIRMED = "unconfirmed"
    #: Asked for a pause that is not over.
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Headcounts:
    """How many there are; ``counted_at`` is empty when they were counted just now."""

    people: int
    by_state: Mapping[State, int]
    counted_at: datetime | None = field(default=None, compare=False)


def state_of(objection: str | None) -> State:
    """The state of somebody with this objection (``segments.objection`` without topics)."""
    if objection is None:
        return State.ACTIVE
    return State.SUPPRESSED if objection in set(SuppressionReason) else State(objection)


def in_state(state: State, now: datetime) -> ColumnElement[bool]:
    """The condition of standing so, over ``segments.PEOPLE``."""
    objection = segment_store.exclusion_reason(now, ())
    if state is State.ACTIVE:
        return objection.is_(None)
    if state is State.SUPPRESSED:
        return objection.in_(list(SuppressionReason))
    return objection == state.value


def headcounts(session: Session, *, now: datetime) -> Headcounts | None:
    """How many people there are, in all and by state; None as long as nobody has counted them."""
    if is_small(session):
        return count(session, now=now)
    kept = {row.what: row for row in session.execute(select(_headcount))}
    if _EVERYBODY not in kept:
        return None
    by_state = {state: kept[state].people if state in kept else 0 for state in State}
    return Headcounts(kept[_EVERYBODY].people, by_state, kept[_EVERYBODY].counted_at)


def is_small(session: Session) -> bool:
    """Whether everybody can be looked at while somebody waits."""
    some = select(_subscriber.c.id).limit(SMALL + 1).subquery()
    return (session.scalar(select(func.count()).select_from(some)) or 0) <= SMALL


def count(session: Session, *, now: datetime) -> Headcounts:
    """Count everybody; half a second for a million."""
    objection = segment_store.exclusion_reason(now, ())
    state = case(
        (objection.is_(None), State.ACTIVE.value),
        (objection.in_(list(SuppressionReason)), State.SUPPRESSED.value),
        else_=objection,
    ).label("state")
    rows = session.execute(
        select(state, func.count()).select_from(segment_store.PEOPLE).group_by(state)
    )
    by_state = dict.fromkeys(State, 0) | {State(row[0]): row[1] for row in rows}
    return Headcounts(sum(by_state.values()), by_state)


def keep(session: Session, counted: Headcounts, *, now: datetime) -> None:
    """Keep what was counted."""
    rows = [
        {"what": what, "people": people, "counted_at": now}
        for what, people in ((_EVERYBODY, counted.people), *counted.by_state.items())
    ]
    insert = insert_into(session, _headcount)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["what"],
            set_={name: insert.excluded[name] for name in ("people", "counted_at")},
        ),
        rows,
    )
