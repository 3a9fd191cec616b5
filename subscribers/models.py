"""Tables of the audience: who the people are, what they agreed to, who must not be mailed."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index

from newsletter.db.orm import NEVER_AGAIN, Field, Hash, Id, Json, Model, one_of


class SuppressionReason(StrEnum):
    """Why an address must not be mailed, weakest first: a stronger reason replaces a weaker."""

    #: The mailbox does not exist, or the address is malformed.
    BOUNCED = "bounced"
    #: The person left: one-click, the page, a mail, or the provider's own link.
    UNSUBSCRIBED = "unsubscribed"
    #: The person called a mail spam.
    COMPLAINED = "complained"
    #: An operator decided so.
    MANUAL = "manual"
    #: The person had their data erased; only the keyed hash is left.
    ERASED = "erased"


class Subscriber(Model, table=True):
    """A person, under one address. ``confirmed_at`` is empty until they have proved opting in."""

    __tablename__ = "subscriber"
    __table_args__ = (NEVER_AGAIN,)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: As the person wrote it, with the domain in lower case; shown and mailed.
    email: str = Field(max_length=320)
    #: Keyed hash of the normalized address: identity, and the join to suppressions.
    address_hash: bytes = Field(sa_type=Hash, unique=True)
    name: str = Field(default="", max_length=200)
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: BCP 47 tag, e.g. ``de-AT``.
    language: str | None = Field(default=None, max_length=35)
    #: IANA name, e.g. ``Europe/Berlin``.
    timezone: str | None = Field(default=None, max_length=64)
    #: Where the person came from: ``form:NAME``, ``import:NAME``, ``api``.
    source: str = Field(default="", max_length=100)
    created_at: datetime
    confirmed_at: datetime | None = None
    paused_until: datetime | None = None
    last_open_at: datetime | None = None
    last_click_at: datetime | None = None


class Topic(Model, table=True):
    """What a subscriber can opt in to and out of."""

    __tablename__ = "topic"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    slug: str = Field(max_length=64, unique=True)
    name: str = Field(max_length=200)
    description: str = Field(default="", max_length=1000)


class Subscription(Model, table=True):
    """One subscriber's opting in to one topic; its absence is opting out."""

    __tablename__ = "subscription"
    __table_args__ = (
        # Issues ask "who wants this topic"; the primary key answers the opposite question.
        Index(None, "topic_id", "subscriber_id"),
        {"sqlite_with_rowid": False},
    )

    subscriber_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE"
    )
    topic_id: int = Field(primary_key=True, sa_type=Id, foreign_key="topic.id", ondelete="CASCADE")
    since: datetime


class DroppedTopic(Model, table=True):
    """A topic that somebody had and gave up: a list does not choose it for them again."""

    __tablename__ = "dropped_topic"
    __table_args__ = ({"sqlite_with_rowid": False},)

    subscriber_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE"
    )
    topic_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="topic.id", ondelete="CASCADE", index=True
    )
    at: datetime


class Consent(Model, table=True):
    """Proof of one act of opting in or out (GDPR Art. 7(1)): rows are added, never changed."""

    __tablename__ = "consent"
    __table_args__ = (one_of("act", ("requested", "confirmed", "imported", "withdrawn")),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    subscriber_id: int = Field(
        sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE", index=True
    )
    at: datetime
    act: str = Field(max_length=10)
    #: The form or import that it came through, and the wording shown there.
    source: str = Field(default="", max_length=100)
    wording: str = Field(default="", max_length=2000)
    ip: str | None = Field(default=None, max_length=45)
    user_agent: str | None = Field(default=None, max_length=500)


class Segment(Model, table=True):
    """A saved rule over subscribers. An empty expression means everybody."""

    __tablename__ = "segment"
    __table_args__ = (NEVER_AGAIN,)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    name: str = Field(max_length=64, unique=True)
    expression: str = Field(default="", max_length=4000)
    description: str = Field(default="", max_length=1000)
    created_at: datetime
    #: Its people and those of them who may be mailed, as they were counted last.
    people: int | None = None
    mailable: int | None = None
    counted_at: datetime | None = None


class StatusCount(Model, table=True):
    """How many people there are in all and in each state, as they were counted last."""

    __tablename__ = "status_count"

    #: ``everybody``, or a state of subscribers.directory.status_counts.
    what: str = Field(primary_key=True, max_length=20)
    people: int
    counted_at: datetime


class AudienceDay(Model, table=True):
    """How many people there were on a day, as they were counted last on it."""

    __tablename__ = "audience_day"

    #: In UTC, like 2026-03-27.
    day: str = Field(primary_key=True, max_length=10)
    people: int
    #: Of these, who gets mail.
    active: int
    counted_at: datetime


class Suppression(Model, table=True):
    """An address that must not be mailed. It is kept by hash, so it outlives the person's row."""

    __tablename__ = "suppression"
    __table_args__ = (one_of("reason", SuppressionReason), {"sqlite_with_rowid": False})

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    reason: str = Field(max_length=12)
    at: datetime
    #: What shows it: an event's type and text, a page, an operator's note. Never an address.
    evidence: str = Field(default="", max_length=1000)
    #: The reason that an operator's hides, and since when: lifting theirs brings it back.
    underlying_reason: str | None = Field(default=None, max_length=12)
    underlying_at: datetime | None = None


class FormerAddress(Model, table=True):
    """An address that a person gave up for another. It outlives them by hash, as a suppression."""

    __tablename__ = "former_address"
    __table_args__ = ({"sqlite_with_rowid": False},)

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: Whose it was; nobody's once they are erased.
    subscriber_id: int | None = Field(
        default=None, sa_type=Id, foreign_key="subscriber.id", ondelete="SET NULL", index=True
    )
    at: datetime


class Confirmation(Model, table=True):
    """Something that was asked for and happens only when the link in its mail is followed.

    A signup lives here until then: nobody gets into the audience unproved.
    """

    __tablename__ = "confirmation"
    __table_args__ = (one_of("kind", ("signup", "address", "data", "erase")), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    kind: str = Field(max_length=10)
    #: The address that the mail went to.
    email: str = Field(max_length=320)
    address_hash: bytes = Field(sa_type=Hash, index=True)
    #: Who asked, where they are a subscriber already.
    subscriber_id: int | None = Field(
        default=None, sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE", index=True
    )
    #: What was asked: of a signup the name, topics, attributes, language, time zone, form,
    #: wording, network address and browser.
    asked: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    created_at: datetime
    expires_at: datetime = Field(index=True)
    done_at: datetime | None = None


class RateLimit(Model, table=True):
    """How often something was tried within a window of time, for all processes."""

    __tablename__ = "rate_limit"
    __table_args__ = ({"sqlite_with_rowid": False},)

    #: Keyed hash of what is limited: a network address, an email address.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    #: When the window ends; rows past it are swept away.
    window_end: datetime = Field(primary_key=True, index=True)
    count: int = 0
