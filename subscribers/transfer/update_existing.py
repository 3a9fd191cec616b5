"""Processes the rows of an import that are compared one by one, after the new ones are in.

Their people exist already, must not be added, left elsewhere, or have two rows in the file.
Slices keep transactions short. Python makes the decisions, the same for both databases.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Row, Table, bindparam, case, func, insert, select, update

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from subscribers.consent import former_addresses, suppression
from subscribers.list_files.status_words import LEAVING, SUBSCRIBED
from subscribers.models import (
    Consent,
    DroppedTopic,
    FormerAddress,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)
from subscribers.transfer.insert_new import NewRowInserter

_subscriber = table_of(Subscriber)
_suppression = table_of(Suppression)
_subscription, _dropped = table_of(Subscription), table_of(DroppedTopic)
_consent = table_of(Consent)
_topic = table_of(Topic)
_former = table_of(FormerAddress)

#: Why an address is not added, nor anything of its subscriber changed.
_EXCLUSION = func.coalesce(
    _suppression.c.reason, case((_former.c.at.is_not(None), former_addresses.REASON))
).label("exclusion")
#: The columns of an existing subscriber that a file may change.
_MERGED = ("name", "attributes", "language", "timezone")
_CONFIRMED = bindparam("confirmed", type_=_subscriber.c.confirmed_at.type)


class DuplicateRow(NamedTuple):
    """A row whose address is on an earlier line, which counts."""

    line: int
    email: str
    first: int


@dataclass
class _Sorted:
    """The rows of a slice, by what to do with them."""

    duplicates: list[Row[Any]] = field(default_factory=list)
    leaving: list[Row[Any]] = field(default_factory=list)
    fresh: list[Row[Any]] = field(default_factory=list)
    existing: list[Row[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class ExistingRowUpdater:
    """Processes the rows that ``NewRowInserter.insert`` deferred."""

    inserter: NewRowInserter
    #: Whether existing subscribers are changed.
    update: bool

    def suppress_existing(self, session: Session, after: int, limit: int) -> int | None:
        """Suppress a slice of existing subscribers who left according to any line of the file.

        Returns the row to continue after (None: done).
        """
        if not self.inserter.apply:
            return None
        self.inserter.lock(session)
        row = self.inserter.tables.row.c
        rows = session.execute(
            select(row.n, row.address_hash, row.status, row.status_at, row.evidence, row.own)
            .join(_subscriber, _subscriber.c.address_hash == row.address_hash)
            .where(row.n > after, row.status.in_(sorted(LEAVING)))
            .order_by(row.n)
            .limit(limit)
        ).all()
        self._suppress(session, rows)
        return rows[-1].n if len(rows) == limit else None

    def update_slice(
        self, session: Session, after: int, limit: int
    ) -> tuple[int | None, list[DuplicateRow]]:
        """Process a slice; returns the row to continue after (None: done) and the duplicates."""
        self.inserter.lock(session)
        rows = self._rows(session, after, limit)
        by = self._sorted(rows)
        counts = self.inserter.counts
        if by.fresh:
            counted = sum(row.status not in LEAVING for row in by.fresh)
            self.inserter.add(session, [row.n for row in by.fresh], counted)
        for row in by.existing:
            sure = row.is_confirmed or (self.update and row.confirmed)
            agreed = self.update and row.status == SUBSCRIBED
            counts.mailed += bool(sure)
            counts.mailed_if_vouched += bool(sure or agreed)
        if self.update:
            self._merge(session, by.existing)
        else:
            counts.unchanged += len(by.existing)
        if self.inserter.apply:
            self._suppress(session, by.leaving)
        next_row = rows[-1].n if len(rows) == limit else None
        return next_row, self._duplicates(session, by.duplicates)

    def _rows(self, session: Session, after: int, limit: int) -> Sequence[Row[Any]]:
        t = self.inserter.tables
        row = t.row.c
        return session.execute(
            select(
                *(row[name] for name in ("n", "line", "address_hash", "email", *_MERGED)),
                *(row[name] for name in ("status", "status_at", "evidence", "ip", "own")),
                t.seen.c.n.label("first"),
                t.left.c.status.label("left"),
                _EXCLUSION,
                _subscriber.c.id.label("person"),
                # Only for unconfirmed subscribers, since reading a time takes long.
                case((_subscriber.c.confirmed_at.is_(None), row.confirmed_at)).label("confirmed"),
                _subscriber.c.confirmed_at.is_not(None).label("is_confirmed"),
                *(_subscriber.c[name].label(f"old_{name}") for name in _MERGED),
            )
            .select_from(t.deferred)
            .join(t.row, row.n == t.deferred.c.n)
            .join(t.seen, t.seen.c.address_hash == row.address_hash)
            .outerjoin(t.left, t.left.c.address_hash == row.address_hash)
            .outerjoin(_suppression, _suppression.c.address_hash == row.address_hash)
            .outerjoin(_former, _former.c.address_hash == row.address_hash)
            .outerjoin(_subscriber, _subscriber.c.address_hash == row.address_hash)
            .where(t.deferred.c.n > after)
            .order_by(t.deferred.c.n)
            .limit(limit)
        ).all()

    def _sorted(self, rows: Iterable[Row[Any]]) -> _Sorted:
        by, counts = _Sorted(), self.inserter.counts
        for row in rows:
            leaves = row.status in LEAVING
            if leaves and row.exclusion != row.status:
                by.leaving.append(row)
            if row.n != row.first:
                by.duplicates.append(row)
            elif row.left:
                # On any line of the file: an earlier "subscribed" does not count.
                counts.left[row.left] += 1
                # Our own export keeps all who left; those of other files are not added.
                if leaves and row.own and row.person is None and not row.exclusion:
                    by.fresh.append(row)
            elif row.exclusion:
                counts.refused[row.exclusion] += 1
            elif row.person is None:
                by.fresh.append(row)
            else:
                by.existing.append(row)
        return by

    def _merge(self, session: Session, rows: Sequence[Row[Any]]) -> None:
        changes: list[dict[str, Any]] = []
        confirmed: list[Row[Any]] = []
        chosen = self._new_topics(session, rows)
        for row in rows:
            new = _merged(row)
            if new:
                old = {name: getattr(row, f"old_{name}") for name in _MERGED}
                changes.append({"person": row.person, "confirmed": None, **old, **new})
            if row.confirmed:
                confirmed.append(row)
            if new or row.person in chosen:
                self.inserter.counts.updated += 1
            else:
                self.inserter.counts.unchanged += 1
        if self.inserter.apply:
            self._change(session, changes)
            self._add_consent(session, confirmed)
            self._subscribe(session, chosen)

    def _new_topics(self, session: Session, rows: Sequence[Row[Any]]) -> dict[int, set[str]]:
        """Person → slugs of topics that they are to get and do not have."""
        t = self.inserter.tables
        people = {row.n: row.person for row in rows}
        if not people:
            return {}
        existing = set(session.scalars(select(_topic.c.slug)))
        wanted: dict[int, set[str]] = defaultdict(set)
        if self.inserter.topics:
            for person in people.values():
                wanted[person].update(self.inserter.topics)
        named = session.execute(
            select(t.topic.c.n, t.topic.c.slug).where(t.topic.c.n.between(min(people), max(people)))
        )
        missing: dict[str, None] = {}
        for n, slug in named:
            if n in people:
                wanted[people[n]].add(slug)
                if slug not in existing:
                    missing[slug] = None
        if missing:
            self.inserter.create_topics(session, list(missing))
        # Only the subscribers themselves choose a topic again that they gave up.
        decided = [self._of(session, table, list(wanted)) for table in (_subscription, _dropped)]
        for row in chain.from_iterable(decided):
            wanted[row.subscriber_id].discard(row.slug)
        return {person: slugs for person, slugs in wanted.items() if slugs}

    @staticmethod
    def _of(session: Session, table: Table, people: list[int]) -> Sequence[Row[Any]]:
        """The topics of these people in this table: rows of subscriber_id and slug."""
        return session.execute(
            select(table.c.subscriber_id, _topic.c.slug)
            .join(_topic, _topic.c.id == table.c.topic_id)
            .where(table.c.subscriber_id.in_(people))
        ).all()

    def _change(self, session: Session, changes: list[dict[str, Any]]) -> None:
        if changes:
            statement = (
                update(_subscriber)
                .where(_subscriber.c.id == bindparam("person"))
                .values({name: bindparam(name) for name in _MERGED})
                .values(confirmed_at=func.coalesce(_subscriber.c.confirmed_at, _CONFIRMED))
            )
            session.connection().execute(statement, changes)

    def _add_consent(self, session: Session, rows: list[Row[Any]]) -> None:
        if rows:
            acts = [
                {
                    "subscriber_id": row.person,
                    "at": self.inserter.now,
                    "act": "imported",
                    "source": self.inserter.source,
                    "wording": self.inserter.wording,
                    "ip": row.ip,
                }
                for row in rows
            ]
            session.connection().execute(insert(_consent), acts)

    def _subscribe(self, session: Session, chosen: dict[int, set[str]]) -> None:
        if chosen:
            ids = {row.slug: row.id for row in session.execute(select(_topic.c.slug, _topic.c.id))}
            links = [
                {"subscriber_id": person, "topic_id": ids[slug], "since": self.inserter.now}
                for person, slugs in chosen.items()
                for slug in slugs
            ]
            statement = insert_into(session, _subscription).on_conflict_do_nothing()
            session.connection().execute(statement, links)

    def _suppress(self, session: Session, rows: Iterable[Row[Any]]) -> None:
        groups: dict[tuple[str, datetime, str], list[bytes]] = defaultdict(list)
        for row in rows:
            evidence = row.evidence if row.own else self.inserter.source
            groups[row.status, row.status_at or self.inserter.now, evidence].append(
                row.address_hash
            )
        for (reason, at, evidence), hashes in sorted(groups.items()):
            suppression.add_addresses(
                session, hashes, SuppressionReason(reason), at=at, evidence=evidence
            )

    def _duplicates(self, session: Session, rows: Sequence[Row[Any]]) -> list[DuplicateRow]:
        if not rows:
            return []
        row = self.inserter.tables.row.c
        firsts = select(row.n, row.line).where(row.n.in_({one.first for one in rows}))
        lines = {first.n: first.line for first in session.execute(firsts)}
        return [DuplicateRow(one.line, one.email, lines[one.first]) for one in rows]


def _merged(row: Row[Any]) -> dict[str, Any]:
    """The changes of an existing subscriber: a non-empty value of the file wins."""
    new: dict[str, Any] = {}
    if row.name and row.name != row.old_name:
        new["name"] = row.name
    if row.language and row.language != row.old_language:
        new["language"] = row.language
    if row.timezone and row.timezone != row.old_timezone:
        new["timezone"] = row.timezone
    attributes = row.old_attributes | row.attributes
    if _typed(attributes) != _typed(row.old_attributes):
        new["attributes"] = attributes
    if row.confirmed:
        new["confirmed"] = row.confirmed
    return new


def _typed(attributes: dict[str, Any]) -> bytes:
    """A text that distinguishes 1 from true, as Python's == does not."""
    return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)
