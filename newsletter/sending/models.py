"""Tables of the ledger: sends, what they say, their batches, and one row per person and issue.

Keys are natural. A delivery is (issue, subscriber), which makes a second copy of an
issue impossible across sends; a batch is (send, number), the number that operators see.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Index, LargeBinary, UniqueConstraint, text

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of
from newsletter.sending.states import BatchState, DeliveryState, LogState, SendState

#: Whoever is apart (states.APART) has a reason, and nobody else has.
_APART = "reason IS NOT NULL"


class Send(Model, table=True):
    """One issue to one or more segments, with the rule of when and how fast."""

    __tablename__ = "send"
    __table_args__ = (one_of("state", SendState),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    issue_id: int = Field(sa_type=Id, foreign_key="issue.id", index=True)
    revision_id: int = Field(sa_type=Id, foreign_key="revision.id")
    #: Names and expressions of the segments as they were when the send was made.
    segments: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    #: Segments whose people are left out, likewise.
    excluded: list[dict[str, Any]] = Field(default_factory=list, sa_type=Json)
    #: Slugs of the issue's topics; empty means that everybody may get it.
    topics: list[str] = Field(default_factory=list, sa_type=Json)
    state: str = Field(default=SendState.SCHEDULED, max_length=10)
    #: Why it is paused or cancelled, in the operator's words.
    reason: str = Field(default="", max_length=1000)
    scheduled_for: datetime
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    paused_at: datetime | None = None
    #: newsletter.sending.pacing.timetable.Timetable as JSON; empty means as fast as possible.
    timetable: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: newsletter.sending.ab_testing.Test as JSON; empty means that there is one variant.
    test: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Label of the variant that the test's rest gets; the report of the test says why that one.
    winner: str | None = Field(default=None, max_length=20)
    #: Counts of newsletter.tracking.circuit_breaker at the last resume; only later events count.
    alarm: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: Whether the provider is asked to measure who clicks and who opens.
    track_clicks: bool = True
    track_opens: bool = True
    #: Deliveries written by the plan.
    planned: int = 0
    #: Of these, people whom this send missed and another send of the issue took over.
    transferred: int = 0
    #: People whose mail was handed to the provider, counted when the send was sent.
    accepted_count: int | None = None
    #: People of the segments that the plan left out, by reason.
    excluded_counts: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: When its deliveries were summed up to be removed, and the sums by state.
    summarized_at: datetime | None = None
    final_counts: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: The name of the schedule that made it and when that was due, as in departure logs; empty
    #: where an operator made it.
    occasion: dict[str, str] = Field(default_factory=dict, sa_type=Json)
    #: When an operator last paused or cancelled it, or went on with it (interventions.py).
    intervened_at: datetime | None = None


class Variant(Model, table=True):
    """What a send says: rendered once, with a tag wherever a personal value goes."""

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
    """What a batch is in its send's test of variants."""

    #: There is no test.
    WHOLE = "whole"
    #: Gets one of the variants, at once.
    SAMPLE = "sample"
    #: Waits for the winner; nobody claims it.
    REST = "rest"
    #: Gets the winner.
    WINNER = "winner"


class Batch(Model, table=True):
    """Up to a thousand deliveries: one request to the provider."""

    __tablename__ = "batch"
    __table_args__ = (
        one_of("state", BatchState),
        one_of("part", Part),
        # The claim reads the earliest due batch; settled ones stay out of its way.
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
    #: Its people live by this zone's clock (IANA); empty where the clock does not matter.
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
    #: Why it was refused, put off or is in doubt.
    detail: str = Field(default="", max_length=1000)
    #: It was sent again while in doubt, so its people may have a second copy already. Not told by
    #: ``attempt``, which counts what surely was not taken, too.
    resent: bool = False


class Delivery(Model, table=True):
    """One issue to one subscriber."""

    __tablename__ = "delivery"
    __table_args__ = (
        one_of("state", DeliveryState),
        Index(None, "send_id", "batch"),
        # The few of a send that operators ask for; the many have no entry. By their reason, not
        # their state: PostgreSQL changes no row in place whose changed column is in any index.
        Index(
            "ix_delivery_apart",
            "send_id",
            "batch",
            "subscriber_id",
            sqlite_where=text(_APART),
            postgresql_where=text(_APART),
        ),
        # Each row is written once and changed twice or more, with its whole batch: with room
        # beside it, PostgreSQL changes it in place, and no index with it.
        {"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 50}},
    )

    issue_id: int = Field(primary_key=True, sa_type=Id)
    #: No foreign key: the row outlives a person who had their data erased.
    subscriber_id: int = Field(primary_key=True, sa_type=Id)
    #: (send_id, batch) names a Batch; deliveries are written first, in one statement.
    send_id: int = Field(sa_type=Id)
    batch: int
    state: str = Field(default=DeliveryState.PLANNED, max_length=10)
    #: Why it was skipped, rejected, bounced or dropped.
    reason: str | None = Field(default=None, max_length=300)


class ProviderBackoff(Model, table=True):
    """Nobody sends before ``until``: the provider asked for it, or does not answer properly."""

    __tablename__ = "provider_backoff"

    #: What is held: there is one provider.
    name: str = Field(primary_key=True, max_length=40)
    until: datetime
    #: When the trouble began that has not ended since.
    since: datetime
    reason: str = Field(default="", max_length=1000)
    #: Failures in a row: of the request that stopped the account, and of the probes since. Above
    #: 0 only one request at a time leaves, the probe; 0 means that ``until`` alone counts.
    failures: int = 0
    #: Counts the probes, which tells the latest from those that come late.
    probes: int = 0
    #: A probe of a few people was taken; the next is a batch as planned.
    passed: bool = False
    #: The attempt of a batch that is the latest probe.
    probe_send: int | None = Field(default=None, sa_type=Id)
    probe_batch: int | None = None
    probe_attempt: int | None = None


class Worker(Model, table=True):
    """A process that sends. While it is alive nobody takes its batches from it."""

    __tablename__ = "worker"

    #: Host, process and a random part, so that a number used again is another worker.
    name: str = Field(primary_key=True, max_length=100)
    started_at: datetime
    alive_until: datetime


class OutboxEmail(Model, table=True):
    """One mail to one person outside any send: a confirmation, an answer to a request."""

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
    #: The strongest event since it was accepted (newsletter.provider.events.Kind); empty for none.
    outcome: str = Field(default="", max_length=20)
    outcome_reason: str = Field(default="", max_length=1000)


class DepartureLog(Model, table=True):
    """A departure log that writes down what leaves by this database, and how far it is known."""

    __tablename__ = "departure_log"
    __table_args__ = (one_of("state", LogState),)

    #: As it stands in the folder's log.json.
    id: str = Field(primary_key=True, max_length=40)
    #: Where it was when it was last compared.
    host: str = Field(max_length=100)
    folder: str = Field(max_length=1000)
    state: str = Field(default=LogState.CURRENT, max_length=20)
    #: What is wrong, as far as the state does not say it: a file and its line.
    detail: str = Field(default="", max_length=300)
    #: File → bytes of it that this database knows.
    read: dict[str, int] = Field(default_factory=dict, sa_type=Json)
    #: How often it was compared: the log has the same number, unless a database was set back.
    compared: int = 0
    seen_at: datetime
    #: Since when it is in this state.
    since: datetime


class ForgottenSend(Model, table=True):
    """A send that left before the database was restored, and of which only a log knows."""

    __tablename__ = "forgotten_send"
    __table_args__ = (UniqueConstraint("number", "made_at"), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: Its number then. Another send may have it by now; the two are told apart by when they
    #: were made.
    number: int = Field(sa_type=Id)
    made_at: datetime
    slug: str = Field(max_length=100, index=True)
    #: newsletter.issues.parsing.text.content_digest of what it said.
    content: str = Field(default="", max_length=64, index=True)
    #: The schedule that made it, and when that was due.
    schedule: str = Field(default="", max_length=200)
    due_at: datetime | None = None
    found_at: datetime
    #: Since when a schedule takes the next issue, because nobody is left who should get this one.
    over_at: datetime | None = None


class ForgottenRecipient(Model, table=True):
    """Somebody in a request of a forgotten send, known by the beginning of a keyed hash."""

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
    #: The number of the request's batch then.
    batch: int
    #: Whether the provider surely took the request; else nobody heard its answer.
    answered: bool
