"""Tables of events, of the counters made of them, and of reconciling with the provider's lists.

Counters have no foreign keys, because a restored database may have lost their send. Events of no
send of ours, such as those of single emails, are counted under send 0.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text

from newsletter.db.orm import Field, Hash, Id, Json, Model


class EventRow(Model, table=True):
    """One event, as the provider or our own unsubscribe page reported it.

    Everything that counters need is in columns, so they can be counted again after a subscriber
    was erased, and ``raw`` with them.
    """

    __tablename__ = "event"
    __table_args__ = (
        Index(None, "send_id", "kind"),
        # One subscriber's events: for the history, the erasure and the detection of scanners.
        Index(None, "subscriber_id", "send_id"),
    )

    #: When it happened, by the reporter's clock. First in the primary key, because PostgreSQL
    #: partitions the table by month. It is a part of what ``key`` is a hash of.
    at: datetime = Field(primary_key=True)
    #: Hash of what identifies the event; it keeps out repeats.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    kind: str = Field(max_length=40)
    received_at: datetime
    issue_id: int | None = Field(default=None, sa_type=Id)
    send_id: int | None = Field(default=None, sa_type=Id)
    batch: int | None = None
    subscriber_id: int | None = Field(default=None, sa_type=Id)
    #: The domain of the address that the event names.
    domain: str = Field(default="", max_length=255)
    #: The address that a click led to, without the parts that identify the subscriber.
    link: str = Field(default="", max_length=500)
    #: A proxy or scanner opened or clicked. A later event may show that a scanner is at work.
    by_machine: bool = False
    #: The event as received, JSON.
    raw: str


class EventHorizon(Model, table=True):
    """How far back the stored events reach. One row, once the first events are deleted."""

    __tablename__ = "event_horizon"

    name: str = Field(primary_key=True, max_length=10)
    before: datetime


class SendCounter(Model, table=True):
    """How often something happened to the emails of a send, updated as events arrive."""

    __tablename__ = "send_counter"

    send_id: int = Field(primary_key=True, sa_type=Id)
    #: newsletter.tracking.stats.counters says which figures there are.
    what: str = Field(primary_key=True, max_length=40)
    count: int = 0


class VariantCounter(Model, table=True):
    """The same counters for a part of a send: one day, one domain or one link."""

    __tablename__ = "variant_counter"
    __table_args__ = ({"sqlite_with_rowid": False},)

    send_id: int = Field(primary_key=True, sa_type=Id)
    #: ``day`` (UTC), ``domain`` or ``link``.
    part: str = Field(primary_key=True, max_length=10)
    value: str = Field(primary_key=True, max_length=500)
    what: str = Field(primary_key=True, max_length=40)
    count: int = 0


class RecipientCounter(Model, table=True):
    """How often a recipient did something, so that ten clicks still count as one recipient.

    Only recipients who did something have rows, so there are fewer of them than deliveries.
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
    """A bounce that alone suppresses no address.

    It has a table of its own, so that it can be kept for longer than the event.
    """

    __tablename__ = "soft_bounce"
    __table_args__ = ({"sqlite_with_rowid": False},)

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: The key of the event, so that a repeat is no second bounce.
    key: bytes = Field(sa_type=Hash, primary_key=True)
    at: datetime


class Reconciliation(Model, table=True):
    """One run of reconciling. ``finished_at`` stays empty when it was stopped or failed."""

    __tablename__ = "reconciliation"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    started_at: datetime
    finished_at: datetime | None = None
    #: The run compared the entries from this time on; empty means all of them.
    since: datetime | None = None
    #: newsletter.tracking.suppression_sync.ReconcileReport as JSON.
    report: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Why the run did not finish.
    error: str = Field(default="", max_length=1000)


class ListRemoval(Model, table=True):
    """An address that has to leave the provider's suppression lists, or has left them.

    The row stays after that, so that late events about older entries suppress nobody.
    """

    __tablename__ = "list_removal"
    __table_args__ = (
        Index(
            "ix_list_removal_due",
            "next_at",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
    )

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: Needed to ask the provider; empty once the address is off the lists.
    email: str = Field(max_length=320)
    #: Bounces until then do not count any more: an operator lifted them, or the subscriber opted
    #: in again. Empty after a bounce that says nothing about the mailbox: it counts as a soft
    #: bounce, but the address must leave the list.
    since: datetime | None = None
    #: Whether the subscriber confirmed a new opt-in. That ends their unsubscribe and their
    #: complaint, too.
    own_wish: bool = False
    attempt: int = 0
    next_at: datetime
    done_at: datetime | None = Field(default=None, index=True)
