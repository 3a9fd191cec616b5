"""The kept figures, made once more from the events: what differs is a fault.

Holds as long as the events are all there. Compare within one snapshot, or events that
arrive meanwhile look like a difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Date, Select, case, cast, func, literal, or_, select

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.tracking.event_horizon import final, horizon
from newsletter.tracking.models import EventRow, RecipientCounter, SendCounter, VariantCounter
from newsletter.tracking.stats.counters import BY_MACHINE, LEFT_BY, NO_SEND, PEOPLE

_event = table_of(EventRow)
_count, _part, _person = table_of(SendCounter), table_of(VariantCounter), table_of(RecipientCounter)
#: Our own links have no figures of their own.
_CLICKED = (_event.c.link != "") & (_event.c.kind == EventKind.CLICK)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that is kept otherwise than the events say."""

    send_id: int
    #: ``send``, ``day``, ``domain``, ``link`` or ``person``, and which.
    part: str
    value: str
    what: str
    kept: int
    recounted: int


#: A figure: part, value, what and the number.
_Figures = dict[tuple[str, str, str], int]


def sends(session: Session) -> list[int]:
    """Every send that has events or figures, in order; without those whose figures are final."""
    of_events = select(func.coalesce(_event.c.send_id, NO_SEND)).distinct()
    known = set(session.scalars(of_events.union(select(_count.c.send_id).distinct())))
    if horizon(session) is not None:
        # What belongs to no send has no beginning that could be compared.
        known.discard(NO_SEND)
    return sorted(known - final(session))


def differences(session: Session, send_id: int) -> Iterator[Difference]:
    """What is kept of a send otherwise than its events say; nothing when all is well."""
    kept, recounted = _kept(session, send_id), _recounted(session, send_id)
    for key in sorted(kept.keys() | recounted.keys()):
        if kept.get(key, 0) != recounted.get(key, 0):
            yield Difference(send_id, *key, kept.get(key, 0), recounted.get(key, 0))
    yield from _of_people(session, send_id)


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
    nobody = literal("")
    for part, value, only in (
        ("send", nobody, ours),
        ("day", _day(session), ours),
        ("domain", _event.c.domain, ours),
        ("link", _event.c.link, ours & _CLICKED),
    ):
        cell = select(value.label("value"), what.label("what")).where(only).subquery()
        rows = select(cell.c.value, cell.c.what, func.count()).group_by(cell.c.value, cell.c.what)
        for where, name, n in session.execute(rows):
            figures[part, str(where), name] = n
    deeds = _deeds(send_id).subquery()
    for part, value, any_link in (
        ("send", nobody, False),
        ("domain", deeds.c.domain, False),
        ("link", deeds.c.link, True),
    ):
        chosen = select(value.label("value"), deeds.c.what).where(
            deeds.c.link != "" if any_link else deeds.c.link == ""
        )
        cell = chosen.subquery()
        rows = select(cell.c.value, cell.c.what, func.count()).group_by(cell.c.value, cell.c.what)
        for where, name, n in session.execute(rows):
            figures[part, where, name] = n
    return figures


def _of_people(session: Session, send_id: int) -> Iterator[Difference]:
    """The first hundred of each sort: there may be as many as people."""
    counted = _deeds(send_id)
    kept = select(
        *(_person.c[key] for key in ("subscriber_id", "what", "domain", "link", "count"))
    ).where(_person.c.send_id == send_id, _person.c.count != 0)
    found: dict[tuple[str, str], list[int]] = {}
    for which, rows in enumerate((kept.except_(counted), counted.except_(kept))):
        for person, what, domain, link, number in session.execute(rows.limit(100)):
            value = " ".join(filter(None, (str(person), domain, link)))
            found.setdefault((value, what), [0, 0])[which] = number
    for (value, what), (is_kept, is_counted) in sorted(found.items()):
        yield Difference(send_id, "person", value, what, is_kept, is_counted)


def _deeds(send_id: int) -> Select[tuple[int, str, str, str, int]]:
    """Who did what how often, machines left out: for each link, and for all of them."""
    human = _of(send_id) & _event.c.kind.in_(list(PEOPLE)) & _event.c.subscriber_id.is_not(None)
    human &= or_(_event.c.by_machine.is_(False), _event.c.kind.not_in(list(BY_MACHINE)))

    def grouped(
        link: ColumnElement[str], only: ColumnElement[bool], figures: Mapping[str, str] = PEOPLE
    ) -> Select[tuple[object, ...]]:
        done = case(figures, value=_event.c.kind)
        cell = (
            select(_event.c.subscriber_id, done.label("what"), _event.c.domain, link.label("link"))
            .where(only)
            .subquery()
        )
        return select(*cell.c, func.count().label("count")).group_by(*cell.c)

    of_all = grouped(literal(""), human)
    of_links = grouped(_event.c.link, human & _CLICKED)
    left = grouped(literal(""), human & _event.c.kind.in_(list(LEFT_BY)), LEFT_BY)
    return select(of_all.union_all(of_links, left).subquery())


def _of(send_id: int) -> ColumnElement[bool]:
    if send_id == NO_SEND:
        return or_(_event.c.send_id.is_(None), _event.c.send_id == NO_SEND)
    return _event.c.send_id == send_id


def _day(session: Session) -> ColumnElement[object]:
    if is_postgresql(session):
        return cast(func.timezone("UTC", _event.c.at), Date)
    return func.substr(_event.c.at, 1, 10)
