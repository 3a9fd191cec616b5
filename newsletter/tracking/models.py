"""Tables of what happened: each event once, and the figures kept as they arrive.

The figures have no foreign keys: a backup that is restored may have forgotten their send.
What belongs to no send of ours, such as single mails, is counted under send 0.
"""

from datetime import datetime

from sqlalchemy import Index

from newsletter.db.orm import Field, Hash, Id, Model


class EventRow(Model, table=True):
    """One happening, as the provider (or our own one-click page) reported it.

    What the figures are made of stands in columns: they can be counted again after a person
    was erased, and ``raw`` with them.
    """

    __tablename__ = "event"
    __table_args__ = (
        Index(None, "send_id", "kind"),
        # One person's: their history, their erasure, and the clicks that tell scanners.
        Index(None, "subscriber_id", "send_id"),
    )

    #: When it happened, by the reporter's clock. First in the key, so that tables of months
    #: can be made of this one; it is a part of what ``key`` is a hash of.
    at: datetime = Field(primary_key=True)
    #: Hash of what identifies the happening; a repeat of the same one is refused by it.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    kind: str = Field(max_length=40)
    received_at: datetime
    issue_id: int | None = Field(default=None, sa_type=Id)
    send_id: int | None = Field(default=None, sa_type=Id)
    batch: int | None = None
    subscriber_id: int | None = Field(default=None, sa_type=Id)
    #: The mail domain of the address that the event names.
    domain: str = Field(default="", max_length=255)
    #: Where a click led, without what names the reader.
    link: str = Field(default="", max_length=500)
    #: A proxy or a scanner did it, not a person. A later event may reveal a scanner.
    by_machine: bool = False
    #: The event as received, JSON.
    raw: str


class EventHorizon(Model, table=True):
    """How far back events reach. One row, once the first of them are gone."""

    __tablename__ = "event_horizon"

    name: str = Field(primary_key=True, max_length=10)
    before: datetime


class SendCounter(Model, table=True):
    """How often something happened to the mails of a send, kept as events arrive."""

    __tablename__ = "send_counter"

    send_id: int = Field(primary_key=True, sa_type=Id)
    #: newsletter.tracking.stats.counters says which figures there are.
    what: str = Field(primary_key=True, max_length=40)
    count: int = 0


class VariantCounter(Model, table=True):
    """The same figures for a part of a send: what came on one day, to one domain, by one link."""

    __tablename__ = "variant_counter"
    __table_args__ = ({"sqlite_with_rowid": False},)

    send_id: int = Field(primary_key=True, sa_type=Id)
    #: ``day`` (UTC), ``domain`` or ``link``.
    part: str = Field(primary_key=True, max_length=10)
    value: str = Field(primary_key=True, max_length=500)
    what: str = Field(primary_key=True, max_length=40)
    count: int = 0


class RecipientCounter(Model, table=True):
    """How often one person did something with one mail: whoever did it ten times is one reader.

    Only those who did something have rows, so there are fewer than deliveries.
    """

    __tablename__ = "recipient_counter"
    __table_args__ = ({"sqlite_with_rowid": False},)

    send_id: int = Field(primary_key=True, sa_type=Id)
    subscriber_id: int = Field(primary_key=True, sa_type=Id)
    what: str = Field(primary_key=True, max_length=40)
    domain: str = Field(primary_key=True, max_length=255)
    #: Empty for all links together.
    link: str = Field(primary_key=True, max_length=500)
    count: int = 0


class SoftBounce(Model, table=True):
    """A bounce that alone suppresses nobody. Kept apart, so that raw events may go earlier."""

    __tablename__ = "soft_bounce"
    __table_args__ = ({"sqlite_with_rowid": False},)

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: The event's: a repeat is no second bounce.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    at: datetime
