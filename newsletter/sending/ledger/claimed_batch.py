"""The values of a claimed batch and its recipients."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that tests whether the provider works, while all other batches wait."""

    #: Counts probes: a late answer to an earlier one changes nothing.
    number: int
    #: Whether it is a batch as planned, after a small probe was accepted; it ends the backoff.
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
    #: When the send was created. In a restored database another send may have the same id.
    made_at: datetime
    #: When it was due by the timetable.
    due: datetime
    #: Whether the send has a timetable that spreads its batches over time.
    paced: bool
    #: Set if the batch is a probe.
    probe: Probe | None = None
    #: Whether the provider tracks clicks and opens.
    track_clicks: bool = False
    track_opens: bool = False


class EligibleRecipient(TypedDict):
    """The values of one recipient that the request contains."""

    id: int
    #: The beginning of the address hash in hex.
    hash: str
    email: str
    name: str
    #: Empty unless the variant uses attributes.
    attributes: dict[str, Any]


class SkippedRecipient(TypedDict):
    """A recipient who must not be emailed any more, with the reason."""

    person: int
    #: The beginning of the address hash in hex; None when the subscriber was erased.
    hash: str | None
    why: str
