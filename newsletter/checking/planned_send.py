"""What a check of an issue is told of the send to come; light, for whoever only makes one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from newsletter.db.orm import Session
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.audience import AudienceCounts


@dataclass(frozen=True, slots=True)
class Plan:
    """To whom and how fast the issue is to go: names of segments, as for a send."""

    session: Session
    segments: Sequence[str]
    excluded: Sequence[str] = ()
    timetable: Timetable = field(default_factory=Timetable)
    batch_size: int = 1000
    warm_up: WarmUp | None = None
    #: Its people, where they have been counted a moment ago: a million take a second.
    counted: AudienceCounts | None = None
