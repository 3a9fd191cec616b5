"""Searches the subscribers by text, segment and status, a page at a time.

No page reads the whole list. A search scans one index from the end of the last page, reads a
limited number of subscribers, and says where to continue.
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

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, table_of
from newsletter.errors import AddressError
from subscribers.consent import suppression
from subscribers.directory.status_counts import SubscriberStatus, has_status
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_subscriber = table_of(Subscriber)

#: Subscribers read for one page: some twenty milliseconds on either database.
_AT_ONCE = 50_000
#: Sorts after any text that may follow a prefix.
_LAST = chr(0x10FFFF)
_LONGEST = 320


class SearchOrder(StrEnum):
    """The index that a search scans."""

    #: Newest subscribers first.
    NEWEST = "newest"
    #: Addresses that begin with the text, in alphabetical order.
    EMAIL = "email"
    #: Names that begin with the text, in alphabetical order.
    NAME = "name"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to search for. ``text`` is the beginning of an address or name, or a whole address."""

    text: str = ""
    status: SubscriberStatus | None = None
    #: A segment's rule.
    rule: str = ""

    @property
    def typed(self) -> str:
        """The text without characters that no address or name has."""
        return "".join(c for c in self.text[:_LONGEST] if c.isprintable()).strip()


@dataclass(frozen=True, slots=True)
class SearchPosition:
    """The last subscriber of a page: the next one continues after it."""

    order: SearchOrder
    id: int
    #: The sort key; empty if the order is by id.
    key: str = ""

    def __str__(self) -> str:
        return f"{self.order}:{self.id}:{self.key}"

    @classmethod
    def read(cls, text: str) -> "SearchPosition | None":
        """The position that ``str`` wrote; None for anything else."""
        order, _, rest = text.partition(":")
        number, _, key = rest.partition(":")
        if order not in set(SearchOrder) or not number.isascii() or not number.isdigit():
            return None
        if len(number) > 18 or len(key) > _LONGEST or not key.isprintable():
            return None
        return cls(SearchOrder(order), int(number), key)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Found subscribers: id, email, name, source, created_at and exclusion reason."""

    people: list[Row[Any]]
    #: Where the next page begins; None at the end.
    next: SearchPosition | None = None
    #: Whether the scan reached its limit, so that this page may miss matches further on.
    incomplete: bool = False


def page(
    session: Session,
    query: SearchQuery,
    *,
    address_key: bytes,
    now: datetime,
    after: SearchPosition | None = None,
    size: int = 50,
) -> SearchPage:
    """The next page of matching subscribers. SegmentError for a wrong rule."""
    search = _Search(session, query, now)
    text = query.typed
    if not text:
        return search.scan(SearchOrder.NEWEST, after, size)
    if after is None and (exact := search.with_address(_hash(text, address_key))):
        return SearchPage(exact)
    by_email = SearchPage([])
    if after is None or after.order is not SearchOrder.NAME:
        by_email = search.scan(SearchOrder.EMAIL, after, size)
        if by_email.next is not None:
            return by_email
        after, size = None, size - len(by_email.people)
    # Without those whose address matches: they were listed before.
    by_name = search.scan(
        SearchOrder.NAME, after, size, ~search.index_range(SearchOrder.EMAIL).condition
    )
    return SearchPage([*by_email.people, *by_name.people], by_name.next, by_name.incomplete)


def id_by_hash(session: Session, address_hash: bytes) -> int | None:
    """The ID of the subscriber whose address has this hash."""
    wanted = select(_subscriber.c.id).where(_subscriber.c.address_hash == address_hash)
    return session.scalar(wanted)


def exclusion_of(
    session: Session, person: Subscriber, *, now: datetime
) -> tuple[str | None, Row[Any] | None]:
    """Why a subscriber gets no emails, if so, and their row in the suppression list."""
    mine = select(segment_store.exclusion_reason(now, ())).select_from(segment_store.PEOPLE)
    reason = session.scalar(mine.where(_subscriber.c.id == person.id))
    return reason, suppression.find(session, person.address_hash)


def suppression_of(session: Session, text: str, *, address_key: bytes) -> Row[Any] | None:
    """The suppression of an address, with or without a subscriber; None if the text is none."""
    hashed = _hash(text, address_key)
    return suppression.find(session, hashed) if hashed else None


def _hash(text: str, address_key: bytes) -> bytes | None:
    try:
        return hash_address(address_key, parse(text))
    except AddressError:
        return None


class _Search:
    """Scans an index for matching subscribers."""

    def __init__(self, session: Session, query: SearchQuery, now: datetime) -> None:
        self._session = session
        self._text = query.typed
        self._now = now
        self._conditions = [] if query.status is None else [has_status(query.status, now)]
        if query.rule.strip():
            self._conditions.append(segment_store.condition(session, query.rule, now=now))

    def with_address(self, hashed: bytes | None) -> list[Row[Any]]:
        """The subscriber with this address."""
        if hashed is None:
            return []
        same = _people(self._now).where(_subscriber.c.address_hash == hashed, *self._conditions)
        return list(self._session.execute(same))

    def index_range(self, order: SearchOrder, after: SearchPosition | None = None) -> "_IndexRange":
        """The range of the index to scan."""
        return _IndexRange(self._session, order, self._text, after)

    def scan(
        self,
        order: SearchOrder,
        after: SearchPosition | None,
        size: int,
        *also: ColumnElement[bool],
    ) -> SearchPage:
        """The next page in this order."""
        index_range = self.index_range(order, after if after and after.order is order else None)
        conditions = [*self._conditions, *also]
        end = self._end(index_range) if conditions else None
        query = _people(self._now).add_columns(index_range.key.label("key"))
        query = query.where(index_range.up_to(end), *conditions).order_by(*index_range.order_by)
        # One row more than the page shows whether there is a next page.
        rows = list(self._session.execute(query.limit(size + 1)))
        if len(rows) > size:
            last = rows[size - 1] if size else None
            return SearchPage(
                rows[:size],
                SearchPosition(order, last.id, last.key) if last else SearchPosition(order, 0),
            )
        return SearchPage(rows, end, incomplete=end is not None)

    def _end(self, index_range: "_IndexRange") -> SearchPosition | None:
        """Where the scan for one page ends, if some of the rows may not match."""
        columns = _subscriber.c.id, index_range.key.label("key")
        near = select(*columns).where(index_range.condition).order_by(*index_range.order_by)
        row = self._session.execute(near.offset(_AT_ONCE - 1).limit(1)).first()
        return SearchPosition(index_range.order, row.id, row.key) if row else None


class _IndexRange:
    """A range of an index: the keys that begin with a text, after a position."""

    def __init__(
        self, session: Session, order: SearchOrder, text: str, after: SearchPosition | None
    ) -> None:
        person = _subscriber.c
        self.order = order
        self._prefixes = _prefixes(text)
        self._after = after
        self.key: ColumnElement[str] = literal("")
        self.order_by: tuple[ColumnElement[Any], ...] = (person.id.desc(),)
        if order is not SearchOrder.NEWEST:
            self.key = _folded(session, person.email if order is SearchOrder.EMAIL else person.name)
            self.order_by = (self.key, person.id)
        self.condition = self.up_to(None)

    def up_to(self, end: SearchPosition | None) -> ColumnElement[bool]:
        """The condition of being in this range, or in its part up to a position."""
        number, after = _subscriber.c.id, self._after
        if self.order is SearchOrder.NEWEST:
            first = true() if after is None else number < after.id
            return and_(first, true() if end is None else number >= end.id)
        # The keys bound the index scan; the pairs decide among equal keys.
        low, high = after.key if after else "", end.key if end else _LAST
        ranges = [
            self.key.between(max(prefix, low), min(prefix + _LAST, high))
            for prefix in self._prefixes
        ]
        pair = tuple_(self.key, number)
        return and_(
            or_(*ranges),
            true() if after is None else pair > tuple_(after.key, after.id),
            true() if end is None else pair <= tuple_(end.key, end.id),
        )


def _folded(session: Session, column: Column[Any]) -> ColumnElement[str]:
    """The text with A to Z in lower case, sorted by code points, as the index has it."""
    return func.lower(collate(column, "C") if is_postgresql(session) else column)


def _prefixes(text: str) -> set[str]:
    """The prefix in several spellings, since the index does not fold letters outside ASCII."""
    spellings = {text, text.lower(), text[:1].upper() + text[1:]}
    return {"".join(c.lower() if c.isascii() else c for c in one) for one in spellings}


def _people(now: datetime) -> Select[Any]:
    columns = (_subscriber.c[name] for name in ("id", "email", "name", "source", "created_at"))
    reason = segment_store.exclusion_reason(now, ()).label("exclusion_reason")
    return select(*columns, reason).select_from(segment_store.PEOPLE)
