"""Tables of the ledger: sends, variants, batches, deliveries, and what workers need.

The key of a delivery is (issue, subscriber), so that a subscriber gets an issue only once, even
by several sends. The key of a batch is (send, number), the number that operators see.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, LargeBinary, UniqueConstraint, text

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, DeliveryState, LogState, SendState

#: Only deliveries in states.PROBLEMS have a reason.
_HAS_REASON = "reason IS NOT NULL"


class Send(Model, table=True):
    """One issue to one or more segments, with its time and pace."""

    __tablename__ = "send"
    __table_args__ = (one_of("state", SendState), one_of("paused_by", PauseCause))

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    issue_id: int = Field(sa_type=Id, foreign_key="issue.id", index=True)
    revision_id: int = Field(sa_type=Id, foreign_key="revision.id")
    #: Ids, names and expressions of the segments when the send was created.
    segments: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    #: Segments whose subscribers are excluded, likewise.
    excluded: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    #: Slugs of the issue's topics; empty means that every subscriber may get it.
    topics: list[str] = Field(default_factory=list, sa_type=Json)
    state: str = Field(default=SendState.SCHEDULED, max_length=10)
    #: What paused it; None while it is not paused.
    paused_by: str | None = Field(default=None, max_length=20)
    #: Why it was paused or cancelled, as text for operators; code does not compare it.
    reason: str = Field(default="", max_length=1000)
    scheduled_for: datetime
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    paused_at: datetime | None = None
    #: newsletter.sending.pacing.timetable.Timetable as JSON; empty means as fast as possible.
    timetable: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: newsletter.sending.ab_testing.ABTest as JSON; empty means that there is one variant.
    test: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Label of the variant that the rest of the audience gets after the A/B test.
    winner: str | None = Field(default=None, max_length=20)
    #: Counts of newsletter.tracking.circuit_breaker at the last resume; only later events count.
    breaker_baseline: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: Whether the provider is asked to track clicks and opens.
    track_clicks: bool = True
    track_opens: bool = True
    #: Deliveries written by the plan.
    planned: int = 0
    #: Of these, recipients whom this send missed and another send of the issue took over.
    transferred: int = 0
    #: Recipients whose email the provider accepted, counted when the send was sent.
    accepted_count: int | None = None
    #: Subscribers of the segments that the plan excluded, by reason.
    excluded_counts: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: When its deliveries were counted before they were deleted, and the counts by state.
    summarized_at: datetime | None = None
    final_counts: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: The name of the schedule that created it and when that was due, as in departure logs;
    #: empty when an operator created it.
    occasion: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    #: When an operator last paused, cancelled or resumed it (interventions.py).
    intervened_at: datetime | None = None


class Variant(Model, table=True):
    """The content of a send: rendered once, with a merge tag for each personal value."""

    __tablename__ = "variant"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    send_id: int = Field(sa_type=Id, foreign_key="send.id", index=True)
    #: The saved issue whose text this variant is, if that is not the send's own issue.
    issue_id: int | None = Field(default=None, sa_type=Id, foreign_key="issue.id")
    label: str = Field(default="A", max_length=20)
    subject: str = Field(max_length=1000)
    sender_email: str = Field(max_length=320)
    sender_name: str = Field(max_length=200)
    reply_to: str | None = Field(default=None, max_length=320)
    html: str
    text: str
    #: newsletter.rendering.placeholders.Placeholders as JSON.
    placeholders: dict[str, Any] = Field(default_factory=dict, sa_type=Json)


class Part(StrEnum):
    """The part of a batch in its send's A/B test."""

    #: There is no A/B test.
    WHOLE = "whole"
    #: Gets one of the variants at once.
    SAMPLE = "sample"
    #: Waits for the winner; no worker claims it.
    REST = "rest"
    #: Gets the winner.
    WINNER = "winner"


class Batch(Model, table=True):
    """Up to 1,000 deliveries: one request to the provider."""

    __tablename__ = "batch"
    __table_args__ = (
        one_of("state", BatchState),
        one_of("part", Part),
        # A claim reads the earliest due batch; settled batches are not in the index.
        Index(
            "ix_batch_due",
            "not_before",
            "send_id",
            "number",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(None, "send_id", "state"),
        {"sqlite_with_rowid": False},
    )

    send_id: int = Field(primary_key=True, sa_type=Id, foreign_key="send.id")
    number: int = Field(primary_key=True)
    variant_id: int = Field(sa_type=Id, foreign_key="variant.id")
    part: str = Field(default=Part.WHOLE, max_length=10)
    #: Time zone (IANA) of its recipients; empty when the send does not follow their clocks.
    zone: str = Field(default="", max_length=64)
    state: str = Field(default=BatchState.PENDING, max_length=10)
    #: Deliveries in it.
    size: int
    not_before: datetime
    #: Counts claims; a settlement must name the attempt that it settles (fencing).
    attempt: int = 0
    worker: str | None = Field(default=None, max_length=100)
    #: When a claim or a request under way counts as abandoned.
    lease_until: datetime | None = None
    departed_at: datetime | None = None
    settled_at: datetime | None = None
    #: The provider's id of the accepted request.
    message_id: str | None = Field(default=None, max_length=100)
    #: Why it was rejected, requeued or is uncertain, as text; code does not compare it.
    detail: str = Field(default="", max_length=1000)
    #: It was resent while uncertain, so its recipients may have a second copy already. ``attempt``
    #: does not say so: it also counts requests that were certainly not accepted.
    resent: bool = False


class Delivery(Model, table=True):
    """One issue to one subscriber."""

    __tablename__ = "delivery"
    __table_args__ = (
        one_of("state", DeliveryState),
        Index(None, "send_id", "batch"),
        # Only the few deliveries with a problem. By reason, not by state:
        # PostgreSQL updates no row in place whose changed column is in any index.
        Index(
            "ix_delivery_apart",
            "send_id",
            "batch",
            "subscriber_id",
            sqlite_where=text(_HAS_REASON),
            postgresql_where=text(_HAS_REASON),
        ),
        # Each row is written once and updated twice or more, with its whole batch. With free
        # space beside it, PostgreSQL updates it in place, and no index with it.
        {"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 50}},
    )

    issue_id: int = Field(primary_key=True, sa_type=Id)
    #: No foreign key: the row outlives a subscriber whose data was erased.
    subscriber_id: int = Field(primary_key=True, sa_type=Id)
    #: (send_id, batch) names a Batch; deliveries are written first, in one statement.
    send_id: int = Field(sa_type=Id)
    batch: int
    state: str = Field(default=DeliveryState.PLANNED, max_length=10)
    #: Why it was skipped, rejected, bounced or dropped.
    reason: str | None = Field(default=None, max_length=300)


class ProviderBackoff(Model, table=True):
    """The backoff after provider errors: no batch leaves before ``until``."""

    __tablename__ = "provider_backoff"

    #: There is one row, for the one provider.
    name: str = Field(primary_key=True, max_length=40)
    until: datetime
    #: When the current trouble began.
    since: datetime
    reason: str = Field(default="", max_length=1000)
    #: Failures in a row: of the request that began the backoff, and of the probes since. Above
    #: 0 only one request at a time leaves, the probe. 0 means that only ``until`` counts.
    failures: int = 0
    #: Counts the probes: a late answer to an earlier one changes nothing.
    probes: int = 0
    #: Whether the small probe was accepted; the next probe is a batch as planned.
    passed: bool = False
    #: The batch and attempt of the latest probe.
    probe_send: int | None = Field(default=None, sa_type=Id)
    probe_batch: int | None = None
    probe_attempt: int | None = None


class Worker(Model, table=True):
    """A process that sends. While its lease lasts, no other process recovers its batches."""

    __tablename__ = "worker"

    #: Host, process id and a random part, because process ids are used again.
    name: str = Field(primary_key=True, max_length=100)
    started_at: datetime
    alive_until: datetime


class OutboxEmail(Model, table=True):
    """One email to one address outside any send: a confirmation, an answer to a request."""

    __tablename__ = "outbox_email"
    __table_args__ = (
        one_of("state", BatchState),
        Index(
            "ix_outbox_email_due",
            "not_before",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        NEVER_AGAIN,
    )

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: What it is for: ``confirm``, ``data``, …
    kind: str = Field(max_length=40)
    email: str = Field(max_length=320, index=True)
    subject: str = Field(max_length=1000)
    html: str
    text: str
    state: str = Field(default=BatchState.PENDING, max_length=10)
    created_at: datetime
    not_before: datetime
    attempt: int = 0
    lease_until: datetime | None = None
    settled_at: datetime | None = None
    message_id: str | None = Field(default=None, max_length=100)
    detail: str = Field(default="", max_length=1000)
    #: The strongest event since (newsletter.provider.events.EventKind); empty for none.
    outcome: str = Field(default="", max_length=20)
    outcome_reason: str = Field(default="", max_length=1000)


class DepartureLog(Model, table=True):
    """A departure log of this database, and how much of it the database has read."""

    __tablename__ = "departure_log"
    __table_args__ = (one_of("state", LogState),)

    #: The id in the folder's log.json.
    id: str = Field(primary_key=True, max_length=40)
    #: Where it was when it was last compared.
    host: str = Field(max_length=100)
    folder: str = Field(max_length=1000)
    state: str = Field(default=LogState.CURRENT, max_length=20)
    #: Details of the state, like the file and position of an error.
    detail: str = Field(default="", max_length=300)
    #: File → how many bytes of it this database has read.
    read: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: How often it was compared. The log has the same number, unless the database was restored.
    compared: int = 0
    seen_at: datetime
    #: Since when it is in this state.
    since: datetime


class ForgottenSend(Model, table=True):
    """A send that left before the database was restored, and that only a departure log has."""

    __tablename__ = "forgotten_send"
    __table_args__ = (UniqueConstraint("number", "made_at"), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: Its number before the restore. Another send may have it now, with another ``made_at``.
    number: int = Field(sa_type=Id)
    made_at: datetime
    slug: str = Field(max_length=100, index=True)
    #: newsletter.issues.parsing.text.content_digest of its content.
    content: str = Field(default="", max_length=64, index=True)
    #: The schedule that created it, and when that was due.
    schedule: str = Field(default="", max_length=200)
    due_at: datetime | None = None
    found_at: datetime
    #: Since when schedules skip the issue, because no recipient remains.
    over_at: datetime | None = None


class ForgottenRecipient(Model, table=True):
    """A recipient of a forgotten send, identified by the beginning of a keyed hash."""

    __tablename__ = "forgotten_recipient"
    __table_args__ = (
        Index(None, "forgotten_id", "batch"),
        {"sqlite_with_rowid": False},
    )

    forgotten_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="forgotten_send.id", ondelete="CASCADE"
    )
    #: The first 8 bytes of subscriber.address_hash. Of a million in a log and a million
    #: subscribers, two share them by chance once in 18 million restores (10**12 / 2**64).
    address_prefix: bytes = Field(primary_key=True, sa_type=LargeBinary(8))
    #: The batch number of the request before the restore.
    batch: int
    #: Whether the provider accepted the request; otherwise its answer was lost.
    answered: bool
