"""Topics: what an issue can be about, and what people opt in to."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table, delete, func, literal, select

from subscribers.errors import UserError
from subscribers.models import DroppedTopic, Subscription, Topic
from subscribers.schema import Session, insert_into, table_of

_topic = table_of(Topic)
_subscription, _dropped = table_of(Subscription), table_of(DroppedTopic)


class TopicError(UserError):
    """A topic that is unknown, or whose name is taken."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A topic and how many people chose it."""

    topic: Topic
    people: int


def save(session: Session, slug: str, *, name: str, description: str = "") -> Topic:
    """Store a new topic; TopicError when the slug is taken or not of ``a-z``, ``0-9``, ``-``."""
    if not slug or slug.strip("abcdefghijklmnopqrstuvwxyz0123456789-") or len(slug) > 64:
        raise TopicError(
            "a topic's slug is made of a-z, 0-9 and hyphens", place=slug, hint="Like: engineering"
        )
    if session.scalar(select(_topic.c.id).where(_topic.c.slug == slug)) is not None:
        raise TopicError("this topic exists", place=slug, hint="See newsletter topic list.")
    topic = Topic(slug=slug, name=name[:200], description=description[:1000])
    session.add(topic)
    session.flush()
    return topic


def listing(session: Session) -> list[Chosen]:
    """All topics by slug, each with the number of people who chose it."""
    chosen = (
        select(_subscription.c.topic_id, func.count().label("people"))
        .group_by(_subscription.c.topic_id)
        .subquery()
    )
    rows = session.execute(
        select(Topic, func.coalesce(chosen.c.people, 0))
        .outerjoin(chosen, chosen.c.topic_id == _topic.c.id)
        .order_by(_topic.c.slug)
    )
    return [Chosen(row[0], row[1]) for row in rows]


def offered(session: Session) -> list[Topic]:
    """All topics by name."""
    return list(session.scalars(select(Topic).order_by(_topic.c.name, _topic.c.slug)))


def require(session: Session, slugs: Iterable[str]) -> None:
    """Raise TopicError unless all of these exist; it names those that do."""
    known = set(session.scalars(select(_topic.c.slug)))
    for slug in slugs:
        if slug not in known:
            raise TopicError(
                "there is no topic of this name",
                place=slug,
                hint=f"There are: {', '.join(sorted(known))}."
                if known
                else f"Make it: newsletter topic create {slug}",
            )


def choose(session: Session, subscriber_id: int, slugs: Collection[str], *, now: datetime) -> None:
    """Add topics for somebody who wants them. One that is no longer offered is passed over."""
    chosen = select(
        literal(subscriber_id), _topic.c.id, literal(now, _subscription.c.since.type)
    ).where(_topic.c.slug.in_(slugs))
    session.execute(
        insert_into(session, _subscription)
        .from_select(["subscriber_id", "topic_id", "since"], chosen)
        .on_conflict_do_nothing()
    )
    session.execute(delete(_dropped).where(*_theirs(_dropped, subscriber_id, slugs)))


def drop(session: Session, subscriber_id: int, slugs: Collection[str], *, now: datetime) -> None:
    """Take topics from somebody who gives them up; only they themselves choose them again."""
    had = select(
        _subscription.c.subscriber_id,
        _subscription.c.topic_id,
        literal(now, _dropped.c.at.type),
    ).where(*_theirs(_subscription, subscriber_id, slugs))
    session.execute(
        insert_into(session, _dropped)
        .from_select(["subscriber_id", "topic_id", "at"], had)
        .on_conflict_do_nothing()
    )
    session.execute(delete(_subscription).where(*_theirs(_subscription, subscriber_id, slugs)))


def _theirs(
    table: Table, subscriber_id: int, slugs: Collection[str]
) -> tuple[ColumnElement[bool], ...]:
    these = select(_topic.c.id).where(_topic.c.slug.in_(slugs))
    return table.c.subscriber_id == subscriber_id, table.c.topic_id.in_(these)
