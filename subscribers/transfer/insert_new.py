"""Inserts the new subscribers of an import, in sets.

Nobody who is suppressed is added, whatever the file says; the same transaction checks this. Nor
is anybody who unsubscribed by another row of the file: they would be emailed until that row is
processed. Nor is anybody at a former address. Rows that must be compared one by one are deferred
to update_existing.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    FromClause,
    TableClause,
    and_,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)

from newsletter.db import webhook_queue
from newsletter.db.dialect import insert_into, is_postgresql, joined, lock_table
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from subscribers.consent import topics
from subscribers.list_files.status_words import LEAVING, SUBSCRIBED, UNCONFIRMED
from subscribers.models import Consent, FormerAddress, Subscriber, Subscription, Suppression, Topic
from subscribers.transfer.staging import ACT, PERSON, RowRange, Tables

_subscriber = table_of(Subscriber)
_suppression = table_of(Suppression)
_subscription = table_of(Subscription)
_consent = table_of(Consent)
_topic = table_of(Topic)
_former = table_of(FormerAddress)
#: SQLite's table of the highest id that each table ever assigned, deleted rows included.
_sequence = TableClause("sqlite_sequence", column("name"), column("seq"))


@dataclass
class ImportCounts:
    """The counts of an import so far."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    #: People of the file who get emails: new or existing, confirmed and not suppressed.
    mailed: int = 0
    #: Those, and the ones who would get emails if the operator vouched for the file.
    mailed_if_vouched: int = 0
    left: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    #: Created topics, in this order.
    new_topics: dict[str, None] = field(default_factory=dict)


@dataclass
class NewRowInserter:
    """Inserts the new rows of one import; without ``apply`` it only counts what it would do."""

    tables: Tables
    now: datetime
    source: str
    wording: str
    #: Topics for all rows, by slug; they exist.
    topics: Sequence[str]
    apply: bool
    #: Names of the topics to create: slug → name.
    topic_names: Mapping[str, str] = field(default_factory=dict)
    counts: ImportCounts = field(default_factory=ImportCounts)
    #: Rows of a range whose address is on an earlier line.
    _duplicates: dict[RowRange, int] = field(default_factory=dict)
    #: Whether any row says that somebody left.
    _left: bool = False
    _batches: int = 0

    def create_tables(self, session: Session) -> None:
        """Create the temporary tables of the connection."""
        tables = self.tables.temporary
        if is_postgresql(session):
            tables += self.tables.staged
        for table in tables:
            table.create(session.connection(), checkfirst=False)

    def index_rows(self, session: Session, row_range: RowRange) -> None:
        """Record the first row of each address, and who left, before ``insert``.

        In a file that says who left, this is called for all rows before ``insert`` for any.
        """
        t = self.tables
        seen = insert_into(session, t.seen).from_select(
            ["address_hash", "n"],
            select(t.row.c.address_hash, t.row.c.n)
            .where(t.row.c.n.between(row_range.first, row_range.last))
            .order_by(t.row.c.address_hash, t.row.c.n),
        )
        firsts = _count(session, seen.on_conflict_do_nothing())
        self._duplicates[row_range] = row_range.last - row_range.first + 1 - firsts
        leaving = select(t.row.c.address_hash, t.row.c.status).where(
            t.row.c.n.between(row_range.first, row_range.last),
            t.row.c.status.in_(sorted(LEAVING)),
        )
        noted = insert_into(session, t.left).from_select(
            ["address_hash", "status"], leaving.order_by(t.row.c.n)
        )
        self._left |= _count(session, noted.on_conflict_do_nothing()) > 0

    def insert(self, session: Session, row_range: RowRange) -> None:
        """Insert the new people among these rows, and defer the other rows.

        It runs a few statements and no loop over rows: each fetched row would wait for the
        interpreter lock, which the thread that reads the file holds meanwhile.
        """
        t = self.tables
        self.lock(session)
        those = t.row.c.n.between(row_range.first, row_range.last)
        duplicates = self._duplicates.pop(row_range)
        self.counts.duplicates += duplicates
        new = (
            select(t.row.c.n, self._new_id(session))
            .where(those, *self._not_excluded())
            .where(~exists().where(_subscriber.c.address_hash == t.row.c.address_hash))
            .order_by(t.row.c.n)
        )
        if duplicates:
            first = and_(t.seen.c.address_hash == t.row.c.address_hash, t.seen.c.n == t.row.c.n)
            new = new.join(t.seen, first)
        fresh = _count(session, insert(t.fresh).from_select(["n", "person"], new))
        if fresh < row_range.last - row_range.first + 1:
            others = select(t.row.c.n).where(those, t.row.c.n.not_in(select(t.fresh.c.n)))
            session.execute(insert(t.deferred).from_select(["n"], others))
            if not (duplicates or row_range.topics or self.topics):
                self.counts.unchanged += self._skip_unchanged(session, row_range)
        if fresh:
            self._add(session, fresh, row_range)
        self._batches += 1
        # A planner with statistics of an empty table would scan it for each row of the next
        # batch. So they are renewed each time that the audience may have doubled.
        if self.apply and is_postgresql(session) and self._batches.bit_count() == 1:
            session.execute(text("ANALYZE subscriber"))

    def _skip_unchanged(self, session: Session, row_range: RowRange) -> int:
        """Drop deferred rows that equal the stored subscriber, as when a file is imported again.

        Returns how many they are.
        """
        t = self.tables
        row, person = t.row.c, _subscriber.c
        same = (
            select(row.n, person.confirmed_at.is_not(None), row.status == SUBSCRIBED)
            .join(_subscriber, person.address_hash == row.address_hash)
            .where(row.n.between(row_range.first, row_range.last))
            .where(*self._not_excluded())
            .where(row.attributes == person.attributes, row.name.in_(("", person.name)))
            .where(or_(row.confirmed_at.is_(None), person.confirmed_at.is_not(None)))
            .where(*(or_(row[c].is_(None), row[c] == person[c]) for c in ("language", "timezone")))
        )
        number = _count(
            session, insert(t.same).from_select(["n", "is_confirmed", "is_agreed"], same)
        )
        if number:
            session.execute(delete(t.deferred).where(t.deferred.c.n.in_(select(t.same.c.n))))
            sure = t.same.c.is_confirmed
            self._count_mailed(session, t.same, sure, or_(sure, t.same.c.is_agreed))
            session.execute(delete(t.same))
        return number

    def _not_excluded(self) -> list[ColumnElement[bool]]:
        """The conditions that neither the row itself nor anything else excludes its person."""
        row = self.tables.row.c
        excluding = [_suppression, _former, *([self.tables.left] if self._left else [])]
        return [
            row.status.in_((SUBSCRIBED, UNCONFIRMED)),
            *(~exists().where(e.c.address_hash == row.address_hash) for e in excluding),
        ]

    def add(self, session: Session, numbers: Sequence[int], counted: int) -> None:
        """Insert the people of these rows, of whom ``counted`` are not suppressed afterwards."""
        t = self.tables
        new = select(t.row.c.n, self._new_id(session)).where(t.row.c.n.in_(numbers))
        ordered = new.order_by(t.row.c.n)
        session.execute(insert(t.fresh).from_select(["n", "person"], ordered))
        self._add(session, counted, RowRange(min(numbers), max(numbers)))

    def lock(self, session: Session) -> None:
        """Prevent other transactions from adding the same people."""
        if self.apply:
            lock_table(session, _subscriber)

    def _new_id(self, session: Session) -> ColumnElement[int]:
        """Ids assigned beforehand save a lookup by hash for each consent record and topic."""
        if is_postgresql(session):
            return func.nextval(func.pg_get_serial_sequence("subscriber", "id"))
        given = select(func.max(_sequence.c.seq)).where(_sequence.c.name == _subscriber.name)
        last = func.max(
            *(
                func.coalesce(highest.scalar_subquery(), 0)
                for highest in (given, select(func.max(_subscriber.c.id)))
            )
        )
        return last + func.row_number().over(order_by=self.tables.row.c.n)

    def _add(self, session: Session, counted: int, row_range: RowRange) -> None:
        """Insert the people of ``fresh``, with their consent and topics, and empty it."""
        self.counts.added += counted
        t = self.tables
        if counted:
            agreed = t.row.c.status == SUBSCRIBED
            people = t.fresh.join(
                t.row,
                and_(
                    t.row.c.n == t.fresh.c.n,
                    t.row.c.n.between(row_range.first, row_range.last),
                ),
            )
            self._count_mailed(
                session, people, and_(agreed, t.row.c.confirmed_at.is_not(None)), agreed
            )
        if row_range.topics:
            self._create_topics(session, row_range)
        if self.apply:
            session.execute(
                insert(_subscriber).from_select(
                    ["id", *PERSON],
                    select(t.fresh.c.person, *(t.row.c[name] for name in PERSON))
                    .join(t.fresh, t.fresh.c.n == t.row.c.n)
                    .where(t.row.c.n.between(row_range.first, row_range.last))
                    .order_by(t.row.c.n),
                )
            )
            self._add_consent(session, row_range)
            self._subscribe(session, row_range)
            webhook_queue.report_subscribers(
                session,
                WebhookEvent.SUBSCRIBER_CREATED,
                select(t.fresh.c.person, t.row.c.email)
                .join(t.row, t.row.c.n == t.fresh.c.n)
                .where(t.row.c.n.between(row_range.first, row_range.last)),
                source=self.source,
            )
        session.execute(delete(t.fresh))

    def _count_mailed(
        self,
        session: Session,
        people: FromClause,
        sure: ColumnElement[bool],
        vouched: ColumnElement[bool],
    ) -> None:
        """Count those who get emails, and those who would if the operator vouched for them."""
        counts = (func.count(case((one, 1))) for one in (sure, vouched))
        row = session.execute(select(*counts).select_from(people)).one()
        self.counts.mailed += row[0]
        self.counts.mailed_if_vouched += row[1]

    def _add_consent(self, session: Session, row_range: RowRange) -> None:
        """Add a consent record for this import, and the records in our own export."""
        t = self.tables
        people = (
            select()
            .select_from(t.fresh)
            .join(t.row, t.row.c.n == t.fresh.c.n)
            # Planners have no statistics of temporary tables, and may begin with the long one.
            .where(t.row.c.n.between(row_range.first, row_range.last))
        )
        session.execute(
            insert(_consent).from_select(
                ["subscriber_id", "at", "act", "source", "wording", "ip"],
                people.add_columns(
                    t.fresh.c.person,
                    literal(self.now, _consent.c.at.type),
                    literal("imported"),
                    literal(self.source),
                    literal(self.wording),
                    t.row.c.ip,
                ).where(~t.row.c.proven),
            )
        )
        if row_range.consents:
            acts = people.add_columns(t.fresh.c.person, *(t.consent.c[name] for name in ACT))
            session.execute(
                insert(_consent).from_select(
                    ["subscriber_id", *ACT],
                    acts.join(t.consent, t.consent.c.n == t.row.c.n).order_by(
                        t.consent.c.n, t.consent.c.place
                    ),
                )
            )

    def _subscribe(self, session: Session, row_range: RowRange) -> None:
        t = self.tables
        since = literal(self.now, _subscription.c.since.type)
        people = select(t.fresh.c.person, _topic.c.id, since).select_from(t.fresh)
        chosen = []
        if row_range.topics:
            theirs = people.join(t.topic, t.topic.c.n == t.fresh.c.n)
            chosen.append(theirs.join(_topic, _topic.c.slug == t.topic.c.slug))
        if self.topics:
            chosen.append(people.join(_topic, _topic.c.slug.in_(self.topics)))
        for rows in chosen:
            session.execute(
                insert_into(session, _subscription)
                # SQLite would parse the ON of ON CONFLICT as a join's, without a WHERE before it.
                .from_select(["subscriber_id", "topic_id", "since"], rows.where(t.fresh.c.n > 0))
                .on_conflict_do_nothing()
            )

    def _create_topics(self, session: Session, row_range: RowRange) -> None:
        t = self.tables
        # One row for all: see ``insert``.
        slugs = session.scalar(
            select(joined(session, t.topic.c.slug, "\n")).where(
                t.topic.c.n.between(row_range.first, row_range.last),
                t.topic.c.n.in_(select(t.fresh.c.n)),
                t.topic.c.slug.not_in(select(_topic.c.slug)),
            )
        )
        if slugs:
            self.create_topics(session, slugs.split("\n"))

    def create_topics(self, session: Session, slugs: Sequence[str]) -> None:
        """Create topics that the file names and that do not exist."""
        missing = dict.fromkeys(slugs)
        self.counts.new_topics |= missing
        if self.apply:
            names = self.topic_names
            place = topics.last_position(session)
            rows = [
                {
                    "slug": slug,
                    "name": names.get(slug, slug),
                    "description": "",
                    "position": place,
                    "hidden": False,
                }
                for slug in missing
            ]
            statement = insert_into(session, _topic).on_conflict_do_nothing()
            session.connection().execute(statement, rows)


def _count(session: Session, statement: Any) -> int:  # noqa: ANN401 (any INSERT … SELECT)
    result = session.execute(statement, execution_options={"preserve_rowcount": True})
    assert isinstance(result, CursorResult)
    return result.rowcount
