"""Verifies the counters: counts the events again, and reports what differs.

It needs all events of a send. Compare within one database snapshot, or events that arrive
meanwhile look like a difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Date, Select, case, cast, func, literal, or_, select

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.tracking.event_horizon import final_sends, horizon
from newsletter.tracking.models import EventRow, RecipientCounter, SendCounter, VariantCounter
from newsletter.tracking.stats.counters import BY_MACHINE, NO_SEND, RECIPIENTS, UNSUBSCRIBED_BY

_event = table_of(EventRow)
_count, _part, _action = table_of(SendCounter), table_of(VariantCounter), table_of(RecipientCounter)
#: Clicks on our own links are not counted by link.
_CLICKED = (_event.c.link != "") & (_event.c.kind == EventKind.CLICK)


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that differs from the events."""

    send_id: int
    #: ``send``, ``day``, ``domain``, ``link`` or ``person``, and which.
    part: str
    value: str
    what: str
    kept: int
    recounted: int


#: (part, value, counter) → count.
_Figures = dict[tuple[str, str, str], int]


def sends(session: Session) -> list[int]:
    """Every send that has events or counters, in order, except those whose counters are final."""
    of_events = select(func.coalesce(_event.c.send_id, NO_SEND)).distinct()
    known = set(session.scalars(of_events.union(select(_count.c.send_id).distinct())))
    if horizon(session) is not None:
        # Events of no send have no start that could be compared with the horizon.
        known.discard(NO_SEND)
    return sorted(known - final_sends(session))


def differences(session: Session, send_id: int) -> Iterator[Difference]:
    """The counters of a send that differ from its events."""
    kept, recounted = _kept(session, send_id), _recounted(session, send_id)
    for key in sorted(kept.keys() | recounted.keys()):
        if kept.get(key, 0) != recounted.get(key, 0):
            yield Difference(send_id, *key, kept.get(key, 0), recounted.get(key, 0))
    yield from _of_recipients(session, send_id)


def _kept(session: Session, send_id: int) -> _Figures:
    of_send = select(_count.c.what, _count.c.count).where(_count.c.send_id == send_id)
    of_parts = select(_part.c.part, _part.c.value, _part.c.what, _part.c.count)
    figures = {("send", "", what): n for what, n in session.execute(of_send)}
    for *key, n in session.execute(of_parts.where(_part.c.send_id == send_id)):
        figures[key[0], key[1], key[2]] = n
    return figures


def _recounted(session: Session, send_id: int) -> _Figures:
    figures: _Figures = {}
    ours = _of(send_id)
    machine = _event.c.by_machine & _event.c.kind.in_(list(BY_MACHINE))
    what = case((machine, literal("machine_") + _event.c.kind), else_=_event.c.kind)
    empty = literal("")
    for part, value, only in (
        ("send", empty, ours),
        ("day", _day(session), ours),
        ("domain", _event.c.domain, ours),
        ("link", _event.c.link, ours & _CLICKED),
    ):
        cell = select(value.label("value"), what.label("what")).where(only).subquery()
        rows = select(cell.c.value, cell.c.what, func.count()).group_by(cell.c.value, cell.c.what)
        for where, name, n in session.execute(rows):
            figures[part, str(where), name] = n
    actions = _actions(send_id).subquery()
    for part, value, by_link in (
        ("send", empty, False),
        ("domain", actions.c.domain, False),
        ("link", actions.c.link, True),
    ):
        chosen = select(value.label("value"), actions.c.what).where(
            actions.c.link != "" if by_link else actions.c.link == ""
        )
        cell = chosen.subquery()
        rows = select(cell.c.value, cell.c.what, func.count()).group_by(cell.c.value, cell.c.what)
        for where, name, n in session.execute(rows):
            figures[part, where, name] = n
    return figures


def _of_recipients(session: Session, send_id: int) -> Iterator[Difference]:
    """The first hundred of each sort, because there may be as many as recipients."""
    counted = _actions(send_id)
    kept = select(
        *(_action.c[key] for key in ("subscriber_id", "what", "domain", "link", "count"))
    ).where(_action.c.send_id == send_id, _action.c.count != 0)
    found: dict[tuple[str, str], list[int]] = {}
    for which, rows in enumerate((kept.except_(counted), counted.except_(kept))):
        for subscriber, what, domain, link, number in session.execute(rows.limit(100)):
            value = " ".join(filter(None, (str(subscriber), domain, link)))
            found.setdefault((value, what), [0, 0])[which] = number
    for (value, what), (is_kept, is_counted) in sorted(found.items()):
        yield Difference(send_id, "person", value, what, is_kept, is_counted)


def _actions(send_id: int) -> Select[tuple[int, str, str, str, int]]:
    """How often each recipient did what, without bots: for each link, and for all together."""
    human = _of(send_id) & _event.c.kind.in_(list(RECIPIENTS)) & _event.c.subscriber_id.is_not(None)
    human &= or_(_event.c.by_machine.is_(False), _event.c.kind.not_in(list(BY_MACHINE)))

    def grouped(
        link: ColumnElement[str], only: ColumnElement[bool], figures: Mapping[str, str] = RECIPIENTS
    ) -> Select[tuple[object, ...]]:
        what = case(figures, value=_event.c.kind)
        cell = (
            select(_event.c.subscriber_id, what.label("what"), _event.c.domain, link.label("link"))
            .where(only)
            .subquery()
        )
        return select(*cell.c, func.count().label("count")).group_by(*cell.c)

    of_all = grouped(literal(""), human)
    of_links = grouped(_event.c.link, human & _CLICKED)
    left = grouped(literal(""), human & _event.c.kind.in_(list(UNSUBSCRIBED_BY)), UNSUBSCRIBED_BY)
    return select(of_all.union_all(of_links, left).subquery())


def _of(send_id: int) -> ColumnElement[bool]:
    if send_id == NO_SEND:
        return or_(_event.c.send_id.is_(None), _event.c.send_id == NO_SEND)
    return _event.c.send_id == send_id


def _day(session: Session) -> ColumnElement[object]:
    if is_postgresql(session):
        return cast(func.timezone("UTC", _event.c.at), Date)
    return func.substr(_event.c.at, 1, 10)
