"""Create topics."""

from datetime import datetime

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session
from subscribers.consent import topics
from subscribers.models import Topic


def create(
    session: Session, slug: str, *, by: Actor, now: datetime, name: str = "", description: str = ""
) -> Topic:
    """Save a new topic; its name is the capitalized slug unless given.

    Raises TopicError if the slug is taken or has other characters than a-z, 0-9 and hyphens.
    """
    topic = topics.save(session, slug, name=name or slug.capitalize(), description=description)
    audit.record(session, by, "topic created", now=now, subject=slug)
    return topic
