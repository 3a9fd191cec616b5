"""Tables of the audience: subscribers, what they agreed to, and who must not be emailed."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index

from newsletter.db.orm import NEVER_AGAIN, Field, Hash, Id, Json, Model, one_of


class SuppressionReason(StrEnum):
    """Why an address must not be emailed, weakest first: a stronger reason replaces a weaker."""

    #: The mailbox does not exist, or the address is malformed.
    BOUNCED = "bounced"
    #: The subscriber left: one-click, the web page, an email, or the provider's own link.
    UNSUBSCRIBED = "unsubscribed"
    #: The subscriber marked an email as spam.
    COMPLAINED = "complained"
    #: An operator decided so.
    MANUAL = "manual"
    #: The subscriber had their data erased; only the keyed hash of the address is left.
    ERASED = "erased"


class Subscriber(Model, table=True):
    """A person of the audience, with one address. ``confirmed_at`` is empty without opt-in."""

    __tablename__ = "subscriber"
    __table_args__ = (NEVER_AGAIN,)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: As the subscriber wrote it, with the domain in lower case; shown and used for sending.
    email: str = Field(max_length=320)
    #: Keyed hash of the normalized address: identifies the subscriber and joins to suppressions.
    address_hash: bytes = Field(sa_type=Hash, unique=True)
    name: str = Field(default="", max_length=200)
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: BCP 47 tag, e.g. ``de-AT``.
    language: str | None = Field(default=None, max_length=35)
    #: IANA name, e.g. ``Europe/Berlin``.
    timezone: str | None = Field(default=None, max_length=64)
    #: How the subscriber joined: ``form:NAME``, ``import:NAME``, ``console``.
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
    #: Its place among the topics; topics of the same place are ordered by name.
    position: int = 0
    #: Whether public pages offer it only to subscribers who chose it already.
    hidden: bool = False


class Subscription(Model, table=True):
    """One subscriber's opt-in to one topic. No row means no opt-in."""

    __tablename__ = "subscription"
    __table_args__ = (
        # Planning selects the subscribers of a topic; the primary key serves the opposite lookup.
        Index(None, "topic_id", "subscriber_id"),
        {"sqlite_with_rowid": False},
    )

    subscriber_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE"
    )
    topic_id: int = Field(primary_key=True, sa_type=Id, foreign_key="topic.id", ondelete="CASCADE")
    since: datetime


class DroppedTopic(Model, table=True):
    """A topic that a subscriber had and gave up: an import does not add it again."""

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
    """Proof of one opt-in or opt-out (GDPR Art. 7(1)). Rows are added, never changed."""

    __tablename__ = "consent"
    __table_args__ = (one_of("act", ("requested", "confirmed", "imported", "withdrawn")),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    subscriber_id: int = Field(
        sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE", index=True
    )
    at: datetime
    act: str = Field(max_length=10)
    #: The form or import, and the wording that the subscriber agreed to.
    source: str = Field(default="", max_length=100)
    wording: str = Field(default="", max_length=2000)
    ip: str | None = Field(default=None, max_length=45)
    user_agent: str | None = Field(default=None, max_length=500)


class Segment(Model, table=True):
    """A saved rule over subscribers. An empty expression selects everybody."""

    __tablename__ = "segment"
    __table_args__ = (NEVER_AGAIN,)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    name: str = Field(max_length=64, unique=True)
    expression: str = Field(default="", max_length=4000)
    description: str = Field(default="", max_length=1000)
    created_at: datetime
    #: The latest count of its subscribers, and of those who may be emailed.
    people: int | None = None
    mailable: int | None = None
    counted_at: datetime | None = None


class StatusCount(Model, table=True):
    """The latest count of subscribers, in all or with one status."""

    __tablename__ = "status_count"

    #: ``everybody``, or a status of subscribers.directory.status_counts.
    what: str = Field(primary_key=True, max_length=20)
    people: int
    counted_at: datetime


class AudienceDay(Model, table=True):
    """The last count of the audience on one day."""

    __tablename__ = "audience_day"

    #: In UTC, like 2026-03-27.
    day: str = Field(primary_key=True, max_length=10)
    people: int
    #: Of these, the subscribers who may be emailed.
    active: int
    counted_at: datetime


class Suppression(Model, table=True):
    """An address that must not be emailed. Kept by hash, so it outlives the subscriber's row."""

    __tablename__ = "suppression"
    __table_args__ = (one_of("reason", SuppressionReason), {"sqlite_with_rowid": False})

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    reason: str = Field(max_length=12)
    at: datetime
    #: What proves it: an event's type and text, a page, an operator's note. Never an address.
    evidence: str = Field(default="", max_length=1000)
    #: The reason behind a manual suppression, and its time: it applies again when that is lifted.
    underlying_reason: str | None = Field(default=None, max_length=12)
    underlying_at: datetime | None = None


class FormerAddress(Model, table=True):
    """A previous address of a subscriber. Kept by hash, so it outlives the subscriber's row."""

    __tablename__ = "former_address"
    __table_args__ = ({"sqlite_with_rowid": False},)

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: The subscriber; empty once they are erased.
    subscriber_id: int | None = Field(
        default=None, sa_type=Id, foreign_key="subscriber.id", ondelete="SET NULL", index=True
    )
    at: datetime


class Confirmation(Model, table=True):
    """A request that takes effect only when the link in its email is followed.

    A signup is kept here until then: nobody becomes a subscriber without proof.
    """

    __tablename__ = "confirmation"
    __table_args__ = (one_of("kind", ("signup", "address", "data", "erase")), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    kind: str = Field(max_length=10)
    #: The address that the email went to.
    email: str = Field(max_length=320)
    address_hash: bytes = Field(sa_type=Hash, index=True)
    #: Who asked, if they are a subscriber already.
    subscriber_id: int | None = Field(
        default=None, sa_type=Id, foreign_key="subscriber.id", ondelete="CASCADE", index=True
    )
    #: The request. For a signup: name, topics, attributes, language, time zone, form,
    #: wording, network address and browser.
    asked: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    created_at: datetime
    expires_at: datetime = Field(index=True)
    done_at: datetime | None = None


class RateLimit(Model, table=True):
    """How many attempts were made within a time window, across all processes."""

    __tablename__ = "rate_limit"
    __table_args__ = ({"sqlite_with_rowid": False},)

    #: Keyed hash of what is limited: a network address or an email address.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    #: When the window ends; a periodic job deletes rows past it.
    window_end: datetime = Field(primary_key=True, index=True)
    count: int = 0
