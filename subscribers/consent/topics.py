"""Topics: what an issue can be about, and what subscribers opt in to.

A topic is found by its slug or its name. Letter case, accents, spaces and punctuation do not
count.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table, delete, func, literal, select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers.list_files.status_words import fold
from subscribers.models import DroppedTopic, Subscription, Topic

_topic = table_of(Topic)
_subscription, _dropped = table_of(Subscription), table_of(DroppedTopic)
#: The order of topics on every page.
ORDER = (_topic.c.position, _topic.c.name, _topic.c.slug)


class TopicError(UserError):
    """A topic is unknown, or its slug is taken or malformed."""


class Matcher:
    """Finds topics by slug or name, and collects the topics that an import is to create."""

    def __init__(self, topics: Iterable[tuple[str, str]]) -> None:
        known = list(topics)
        self.slugs = frozenset(slug for slug, _ in known)
        #: Topics to create: slug → name.
        self.new: dict[str, str] = {}
        self._exact: dict[str, str] = {}
        folded: dict[str, set[str]] = {}
        for slug, name in known:
            self._exact.setdefault(name, slug)
            for word in filter(None, map(fold, (slug, name))):
                folded.setdefault(word, set()).add(slug)
        self._exact |= {slug: slug for slug in self.slugs}
        # Where two topics differ only in punctuation, accents or case, only the exact name counts.
        self._folded = {word: min(slugs) for word, slugs in folded.items() if len(slugs) == 1}

    def find(self, word: str) -> str | None:
        """The slug of the topic with this slug or name; None if there is none."""
        exact = self._exact.get(word)
        return exact if exact is not None else self._folded.get(fold(word))

    def make(self, word: str) -> str | None:
        """The slug of a new topic of this name; None if the name yields no slug."""
        slug = slug_of(word)
        if not slug:
            return None
        self.new.setdefault(slug, word.strip()[:200])
        self._exact[word] = self._folded[fold(word)] = slug
        return slug

    def keep(self, slug: str) -> None:
        """Match this slug exactly, and create its topic if there is none."""
        if slug not in self.slugs:
            self.new.setdefault(slug, slug)
        self._exact[slug] = slug


def slug_of(name: str) -> str:
    """A slug of a-z, 0-9 and hyphens; empty if the name has none of these."""
    spelt = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", spelt)[:64].strip("-")


def matcher(session: Session) -> Matcher:
    """A matcher for the topics in the database."""
    rows = session.execute(select(_topic.c.slug, _topic.c.name).order_by(_topic.c.slug))
    return Matcher((row.slug, row.name) for row in rows)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A topic and how many subscribers chose it."""

    topic: Topic
    people: int


def save(session: Session, slug: str, *, name: str, description: str = "") -> Topic:
    """Save a new topic. TopicError if the slug is taken or malformed."""
    if not slug or slug.strip("abcdefghijklmnopqrstuvwxyz0123456789-") or len(slug) > 64:
        raise TopicError(
            "a topic's slug has only a-z, 0-9 and hyphens", place=slug, hint="Like: engineering"
        )
    if session.scalar(select(_topic.c.id).where(_topic.c.slug == slug)) is not None:
        raise TopicError("this topic exists already", place=slug, hint="Choose another slug.")
    topic = Topic(
        slug=slug,
        name=name[:200],
        description=description[:1000],
        position=last_position(session),
    )
    session.add(topic)
    session.flush()
    return topic


def last_position(session: Session) -> int:
    """The position of a new topic: the last one, or 0 while all topics are ordered by name."""
    highest = session.scalar(select(func.max(_topic.c.position))) or 0
    return highest + 1 if highest else 0


def find(session: Session, slug: str, *, lock: bool = False) -> Topic:
    """The topic of this slug; TopicError lists the existing ones."""
    query = select(Topic).where(_topic.c.slug == slug)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    # PostgreSQL refuses NUL characters.
    topic = None if "\0" in slug else session.scalar(query)
    if topic is None:
        raise _unknown(matcher(session), slug)
    return topic


def move(session: Session, topic: Topic, place: int) -> bool:
    """Give a topic this place among all topics, from 1; returns whether it had another.

    A place past the end is the last one. Raises TopicError for a place below 1.
    """
    if place < 1:
        raise TopicError("this is no place among the topics", place=topic.slug, hint="1 is first.")
    ordered = list(session.scalars(select(Topic).order_by(*ORDER).with_for_update()))
    target = min(place, len(ordered)) - 1
    if ordered.index(topic) == target:
        return False
    ordered.remove(topic)
    ordered.insert(target, topic)
    for number, one in enumerate(ordered, start=1):
        one.position = number
    session.flush()
    return True


def delete_topic(session: Session, topic: Topic) -> None:
    """Delete a topic and its opt-ins. Consent records keep its name."""
    session.expunge(topic)
    session.execute(delete(_topic).where(_topic.c.id == topic.id))


def chosen_by(session: Session, topic: Topic) -> int:
    """The number of subscribers who chose a topic."""
    return (
        session.scalar(
            select(func.count())
            .select_from(_subscription)
            .where(_subscription.c.topic_id == topic.id)
        )
        or 0
    )


def listing(session: Session) -> list[Chosen]:
    """All topics in their order, each with the number of subscribers who chose it."""
    chosen = (
        select(_subscription.c.topic_id, func.count().label("people"))
        .group_by(_subscription.c.topic_id)
        .subquery()
    )
    rows = session.execute(
        select(Topic, func.coalesce(chosen.c.people, 0))
        .outerjoin(chosen, chosen.c.topic_id == _topic.c.id)
        .order_by(*ORDER)
    )
    return [Chosen(row[0], row[1]) for row in rows]


def offered(session: Session) -> list[Topic]:
    """All topics in their order."""
    return list(session.scalars(select(Topic).order_by(*ORDER)))


def public(session: Session) -> list[Topic]:
    """The topics that public pages offer to everyone, in their order."""
    return list(session.scalars(select(Topic).where(~_topic.c.hidden).order_by(*ORDER)))


def names_of(session: Session, subscriber_id: int) -> list[str]:
    """The names of the topics that a subscriber chose."""
    chosen = select(_topic.c.name).join(_subscription, _subscription.c.topic_id == _topic.c.id)
    theirs = chosen.where(_subscription.c.subscriber_id == subscriber_id)
    return list(session.scalars(theirs.order_by(*ORDER)))


def require(session: Session, slugs: Iterable[str]) -> None:
    """Raise TopicError unless all these slugs exist; the error lists those that do."""
    known = matcher(session)
    for slug in slugs:
        if slug not in known.slugs:
            raise _unknown(known, slug)


def named(session: Session, words: Iterable[str]) -> tuple[str, ...]:
    """The slugs of the topics with these names; TopicError for a name without a topic."""
    known = matcher(session)
    found = []
    for word in words:
        slug = known.find(word)
        if slug is None:
            raise _unknown(known, word)
        found.append(slug)
    return tuple(dict.fromkeys(found))


def _unknown(known: Matcher, word: str) -> TopicError:
    match = known.find(word)
    if match:
        hint = f"Do you mean {match}?"
    elif known.slugs:
        hint = f"There are: {', '.join(sorted(known.slugs)[:20])}."
    else:
        hint = f"Create the topic first, for example as {slug_of(word) or 'news'}."
    return TopicError("there is no topic of this name", place=word, hint=hint)


def choose(session: Session, subscriber_id: int, slugs: Collection[str], *, now: datetime) -> None:
    """Subscribe somebody to these topics. Slugs of topics that no longer exist are ignored."""
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
    """Unsubscribe somebody from these topics. Imports do not add them again."""
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
