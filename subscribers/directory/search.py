"""Looking people up: a page of the list, by what was typed, a segment and a state.

No page reads the whole list. A search walks along one index from where the last page ended,
looks at so many people at most, and says where to look further.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Row,
    Select,
    and_,
    collate,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from newsletter.db.orm import Session, table_of
from newsletter.errors import AddressError
from subscribers.directory.status_counts import State, in_state
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber, Suppression
from subscribers.segments import parser as segment_parser
from subscribers.segments import store as segment_store

_subscriber, _suppression = table_of(Subscriber), table_of(Suppression)

#: People looked at for one page: some twenty milliseconds on either database.
_AT_ONCE = 50_000
#: Sorts after whatever may follow a prefix.
_LAST = chr(0x10FFFF)
_LONGEST = 320


class Order(StrEnum):
    """The index along which a search walks."""

    #: Who came last comes first.
    NEWEST = "newest"
    #: Those whose address begins so, by address.
    EMAIL = "email"
    #: Those whose name begins so, by name.
    NAME = "name"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Whom to look for. ``text`` is the beginning of an address or a name, or a whole address."""

    text: str = ""
    state: State | None = None
    #: A segment's rule.
    rule: str = ""

    @property
    def typed(self) -> str:
        """The text without what no address and no name holds."""
        return "".join(c for c in self.text[:_LONGEST] if c.isprintable()).strip()


@dataclass(frozen=True, slots=True)
class SearchPosition:
    """The last person of a page: where the next one begins."""

    order: Order
    id: int
    #: What they are sorted by, empty where that is the id.
    key: str = ""

    def __str__(self) -> str:
        return f"{self.order}:{self.id}:{self.key}"

    @classmethod
    def read(cls, text: str) -> "SearchPosition | None":
        """The place that was written so; None for anything else."""
        order, _, rest = text.partition(":")
        number, _, key = rest.partition(":")
        if order not in set(Order) or not number.isascii() or not number.isdigit():
            return None
        if len(number) > 18 or len(key) > _LONGEST or not key.isprintable():
            return None
        return cls(Order(order), int(number), key)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some people: ``id``, ``email``, ``name``, ``source``, ``created_at`` and ``objection``."""

    people: list[Row[Any]]
    #: Where the next page begins; None at the end.
    further: SearchPosition | None = None
    #: Whether there may be more people on this page's stretch: not all were looked at.
    unfinished: bool = False


def page(
    session: Session,
    wanted: SearchQuery,
    *,
    address_key: bytes,
    now: datetime,
    after: SearchPosition | None = None,
    size: int = 50,
) -> SearchPage:
    """The next page of those who are wanted. SegmentError for a wrong rule."""
    search = _Search(session, wanted, now)
    text = wanted.typed
    if not text:
        return search.walk(Order.NEWEST, after, size)
    if after is None and (exact := search.exactly(_hash(text, address_key))):
        return SearchPage(exact)
    found = SearchPage([])
    if after is None or after.order is not Order.NAME:
        found = search.walk(Order.EMAIL, after, size)
        if found.further is not None:
            return found
        after, size = None, size - len(found.people)
    # Whoever is found by the address comes once.
    by_name = search.walk(Order.NAME, after, size, ~search.stretch(Order.EMAIL).condition)
    return SearchPage([*found.people, *by_name.people], by_name.further, by_name.unfinished)


def id_by_hash(session: Session, address_hash: bytes) -> int | None:
    """The number of the subscriber whose address has this hash."""
    wanted = select(_subscriber.c.id).where(_subscriber.c.address_hash == address_hash)
    return session.scalar(wanted)


def standing_of(
    session: Session, person: Subscriber, *, now: datetime
) -> tuple[str | None, Row[Any] | None]:
    """Why somebody gets no mail, if they get none, and the row that suppresses them."""
    mine = select(segment_store.exclusion_reason(now, ())).select_from(segment_store.PEOPLE)
    objection = session.scalar(mine.where(_subscriber.c.id == person.id))
    hashed = _suppression.c.address_hash == person.address_hash
    return objection, session.execute(select(_suppression).where(hashed)).one_or_none()


def barred(session: Session, text: str, *, address_key: bytes) -> Row[Any] | None:
    """Why mail to this whole address is held back, whether or not anybody has it."""
    hashed = _hash(text, address_key)
    rows = select(_suppression.c.reason, _suppression.c.at)
    found = session.execute(rows.where(_suppression.c.address_hash == hashed))
    return found.one_or_none() if hashed else None


def _hash(text: str, address_key: bytes) -> bytes | None:
    try:
        return hash_address(address_key, parse(text))
    except AddressError:
        return None


class _Search:
    """Walks along an index for those who are wanted."""

    def __init__(self, session: Session, wanted: SearchQuery, now: datetime) -> None:
        self._session = session
        self._text = wanted.typed
        self._now = now
        self._conditions = [] if wanted.state is None else [in_state(wanted.state, now)]
        if wanted.rule.strip():
            self._conditions.append(segment_parser.condition(wanted.rule, now=now))

    def exactly(self, hashed: bytes | None) -> list[Row[Any]]:
        """Who has this address."""
        if hashed is None:
            return []
        same = _people(self._now).where(_subscriber.c.address_hash == hashed, *self._conditions)
        return list(self._session.execute(same))

    def stretch(self, order: Order, after: SearchPosition | None = None) -> "_Stretch":
        """The part of the index to walk along."""
        return _Stretch(self._session, order, self._text, after)

    def walk(
        self, order: Order, after: SearchPosition | None, size: int, *also: ColumnElement[bool]
    ) -> SearchPage:
        """The next page of this order."""
        stretch = self.stretch(order, after if after and after.order is order else None)
        conditions = [*self._conditions, *also]
        end = self._end(stretch) if conditions else None
        query = _people(self._now).add_columns(stretch.key.label("key"))
        query = query.where(stretch.up_to(end), *conditions).order_by(*stretch.order_by)
        # One more than is shown tells whether there is a further page.
        rows = list(self._session.execute(query.limit(size + 1)))
        if len(rows) > size:
            last = rows[size - 1] if size else None
            return SearchPage(
                rows[:size],
                SearchPosition(order, last.id, last.key) if last else SearchPosition(order, 0),
            )
        return SearchPage(rows, end, unfinished=end is not None)

    def _end(self, stretch: "_Stretch") -> SearchPosition | None:
        """How far one page looks, when some of the people looked at may not be wanted."""
        columns = _subscriber.c.id, stretch.key.label("key")
        near = select(*columns).where(stretch.condition).order_by(*stretch.order_by)
        row = self._session.execute(near.offset(_AT_ONCE - 1).limit(1)).first()
        return SearchPosition(stretch.order, row.id, row.key) if row else None


class _Stretch:
    """A part of an index: those who begin with a text, after a place."""

    def __init__(
        self, session: Session, order: Order, text: str, after: SearchPosition | None
    ) -> None:
        person = _subscriber.c
        self.order = order
        self._beginnings = _beginnings(text)
        self._after = after
        self.key: ColumnElement[str] = literal("")
        self.order_by: tuple[ColumnElement[Any], ...] = (person.id.desc(),)
        if order is not Order.NEWEST:
            self.key = _folded(session, person.email if order is Order.EMAIL else person.name)
            self.order_by = (self.key, person.id)
        self.condition = self.up_to(None)

    def up_to(self, end: SearchPosition | None) -> ColumnElement[bool]:
        """The condition of standing in this part, or in its beginning up to a place."""
        number, after = _subscriber.c.id, self._after
        if self.order is Order.NEWEST:
            first = true() if after is None else number < after.id
            return and_(first, true() if end is None else number >= end.id)
        # The keys bound the walk along the index; the pairs then decide who shares a key.
        low, high = after.key if after else "", end.key if end else _LAST
        ranges = [
            self.key.between(max(begin, low), min(begin + _LAST, high))
            for begin in self._beginnings
        ]
        pair = tuple_(self.key, number)
        return and_(
            or_(*ranges),
            true() if after is None else pair > tuple_(after.key, after.id),
            true() if end is None else pair <= tuple_(end.key, end.id),
        )


def _folded(session: Session, column: Column[Any]) -> ColumnElement[str]:
    """The text with A to Z in lower case, in the order of its character codes, as it is indexed."""
    postgresql = session.get_bind().dialect.name == "postgresql"
    return func.lower(collate(column, "C") if postgresql else column)


def _beginnings(text: str) -> set[str]:
    """How the text may be written, where it begins with a letter that the index does not fold."""
    spelt = {text, text.lower(), text[:1].upper() + text[1:]}
    return {"".join(c.lower() if c.isascii() else c for c in one) for one in spelt}


def _people(now: datetime) -> Select[Any]:
    columns = (_subscriber.c[name] for name in ("id", "email", "name", "source", "created_at"))
    return select(*columns, segment_store.exclusion_reason(now, ()).label("objection")).select_from(
        segment_store.PEOPLE
    )
