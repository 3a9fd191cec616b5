"""Create, change and delete topics."""

from dataclasses import dataclass
from datetime import datetime

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session
from newsletter.issues import store as issue_store
from newsletter.sending.queries import segment_usage
from subscribers.consent import topics
from subscribers.consent.topics import TopicError
from subscribers.models import Topic
from subscribers.segments import store as segment_store


@dataclass(frozen=True, slots=True)
class TopicUsage:
    """What depends on a topic."""

    #: The number of subscribers who chose it.
    subscribers: int
    #: Names of the segments whose rule asks for it.
    segments: list[str]
    #: Unfinished sends of issues on it.
    sends: list[int]
    #: Slugs of the issues on it that were never sent.
    issues: list[str]

    @property
    def needed(self) -> bool:
        """Whether something stops working without it, so that it cannot be deleted."""
        return bool(self.segments or self.sends)


def create(
    session: Session, slug: str, *, by: Actor, now: datetime, name: str = "", description: str = ""
) -> Topic:
    """Save a new topic; its name is the capitalized slug unless given.

    Raises TopicError if the slug is taken or has other characters than a-z, 0-9 and hyphens.
    """
    topic = topics.save(session, slug, name=name or slug.capitalize(), description=description)
    audit.record(session, by, "topic created", now=now, subject=slug)
    return topic


def change(
    session: Session,
    slug: str,
    *,
    by: Actor,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    place: int | None = None,
    hidden: bool | None = None,
) -> list[str]:
    """Rename, describe, order or hide a topic; returns what changed. None leaves a value as it is.

    ``place`` is its number in the order of the topics, from 1. The slug stays, because issues and
    rules name it. Raises TopicError if there is no such topic, or its name would be empty.
    """
    topic = topics.find(session, slug, lock=True)
    changed = []
    if name is not None and not name.strip():
        raise TopicError("a topic needs a name", place=slug, hint="Subscribers read it.")
    for field, value in (
        ("name", None if name is None else name.strip()[:200]),
        ("description", None if description is None else description[:1000]),
        ("hidden", hidden),
    ):
        if value is not None and value != getattr(topic, field):
            setattr(topic, field, value)
            changed.append(field)
    session.flush()
    if place is not None and topics.move(session, topic, place):
        changed.append("order")
    if changed:
        audit.record(
            session, by, "topic changed", now=now, subject=slug, changed=", ".join(changed)
        )
    return changed


def place_of(session: Session, topic: Topic) -> int:
    """The number of a topic in the order of the topics, from 1."""
    return topics.offered(session).index(topic) + 1


def usage(session: Session, topic: Topic) -> TopicUsage:
    """What depends on a topic."""
    return TopicUsage(
        subscribers=topics.chosen_by(session, topic),
        segments=segment_store.using_topic(session, topic.slug),
        sends=segment_usage.unfinished_sends_on(session, topic.slug),
        issues=issue_store.unsent_on(session, topic.slug),
    )


def delete(session: Session, slug: str, *, by: Actor, now: datetime) -> TopicUsage:
    """Delete a topic with its opt-ins; returns what depended on it.

    Raises TopicError while a segment or an unfinished send needs it. Issues on it that were never
    sent stay, and cannot be sent until their topics are changed.
    """
    topic = topics.find(session, slug, lock=True)
    used = usage(session, topic)
    if used.segments:
        raise _in_use(slug, "segment", used.segments, "Change the rule, or delete the segment.")
    if used.sends:
        hint = "Wait until it ends, or cancel it. Then delete the topic."
        raise _in_use(slug, "send", list(map(str, used.sends)), hint)
    topics.delete_topic(session, topic)
    audit.record(session, by, "topic deleted", now=now, subject=slug, subscribers=used.subscribers)
    return used


def _in_use(slug: str, what: str, names: list[str], hint: str) -> TopicError:
    many = len(names) > 1
    listed = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
    message = f"{what}{'s' if many else ''} {listed} {'need' if many else 'needs'} it"
    return TopicError(message, place=f"topic {slug}", hint=hint)
