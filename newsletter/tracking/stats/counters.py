"""Figures of sends, kept as events arrive, so that no page has to count rows.

Two sorts, never mixed under one name. Happenings: each event adds one to its kind; opens
and clicks by machines have names of their own. People: whoever did something, however often.
newsletter.tracking.stats.verify makes both again from the events.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, Row, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from newsletter.db import bulk_rows
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.tracking.models import RecipientCounter, SendCounter, VariantCounter

_count, _part, _person = table_of(SendCounter), table_of(VariantCounter), table_of(RecipientCounter)

#: What is counted apart when a machine did it.
BY_MACHINE: Final[Mapping[str, str]] = {
    EventKind.OPEN: "machine_open",
    EventKind.CLICK: "machine_click",
}
#: Figures of people. Leaving is leaving, by our own link or the provider's.
PEOPLE: Final[Mapping[str, str]] = {
    EventKind.OPEN: "opened",
    EventKind.CLICK: "clicked",
    EventKind.BOUNCE: "people_bounced",
    EventKind.BLOCKED: "people_blocked",
    EventKind.DROPPED: "people_dropped",
    EventKind.SPAM_REPORT: "complained",
    EventKind.UNSUBSCRIBE: "left",
    EventKind.GROUP_UNSUBSCRIBE: "left",
}
#: The same, told apart by whose link it was.
LEFT_BY: Final[Mapping[str, str]] = {
    EventKind.UNSUBSCRIBE: "left_here",
    EventKind.GROUP_UNSUBSCRIBE: "left_at_provider",
}
#: Events that belong to no send.
NO_SEND: Final = 0


class CountedEvent(NamedTuple):
    """What the figures need to know of an event."""

    send_id: int | None
    subscriber_id: int | None
    kind: str
    #: In UTC, like 2026-03-27.
    day: str
    domain: str
    link: str


class _RecipientAction(NamedTuple):
    send_id: int
    subscriber_id: int
    what: str
    domain: str
    link: str


class CounterDelta:
    """Changes to the figures, gathered and then written: people first, for they decide.

    The row of a person and a mail is the lock under which the clicks of that person are
    judged, so that two posts at a time cannot both overlook a scanner.
    """

    def __init__(self) -> None:
        self._sends: Counter[tuple[int, str]] = Counter()
        self._parts: Counter[tuple[int, str, str, str]] = Counter()
        self._deeds: Counter[_RecipientAction] = Counter()

    def add(self, one: CountedEvent, number: int = 1, *, by_machine: bool = False) -> None:
        """So many more of this."""
        send = NO_SEND if one.send_id is None else one.send_id
        what = BY_MACHINE.get(one.kind, one.kind) if by_machine else str(one.kind)
        self._sends[send, what] += number
        self._parts[send, "day", one.day, what] += number
        self._parts[send, "domain", one.domain, what] += number
        if one.link and one.kind == EventKind.CLICK:
            self._parts[send, "link", one.link, what] += number
        if one.subscriber_id is None:
            return
        # A machine's deed is nobody's; its row is made nevertheless, to be locked.
        human = 0 if by_machine else number
        for done in (figures[one.kind] for figures in (PEOPLE, LEFT_BY) if one.kind in figures):
            deed = _RecipientAction(send, one.subscriber_id, done, one.domain, "")
            self._deeds[deed] += human
            if one.link and one.kind == EventKind.CLICK:
                self._deeds[deed._replace(link=one.link)] += human

    def write_people(self, session: Session) -> None:
        """Write who did what; whoever became or is no longer one who did changes the figures."""
        if not self._deeds:
            return
        keys = list(_RecipientAction._fields)
        rows = [{**deed._asdict(), "count": n} for deed, n in sorted(self._deeds.items())]
        for row in _added(session, _person, keys, rows, back=True):
            deed, after = _RecipientAction._make(row[:-1]), row[-1]
            change = (after > 0) - (after - self._deeds[deed] > 0)
            if deed.link:
                self._parts[deed.send_id, "link", deed.link, deed.what] += change
            else:
                self._sends[deed.send_id, deed.what] += change
                self._parts[deed.send_id, "domain", deed.domain, deed.what] += change
        self._deeds.clear()

    def write(self, session: Session) -> None:
        """Write the figures. Last of all, as every post wants the same few rows."""
        self.write_people(session)
        sends = [
            {"send_id": send, "what": what, "count": n}
            for (send, what), n in sorted(self._sends.items())
            if n
        ]
        parts = [
            {"send_id": send, "part": part, "value": value, "what": what, "count": n}
            for (send, part, value, what), n in sorted(self._parts.items())
            if n
        ]
        _added(session, _count, ["send_id", "what"], sends)
        _added(session, _part, ["send_id", "part", "value", "what"], parts)


def _added(
    session: Session,
    table: Table,
    keys: list[str],
    rows: list[dict[str, Any]],
    *,
    back: bool = False,
) -> Sequence[Row[Any]]:
    """Add to the counts; ``back`` gives the rows as they are then.

    The rows are sorted: two posts that count the same send must not deadlock.
    """
    if not rows:
        return []

    def add(insert: sqlite.Insert | postgresql.Insert) -> Executable:
        more = {"count": table.c.count + insert.excluded.count}
        statement = insert.on_conflict_do_update(index_elements=keys, set_=more)
        return (
            statement.returning(*(table.c[key] for key in keys), table.c.count)
            if back
            else statement
        )

    done = bulk_rows.insert(session, table, rows, add)
    return done.all() if back else []


def of_send(session: Session, send_id: int) -> dict[str, int]:
    """What → how many, of one send."""
    return of_sends(session, [send_id]).get(send_id, {})


def of_sends(session: Session, send_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Send → what → how many."""
    found: dict[int, dict[str, int]] = {}
    rows = session.execute(
        select(_count.c.send_id, _count.c.what, _count.c.count).where(
            _count.c.send_id.in_(send_ids), _count.c.count > 0
        )
    )
    for send_id, what, number in rows:
        found.setdefault(send_id, {})[what] = number
    return found


def of_parts(
    session: Session,
    send_id: int,
    part: str,
    *,
    largest: tuple[Sequence[str], int] | None = None,
) -> dict[str, dict[str, int]]:
    """Value → what → how many, of a send's ``day``, ``domain`` or ``link``, by its figures.

    ``largest`` names figures, and how many values are wanted: those with the highest sums.
    """
    found: dict[str, dict[str, int]] = {}
    of_part = (_part.c.send_id == send_id, _part.c.part == part, _part.c.count > 0)
    wanted = select(_part.c.value, _part.c.what, _part.c.count).where(*of_part)
    if largest is not None:
        figures, limit = largest
        ranked = (
            select(_part.c.value)
            .where(*of_part, _part.c.what.in_(figures))
            .group_by(_part.c.value)
            .order_by(func.sum(_part.c.count).desc(), _part.c.value)
            .limit(limit)
        )
        wanted = wanted.where(_part.c.value.in_(session.scalars(ranked).all()))
    for value, what, number in session.execute(wanted.order_by(_part.c.value, _part.c.what)):
        found.setdefault(value, {})[what] = number
    return found
