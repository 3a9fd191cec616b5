"""Saved segments, and the one rule of who may be emailed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    case,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from newsletter.db.orm import Session, table_of
from newsletter.errors import SegmentError
from subscribers.models import Segment, Subscriber, Subscription, Suppression, Topic
from subscribers.segments import parser as segment_parser
from subscribers.segments import past_issues
from subscribers.segments.attributes import index_ddl, index_name
from subscribers.segments.past_issues import PastIssues

_segment = table_of(Segment)
_subscriber = table_of(Subscriber)
_suppression = table_of(Suppression)
_subscription = table_of(Subscription)
_topic = table_of(Topic)

_NAME_LENGTH = 64

#: Subscribers joined to their suppression. All queries over the audience use it.
PEOPLE: FromClause = _subscriber.outerjoin(
    _suppression, _suppression.c.address_hash == _subscriber.c.address_hash
)


def exclusion_reason(
    now: datetime | ColumnElement[datetime], topics: Sequence[str]
) -> ColumnElement[str | None]:
    """Why a subscriber of ``PEOPLE`` may not be emailed at ``now``; NULL if they may.

    A suppression's reason, ``unconfirmed``, ``paused``, or ``topic`` if the email is about topics
    (slugs) of which the subscriber chose none.
    """
    conditions: list[tuple[ColumnElement[bool], ColumnElement[str]]] = [
        (_suppression.c.reason.is_not(None), _suppression.c.reason),
        (_subscriber.c.confirmed_at.is_(None), literal("unconfirmed")),
        (_subscriber.c.paused_until > now, literal("paused")),
    ]
    if topics:
        # Both databases look each up once; PostgreSQL would run an IN (SELECT …) for each row.
        ids = [select(_topic.c.id).where(_topic.c.slug == one).scalar_subquery() for one in topics]
        wanted = exists(
            select(1).where(
                _subscription.c.subscriber_id == _subscriber.c.id,
                or_(*(_subscription.c.topic_id == number for number in ids)),
            )
        )
        conditions.append((~wanted, literal("topic")))
    return case(*conditions, else_=null())


def condition(session: Session, text: str, *, now: datetime) -> ColumnElement[bool]:
    """The condition of being in a segment, for a WHERE over ``subscriber``.

    The names of attributes and topics were checked when the rule was saved. What it asks about
    past issues is checked each time, because it may be deleted since. Raises SegmentError.
    """
    return in_any_segment(session, [text], now)


def in_any_segment(
    session: Session, expressions: Sequence[str], now: datetime
) -> ColumnElement[bool]:
    """The condition of being in at least one of these segments; SegmentError as ``condition``."""
    issues = _past_issues(session, expressions)
    return or_(
        false(), *(segment_parser.condition(text, now=now, issues=issues) for text in expressions)
    )


def save(
    session: Session, name: str, text: str, *, now: datetime, description: str = ""
) -> Segment:
    """Save a new segment; SegmentError if the name is taken or the rule is wrong."""
    _check_name(name)
    _known(session, text, now)
    if session.scalar(select(_segment.c.id).where(_segment.c.name == name)) is not None:
        raise SegmentError(
            "a segment of this name exists", place=name, hint="Choose another name, or delete it."
        )
    segment = Segment(name=name, expression=text, description=description[:1000], created_at=now)
    session.add(segment)
    session.flush()
    return segment


def change(
    session: Session, name: str, new_name: str, text: str, *, now: datetime, description: str
) -> Segment:
    """Change a segment's name, rule and description; SegmentError as with ``save``."""
    segment = find(session, name)
    _check_name(new_name)
    _known(session, text, now)
    if new_name != name and session.scalar(
        select(_segment.c.id).where(_segment.c.name == new_name)
    ):
        raise SegmentError(
            "a segment of this name exists", place=new_name, hint="Choose another name."
        )
    if text != segment.expression:
        segment.people = segment.mailable = segment.counted_at = None
    segment.name, segment.expression = new_name, text
    segment.description = description[:1000]
    session.add(segment)
    session.flush()
    return segment


def save_count(
    session: Session,
    segment_id: int,
    text: str,
    counted: tuple[int, int] | tuple[None, None],
    *,
    now: datetime,
) -> None:
    """Store what ``count_of`` returned, unless the rule has changed since."""
    session.execute(
        update(_segment)
        .where(_segment.c.id == segment_id, _segment.c.expression == text)
        .values(people=counted[0], mailable=counted[1], counted_at=now)
    )


def delete(session: Session, name: str) -> Segment:
    """Delete a segment and return it; sends keep a copy of the rule.

    SegmentError while another row, such as a schedule, refers to it.
    """
    segment = find(session, name)
    try:
        with session.begin_nested():
            session.delete(segment)
    except IntegrityError:
        raise SegmentError(
            "the segment is still in use", place=name, hint="A schedule uses it."
        ) from None
    return segment


def find(session: Session, name: str) -> Segment:
    """The segment of this name; SegmentError lists the existing ones."""
    segment = None
    if "\0" not in name:  # PostgreSQL has no such character
        segment = session.scalar(select(Segment).where(_segment.c.name == name))
    if segment is None:
        names = session.scalars(select(_segment.c.name).order_by(_segment.c.name).limit(20)).all()
        raise SegmentError(
            "there is no segment of this name",
            place=name,
            hint=f"There are: {', '.join(names)}." if names else "Create one first.",
        )
    return segment


def names(session: Session, *, limit: int = 500) -> Sequence[str]:
    """Names of the segments, in order."""
    wanted = select(_segment.c.name).order_by(_segment.c.name).limit(limit)
    return session.scalars(wanted).all()


def using_topic(session: Session, slug: str) -> list[str]:
    """Names of the segments whose rule asks for this topic, in order."""
    wanted = select(_segment.c.name, _segment.c.expression).order_by(_segment.c.name)
    candidates = session.execute(wanted.where(_segment.c.expression.contains("topic"))).all()
    return [row.name for row in candidates if slug in _topics_of(row.expression)]


def _topics_of(expression: str) -> frozenset[str]:
    try:
        return segment_parser.names(expression).topics
    except SegmentError:  # saved by another release, or changed by hand
        return frozenset()


def rows(session: Session, *, limit: int | None = None) -> Sequence[Row[Any]]:
    """The segments by name, with their kept counts."""
    return session.execute(select(_segment).order_by(_segment.c.name).limit(limit)).all()


def by_id(session: Session, segment_id: int) -> Segment | None:
    """The segment with this id."""
    return session.get(Segment, segment_id)


@dataclass(frozen=True, slots=True)
class SegmentListEntry:
    """A segment with its counts, or with the error that prevents counting."""

    segment: Segment
    people: int | None
    mailable: int | None
    problem: SegmentError | None = None


def listing(session: Session, *, now: datetime) -> Iterator[SegmentListEntry]:
    """All segments by name, each counted as it is returned."""
    for segment in session.scalars(select(Segment).order_by(_segment.c.name)).all():
        try:
            people, mailable = count_of(session, segment, now=now)
        except SegmentError as error:  # saved by another release, or changed by hand
            yield SegmentListEntry(segment, None, None, error)
        else:
            yield SegmentListEntry(segment, people, mailable)


def count(session: Session, text: str, *, now: datetime) -> tuple[int, int]:
    """How many subscribers a rule selects, and how many of these may be emailed.

    SegmentError if the rule is wrong, or names an attribute or topic that does not exist.
    """
    return _count(session, _known(session, text, now), now)


def count_of(session: Session, segment: Segment, *, now: datetime) -> tuple[int, int]:
    """``count`` of a saved segment, whose names were checked when it was saved.

    They may have disappeared since with the last subscriber who had them; the rule is still valid.
    """
    return _count(session, condition(session, segment.expression, now=now), now)


def count_stalest(
    session: Session, *, now: datetime, stale: timedelta
) -> tuple[Segment | None, tuple[int, int] | tuple[None, None] | None]:
    """``count_of`` the segment with the oldest count; None if none is stale.

    A rule that cannot be counted any more gets (None, None), so that it is not tried again and
    again.
    """
    segment = session.scalar(
        select(Segment)
        .where(or_(_segment.c.counted_at.is_(None), _segment.c.counted_at < now - stale))
        .order_by(_segment.c.counted_at.is_not(None), _segment.c.counted_at, _segment.c.id)
        .limit(1)
    )
    if segment is None:
        return None, None
    session.expunge(segment)
    try:
        return segment, count_of(session, segment, now=now)
    except SegmentError:
        return segment, (None, None)


def sample(session: Session, text: str, *, now: datetime, limit: int = 20) -> list[Row[Any]]:
    """Some subscribers whom this rule selects: id, email, name and exclusion_reason."""
    statement = (
        select(
            _subscriber.c.id,
            _subscriber.c.email,
            _subscriber.c.name,
            exclusion_reason(now, ()).label("exclusion_reason"),
        )
        .select_from(PEOPLE)
        .where(_known(session, text, now))
        .order_by(_subscriber.c.id)
        .limit(limit)
    )
    return list(session.execute(statement))


def create_index(session: Session, name: str) -> str:
    """Create an index for conditions on a field or attribute; returns its name.

    Nobody can change subscribers until the transaction ends; a million take seconds.
    """
    connection = session.connection()
    connection.exec_driver_sql(index_ddl(name, connection.dialect))
    # Without statistics on the new expression, planners guess wrong.
    connection.exec_driver_sql("ANALYZE subscriber")
    return index_name(name)


def drop_index(session: Session, name: str) -> None:
    """Drop the index on a field or attribute, if there is one."""
    connection = session.connection()
    index = connection.dialect.identifier_preparer.quote(index_name(name))
    connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")


def _count(session: Session, condition: ColumnElement[bool], now: datetime) -> tuple[int, int]:
    row = session.execute(
        select(func.count(), func.count().filter(exclusion_reason(now, ()).is_(None)))
        .select_from(PEOPLE)
        .where(condition)
    ).one()
    return row[0], row[1]


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        raise SegmentError(
            "a segment cannot have this name",
            place=repr(name[:80]),
            hint=f"Use 1 to {_NAME_LENGTH} printable characters.",
        )


def _known(session: Session, text: str, now: datetime) -> ColumnElement[bool]:
    """The rule's condition; checks that its attributes and topics exist.

    An attribute exists if a subscriber has it. Each is searched separately: one that exists is
    found within a few rows; only an unknown one is searched among all, once.
    """
    names = segment_parser.names(text)
    used = names.attributes
    if used and session.scalar(select(_subscriber.c.id).limit(1)) is None:
        known = used  # no subscribers yet: segments may be saved before the first import
    else:
        known = frozenset(name for name in used if _has_attribute(session, name))
    if known != used:
        known |= _some_attributes(session)
    topics = frozenset(session.scalars(select(_topic.c.slug))) if names.topics else None
    issues = _past_issues(session, [text])
    return segment_parser.condition(text, now=now, known=known, topics=topics, issues=issues)


def _past_issues(session: Session, rules: Sequence[str]) -> PastIssues:
    """The issues that these rules name."""
    used = [segment_parser.names(rule) for rule in rules]
    slugs = frozenset[str]().union(*(one.issues for one in used))
    links = frozenset[tuple[str, str]]().union(*(one.links for one in used))
    return past_issues.read(session, slugs, links)


def _has_attribute(session: Session, name: str) -> bool:
    has = segment_parser.condition(f"has({name!r})", now=datetime.now(UTC))
    return session.scalar(select(_subscriber.c.id).where(has).limit(1)) is not None


def _some_attributes(session: Session) -> frozenset[str]:
    """Attribute names to suggest for a misspelled one: those of the newest subscribers."""
    latest = select(_subscriber.c.attributes).order_by(_subscriber.c.id.desc()).limit(1000)
    return frozenset(key for row in session.scalars(latest) for key in row)
