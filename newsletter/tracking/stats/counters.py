"""Counters of sends, updated as events arrive, so that no page has to count events.

There are two sorts, with different names. Counters of events: each event adds one to its kind;
opens and clicks by bots have names of their own. Counters of recipients: those who did something,
each once. newsletter.tracking.stats.verify counts both again from the events.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, Row, Table, func, select

from newsletter.db import bulk_rows
from newsletter.db.dialect import Upsert
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.tracking.models import RecipientCounter, SendCounter, VariantCounter

_count, _part, _action = table_of(SendCounter), table_of(VariantCounter), table_of(RecipientCounter)

#: Kinds that have another counter for bots.
BY_MACHINE: Final[Mapping[str, str]] = {
    EventKind.OPEN: "machine_open",
    EventKind.CLICK: "machine_click",
}
#: Counters of recipients. An unsubscribe by our own link and one by the provider's count alike.
RECIPIENTS: Final[Mapping[str, str]] = {
    EventKind.OPEN: "opened",
    EventKind.CLICK: "clicked",
    EventKind.BOUNCE: "people_bounced",
    EventKind.BLOCKED: "people_blocked",
    EventKind.DROPPED: "people_dropped",
    EventKind.SPAM_REPORT: "complained",
    EventKind.UNSUBSCRIBE: "left",
    EventKind.GROUP_UNSUBSCRIBE: "left",
}
#: The counters of recipients who unsubscribed, by whose link it was.
UNSUBSCRIBED_BY: Final[Mapping[str, str]] = {
    EventKind.UNSUBSCRIBE: "left_here",
    EventKind.GROUP_UNSUBSCRIBE: "left_at_provider",
}
#: Events that belong to no send.
NO_SEND: Final = 0


class CountedEvent(NamedTuple):
    """The parts of an event that are counted."""

    send_id: int | None
    subscriber_id: int | None
    kind: str
    #: In UTC, such as 2026-03-27.
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
    """Changes of the counters, collected first, then written.

    The rows of recipients are written first: they show whether the counters of recipients change.
    They are also the lock under which bot detection judges a recipient's clicks, so that two
    concurrent posts cannot both miss a scanner.
    """

    def __init__(self) -> None:
        self._sends: Counter[tuple[int, str]] = Counter()
        self._parts: Counter[tuple[int, str, str, str]] = Counter()
        self._actions: Counter[_RecipientAction] = Counter()

    def add(self, one: CountedEvent, number: int = 1, *, by_machine: bool = False) -> None:
        """Add ``number`` events like ``one``; a negative number takes them back."""
        send = NO_SEND if one.send_id is None else one.send_id
        what = BY_MACHINE.get(one.kind, one.kind) if by_machine else str(one.kind)
        self._sends[send, what] += number
        self._parts[send, "day", one.day, what] += number
        self._parts[send, "domain", one.domain, what] += number
        if one.link and one.kind == EventKind.CLICK:
            self._parts[send, "link", one.link, what] += number
        if one.subscriber_id is None:
            return
        # A bot's action counts for nobody. Its row is written nevertheless, to be locked.
        human = 0 if by_machine else number
        for names in (RECIPIENTS, UNSUBSCRIBED_BY):
            if (done := names.get(one.kind)) is None:
                continue
            action = _RecipientAction(send, one.subscriber_id, done, one.domain, "")
            self._actions[action] += human
            if one.link and one.kind == EventKind.CLICK:
                self._actions[action._replace(link=one.link)] += human

    def write_recipients(self, session: Session) -> None:
        """Write the actions of recipients, and collect how the counters of recipients change."""
        if not self._actions:
            return
        keys = list(_RecipientAction._fields)
        rows = [{**action._asdict(), "count": n} for action, n in sorted(self._actions.items())]
        for row in _add(session, _action, keys, rows, return_rows=True):
            action, after = _RecipientAction._make(row[:-1]), row[-1]
            change = (after > 0) - (after - self._actions[action] > 0)
            if action.link:
                self._parts[action.send_id, "link", action.link, action.what] += change
            else:
                self._sends[action.send_id, action.what] += change
                self._parts[action.send_id, "domain", action.domain, action.what] += change
        self._actions.clear()

    def write(self, session: Session) -> None:
        """Write all counters. Call it last in a transaction: every post locks the same few rows."""
        self.write_recipients(session)
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
        _add(session, _count, ["send_id", "what"], sends)
        _add(session, _part, ["send_id", "part", "value", "what"], parts)


def _add(
    session: Session,
    table: Table,
    keys: list[str],
    rows: list[dict[str, Any]],
    *,
    return_rows: bool = False,
) -> Sequence[Row[Any]]:
    """Add ``rows`` to the counts; with ``return_rows`` returns the rows afterwards.

    The rows are sorted, so that two posts that count the same send do not deadlock.
    """
    if not rows:
        return []

    def add(insert: Upsert) -> Executable:
        more = {"count": table.c.count + insert.excluded.count}
        statement = insert.on_conflict_do_update(index_elements=keys, set_=more)
        return (
            statement.returning(*(table.c[key] for key in keys), table.c.count)
            if return_rows
            else statement
        )

    result = bulk_rows.insert(session, table, rows, add)
    return result.all() if return_rows else []


def of_send(session: Session, send_id: int) -> dict[str, int]:
    """Counter → count, of one send."""
    return of_sends(session, [send_id]).get(send_id, {})


def of_sends(session: Session, send_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Send → counter → count."""
    counts: dict[int, dict[str, int]] = {}
    rows = session.execute(
        select(_count.c.send_id, _count.c.what, _count.c.count).where(
            _count.c.send_id.in_(send_ids), _count.c.count > 0
        )
    )
    for send_id, what, number in rows:
        counts.setdefault(send_id, {})[what] = number
    return counts


def of_parts(
    session: Session,
    send_id: int,
    part: str,
    *,
    largest: tuple[Sequence[str], int] | None = None,
) -> dict[str, dict[str, int]]:
    """Value → counter → count, for each ``day``, ``domain`` or ``link`` of a send.

    ``largest`` (counters, limit) selects only the values with the highest sums of these counters.
    """
    counts: dict[str, dict[str, int]] = {}
    of_part = (_part.c.send_id == send_id, _part.c.part == part, _part.c.count > 0)
    rows = select(_part.c.value, _part.c.what, _part.c.count).where(*of_part)
    if largest is not None:
        names, limit = largest
        ranked = (
            select(_part.c.value)
            .where(*of_part, _part.c.what.in_(names))
            .group_by(_part.c.value)
            .order_by(func.sum(_part.c.count).desc(), _part.c.value)
            .limit(limit)
        )
        rows = rows.where(_part.c.value.in_(session.scalars(ranked).all()))
    for value, what, number in session.execute(rows.order_by(_part.c.value, _part.c.what)):
        counts.setdefault(value, {})[what] = number
    return counts
