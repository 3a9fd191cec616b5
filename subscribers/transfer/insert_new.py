"""From the stage into the audience: the people who are new, in sets.

Nobody who is suppressed is added, whatever a file says; that is asked in the same
transaction. Nor is anybody who left by another row of the file: they would be mailed
until that row's turn came. Nor is anybody under an address that they gave up. Rows that
need a closer look are put by for settling.py.
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
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)

from newsletter.db.orm import Session, insert_into, table_of
from subscribers.list_files.status_words import LEAVING, SUBSCRIBED, UNCONFIRMED
from subscribers.models import Consent, FormerAddress, Subscriber, Subscription, Suppression, Topic
from subscribers.transfer.staging import ACT, PERSON, RowRange, Tables

_subscriber = table_of(Subscriber)
_suppression = table_of(Suppression)
_subscription = table_of(Subscription)
_consent = table_of(Consent)
_topic = table_of(Topic)
_former = table_of(FormerAddress)
#: SQLite's own: the highest number that each table ever gave, to people who are gone, too.
_given = TableClause("sqlite_sequence", column("name"), column("seq"))


@dataclass
class ImportCounts:
    """What came of the rows, so far."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    #: People of the file who get mail: new ones and known ones, confirmed and not suppressed.
    mailed: int = 0
    #: Those, and whoever would be among them if the operator vouched for the file.
    mailed_if_vouched: int = 0
    left: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    #: Topics that were made, in the order of their making.
    new_topics: dict[str, None] = field(default_factory=dict)


@dataclass
class NewRowInserter:
    """Merges one import; without ``apply`` it only finds out what would come of it."""

    tables: Tables
    now: datetime
    source: str
    wording: str
    #: Topics that everybody gets, by slug; they exist.
    topics: Sequence[str]
    apply: bool
    #: Names of topics that are made: slug → name.
    topic_names: Mapping[str, str] = field(default_factory=dict)
    tally: ImportCounts = field(default_factory=ImportCounts)
    #: Rows of a span whose address stands in the file before.
    _repeats: dict[RowRange, int] = field(default_factory=dict)
    #: Whether anybody left by the file.
    _left: bool = False
    _batches: int = 0

    def prepare(self, session: Session) -> None:
        """Make the tables that live as long as the connection."""
        tables = self.tables.temporary
        if _is_postgres(session):
            tables += self.tables.staged
        for table in tables:
            table.create(session.connection(), checkfirst=False)

    def look(self, session: Session, span: RowRange) -> None:
        """Remember whose rows these are and who left by them, before they come to ``batch``.

        Of a file that tells who left, all rows come here before any comes there.
        """
        t = self.tables
        seen = insert_into(session, t.seen).from_select(
            ["address_hash", "n"],
            select(t.row.c.address_hash, t.row.c.n)
            .where(t.row.c.n.between(span.first, span.last))
            .order_by(t.row.c.address_hash, t.row.c.n),
        )
        firsts = _count(session, seen.on_conflict_do_nothing())
        self._repeats[span] = span.last - span.first + 1 - firsts
        leaving = select(t.row.c.address_hash, t.row.c.status).where(
            t.row.c.n.between(span.first, span.last), t.row.c.status.in_(sorted(LEAVING))
        )
        noted = insert_into(session, t.left).from_select(
            ["address_hash", "status"], leaving.order_by(t.row.c.n)
        )
        self._left |= _count(session, noted.on_conflict_do_nothing()) > 0

    def batch(self, session: Session, span: RowRange) -> None:
        """Add the new people among these rows, and put the others by.

        A few statements and no loop over rows: each fetched row would wait for the
        interpreter lock, which the thread that reads the file holds meanwhile.
        """
        t = self.tables
        self.lock(session)
        those = t.row.c.n.between(span.first, span.last)
        repeats = self._repeats.pop(span)
        self.tally.duplicates += repeats
        new = (
            select(t.row.c.n, self._new_id(session))
            .where(those, *self._stay())
            .where(~exists().where(_subscriber.c.address_hash == t.row.c.address_hash))
            .order_by(t.row.c.n)
        )
        if repeats:
            first = and_(t.seen.c.address_hash == t.row.c.address_hash, t.seen.c.n == t.row.c.n)
            new = new.join(t.seen, first)
        fresh = _count(session, insert(t.fresh).from_select(["n", "person"], new))
        if fresh < span.last - span.first + 1:
            others = select(t.row.c.n).where(those, t.row.c.n.not_in(select(t.fresh.c.n)))
            session.execute(insert(t.later).from_select(["n"], others))
            if not (repeats or span.topics or self.topics):
                self.tally.unchanged += self._forget_same(session, span)
        if fresh:
            self._add(session, fresh, span)
        self._batches += 1
        # A planner that takes a table for empty would read it whole for each row of the next
        # batch. Each time that the audience may have doubled, it is told.
        if self.apply and _is_postgres(session) and self._batches.bit_count() == 1:
            session.execute(text("ANALYZE subscriber"))

    def _forget_same(self, session: Session, span: RowRange) -> int:
        """Spare the closer look at people of whom the file says what is known: a file read again.

        Returns how many they are.
        """
        t = self.tables
        row, person = t.row.c, _subscriber.c
        same = (
            select(row.n, person.confirmed_at.is_not(None), row.status == SUBSCRIBED)
            .join(_subscriber, person.address_hash == row.address_hash)
            .where(row.n.between(span.first, span.last))
            .where(*self._stay())
            .where(row.attributes == person.attributes, row.name.in_(("", person.name)))
            .where(or_(row.confirmed_at.is_(None), person.confirmed_at.is_not(None)))
            .where(*(or_(row[c].is_(None), row[c] == person[c]) for c in ("language", "timezone")))
        )
        number = _count(
            session, insert(t.same).from_select(["n", "is_confirmed", "is_agreed"], same)
        )
        if number:
            session.execute(delete(t.later).where(t.later.c.n.in_(select(t.same.c.n))))
            sure = t.same.c.is_confirmed
            self._count_mailed(session, t.same, sure, or_(sure, t.same.c.is_agreed))
            session.execute(delete(t.same))
        return number

    def _stay(self) -> list[ColumnElement[bool]]:
        """The conditions on a row that neither it nor anything else keeps its person out."""
        row = self.tables.row.c
        barring = [_suppression, _former, *([self.tables.left] if self._left else [])]
        return [
            row.status.in_((SUBSCRIBED, UNCONFIRMED)),
            *(~exists().where(b.c.address_hash == row.address_hash) for b in barring),
        ]

    def add(self, session: Session, numbers: Sequence[int], counted: int) -> None:
        """Add the people of these rows, of whom ``counted`` are not suppressed afterwards."""
        t = self.tables
        new = select(t.row.c.n, self._new_id(session)).where(t.row.c.n.in_(numbers))
        ordered = new.order_by(t.row.c.n)
        session.execute(insert(t.fresh).from_select(["n", "person"], ordered))
        self._add(session, counted, RowRange(min(numbers), max(numbers)))

    def lock(self, session: Session) -> None:
        """Nobody else may add the people whom we are about to add."""
        if not self.apply:
            return
        if _is_postgres(session):
            session.execute(text("LOCK TABLE subscriber IN SHARE ROW EXCLUSIVE MODE"))
        else:
            # It writes nothing, and waits its turn to write.
            session.execute(delete(_subscriber).where(false()))

    def _new_id(self, session: Session) -> ColumnElement[int]:
        """Ids given beforehand spare a search by hash for each consent and topic."""
        if _is_postgres(session):
            return func.nextval(func.pg_get_serial_sequence("subscriber", "id"))
        given = select(func.max(_given.c.seq)).where(_given.c.name == _subscriber.name)
        last = func.max(
            *(
                func.coalesce(highest.scalar_subquery(), 0)
                for highest in (given, select(func.max(_subscriber.c.id)))
            )
        )
        return last + func.row_number().over(order_by=self.tables.row.c.n)

    def _add(self, session: Session, counted: int, span: RowRange) -> None:
        """Write the people of ``fresh``, with their consent and topics, and empty it."""
        self.tally.added += counted
        t = self.tables
        if counted:
            agreed = t.row.c.status == SUBSCRIBED
            people = t.fresh.join(
                t.row, and_(t.row.c.n == t.fresh.c.n, t.row.c.n.between(span.first, span.last))
            )
            self._count_mailed(
                session, people, and_(agreed, t.row.c.confirmed_at.is_not(None)), agreed
            )
        if span.topics:
            self._make_topics(session, span)
        if self.apply:
            session.execute(
                insert(_subscriber).from_select(
                    ["id", *PERSON],
                    select(t.fresh.c.person, *(t.row.c[name] for name in PERSON))
                    .join(t.fresh, t.fresh.c.n == t.row.c.n)
                    .where(t.row.c.n.between(span.first, span.last))
                    .order_by(t.row.c.n),
                )
            )
            self._prove(session, span)
            self._subscribe(session, span)
        session.execute(delete(t.fresh))

    def _count_mailed(
        self,
        session: Session,
        people: FromClause,
        sure: ColumnElement[bool],
        vouched: ColumnElement[bool],
    ) -> None:
        """Count those who get mail, and those who would if somebody vouched for them."""
        counts = (func.count(case((one, 1))) for one in (sure, vouched))
        row = session.execute(select(*counts).select_from(people)).one()
        self.tally.mailed += row[0]
        self.tally.mailed_if_vouched += row[1]

    def _prove(self, session: Session, span: RowRange) -> None:
        """This import is an act of consent, and so are those that our own export tells of."""
        t = self.tables
        people = (
            select()
            .select_from(t.fresh)
            .join(t.row, t.row.c.n == t.fresh.c.n)
            # Planners know nothing of temporary tables, and may begin with the long one.
            .where(t.row.c.n.between(span.first, span.last))
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
        if span.consents:
            acts = people.add_columns(t.fresh.c.person, *(t.consent.c[name] for name in ACT))
            session.execute(
                insert(_consent).from_select(
                    ["subscriber_id", *ACT],
                    acts.join(t.consent, t.consent.c.n == t.row.c.n).order_by(
                        t.consent.c.n, t.consent.c.place
                    ),
                )
            )

    def _subscribe(self, session: Session, span: RowRange) -> None:
        t = self.tables
        since = literal(self.now, _subscription.c.since.type)
        people = select(t.fresh.c.person, _topic.c.id, since).select_from(t.fresh)
        chosen = []
        if span.topics:
            theirs = people.join(t.topic, t.topic.c.n == t.fresh.c.n)
            chosen.append(theirs.join(_topic, _topic.c.slug == t.topic.c.slug))
        if self.topics:
            chosen.append(people.join(_topic, _topic.c.slug.in_(self.topics)))
        for rows in chosen:
            session.execute(
                insert_into(session, _subscription)
                # SQLite takes the ON of ON CONFLICT for a join's, unless WHERE comes between.
                .from_select(["subscriber_id", "topic_id", "since"], rows.where(t.fresh.c.n > 0))
                .on_conflict_do_nothing()
            )

    def _make_topics(self, session: Session, span: RowRange) -> None:
        t = self.tables
        join = func.string_agg if _is_postgres(session) else func.group_concat
        # One row for all: see ``batch``.
        slugs = session.scalar(
            select(join(t.topic.c.slug, "\n")).where(
                t.topic.c.n.between(span.first, span.last),
                t.topic.c.n.in_(select(t.fresh.c.n)),
                t.topic.c.slug.not_in(select(_topic.c.slug)),
            )
        )
        if slugs:
            self.make_topics(session, slugs.split("\n"))

    def make_topics(self, session: Session, slugs: Sequence[str]) -> None:
        """Make topics that the file names and that there are not."""
        missing = dict.fromkeys(slugs)
        self.tally.new_topics |= missing
        if self.apply:
            names = self.topic_names
            rows = [
                {"slug": slug, "name": names.get(slug, slug), "description": ""} for slug in missing
            ]
            statement = insert_into(session, _topic).on_conflict_do_nothing()
            session.connection().execute(statement, rows)


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _count(session: Session, statement: Any) -> int:  # noqa: ANN401 (any INSERT … SELECT)
    result = session.execute(statement, execution_options={"preserve_rowcount": True})
    assert isinstance(result, CursorResult)
    return result.rowcount
