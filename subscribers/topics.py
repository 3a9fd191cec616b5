"""Topics: what an issue can be about, and what people opt in to."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select

from subscribers.errors import UserError
from subscribers.models import Subscription, Topic
from subscribers.schema import Session, table_of

_topic = table_of(Topic)
_subscription = table_of(Subscription)


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
