"""Estimates a send before it is created: recipients, excluded subscribers, last batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from newsletter.db.orm import Session
from newsletter.errors import NothingToDoError
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.parsing.tracking_flags import (
    NO_CHOICE,
    TRACK_EVERYTHING,
    Tracked,
    TrackingChoice,
    require_measured,
)
from newsletter.rendering.rendered import Rendered
from newsletter.sending.ab_testing import ABTest, require_alike
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.ledger.summarize import require_open
from newsletter.sending.models import Send
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.audience import AudienceCounts, SendAudience, audience_of, count
from newsletter.sending.planning.planner import forecast
from newsletter.sending.queries import archive as archive_queries
from subscribers.consent import topics
from subscribers.models import Segment
from subscribers.segments import store as segment_store


class AlreadySentError(NothingToDoError):
    """No recipient is left: the issue was sent before the database was restored."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Options of a send, beside its issue, segments and time."""

    #: Names of segments whose subscribers are excluded.
    excluded: Sequence[str] = ()
    timetable: Timetable = field(default_factory=Timetable)
    #: The variants after the first, in the order of their labels: draft and rendered email.
    others: Sequence[tuple[Draft, Rendered]] = ()
    test: ABTest | None = None
    #: Whether opens and clicks are tracked: this send's choice, and the publication's default.
    tracking: TrackingChoice = NO_CHOICE
    publication: Tracked = TRACK_EVERYTHING
    #: Allows a text that differs from what was sent under the same slug before.
    same_issue: bool = False
    #: Whether it is sent although a blocking check reports errors; for the audit log.
    despite_findings: bool = False
    batch_size: int = 1000
    warm_up: WarmUp | None = None

    def tracked(self, draft: Draft) -> Tracked:
        """What a send of this issue tracks.

        Raises SendError when its A/B test needs a measure that is not tracked.
        """
        tracked = self.tracking.over(draft.tracking.over(self.publication))
        if self.test:
            self.test.require(tracked)
        return tracked


@dataclass(frozen=True, slots=True)
class SendEstimate:
    """What a send would be: its segments, counts, and when its last batch would leave."""

    segments: Sequence[Segment]
    excluded: Sequence[Segment]
    counted: AudienceCounts
    last_at: datetime
    #: The issue's topics.
    topics: Sequence[str] = ()

    @property
    def is_for_all(self) -> bool:
        """Whether it goes to all subscribers, or to all who chose one of its topics."""
        return archive_queries.is_for_all(
            [one.expression for one in self.segments],
            excluded=[one.expression for one in self.excluded],
            topics=self.topics,
        )

    @property
    def people(self) -> int:
        """The number of recipients."""
        return self.counted.people

    @property
    def excluded_counts(self) -> Mapping[str, int]:
        """Exclusion reason → excluded subscribers."""
        return self.counted.excluded_counts


def estimate(
    session: Session,
    draft: Draft,
    segment_names: Sequence[str],
    *,
    issue_id: int,
    start: datetime,
    now: datetime,
    options: SendOptions = SendOptions(),
) -> SendEstimate:
    """Estimate the send that ``lifecycle.create`` would create. Changes nothing.

    Raises the errors of ``create``.
    """
    require_alike(draft, [other for other, _ in options.others])
    options.tracked(draft)
    topics.require(session, draft.topics)
    require_open(session, issue_id)
    chosen = _find_segments(session, segment_names)
    excluded = _find_segments(session, options.excluded)
    for segment in (*chosen, *excluded):
        require_measured(segment.expression, options.publication, place=f"segment {segment.name}")
    audience = SendAudience(
        segments=[segment.expression for segment in chosen],
        excluded=[segment.expression for segment in excluded],
        topics=draft.topics,
        issue_id=issue_id,
    )
    counted = count(session, audience, now=now, split=options.timetable.by_zone)
    if not counted.people:
        was_sent_before = {forgotten_sends.HAD_BEFORE, forgotten_sends.MAY_HAVE_HAD} & set(
            counted.excluded_counts
        )
        why = ", ".join(f"{people} {reason}" for reason, people in counted.excluded_counts.items())
        kind = AlreadySentError if was_sent_before else NothingToDoError
        raise kind(
            "nobody would get this issue",
            place=f"segment {', '.join(segment.name for segment in chosen)}",
            hint=f"Excluded: {why}." if why else "The segment has no subscribers.",
        )
    last_at = forecast(
        session,
        counted,
        options.timetable,
        start=start,
        batch_size=options.batch_size,
        warm_up=options.warm_up,
    )
    return SendEstimate(chosen, excluded, counted, last_at, draft.topics)


def require_finite(
    session: Session,
    send: Send,
    timetable: Timetable,
    *,
    now: datetime,
    batch_size: int,
    warm_up: WarmUp | None,
) -> None:
    """Raise SendError if this timetable cannot fit a send that is not planned yet."""
    forecast(
        session,
        count(session, audience_of(send), now=now, split=timetable.by_zone),
        timetable,
        start=max(send.scheduled_for, now),
        batch_size=batch_size,
        warm_up=warm_up,
    )


def _find_segments(session: Session, names: Sequence[str]) -> list[Segment]:
    return [segment_store.find(session, name) for name in dict.fromkeys(names)]
