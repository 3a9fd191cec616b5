"""A batch that a worker has claimed, and its recipients: values, read by every step of its way."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True)
class Probe:
    """The right to send one request while every other batch waits for the provider."""

    #: Counts probes: a worker that comes late with an earlier number changes nothing.
    number: int
    #: A small probe was accepted before: this one is a batch as planned, and ends the backoff.
    whole: bool


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that one worker has claimed; ``attempt`` fences it from all others."""

    send_id: int
    number: int
    issue_id: int
    variant_id: int
    attempt: int
    #: Deliveries that the plan put into it.
    size: int
    topics: tuple[str, ...]
    #: When the send was made: tells it from another of the same number in a restored database.
    made_at: datetime
    #: When the timetable wanted it to leave.
    due: datetime
    #: Whether the send has a timetable that spreads its batches over time.
    paced: bool
    #: Set when the batch tests whether the provider works again while all others wait.
    probe: Probe | None = None
    #: What the provider is asked to measure.
    track_clicks: bool = False
    track_opens: bool = False


class EligibleRecipient(TypedDict):
    """What a batch's request needs of one recipient."""

    id: int
    #: The beginning of the address hash in hex.
    hash: str
    email: str
    name: str
    #: Empty unless the variant uses attributes.
    attributes: dict[str, Any]


class SkippedRecipient(TypedDict):
    """A recipient who must not be emailed any more, and why."""

    person: int
    #: The beginning of the address hash in hex; None when the subscriber was erased.
    hash: str | None
    why: str
