"""The planned send that a check takes into account. Imports little, for callers that make one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from newsletter.db.orm import Session
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.audience import AudienceCounts


@dataclass(frozen=True, slots=True)
class Plan:
    """The segments (by name) and the timetable of a planned send."""

    session: Session
    segments: Sequence[str]
    excluded: Sequence[str] = ()
    timetable: Timetable = field(default_factory=Timetable)
    batch_size: int = 1000
    warm_up: WarmUp | None = None
    #: The counts of its audience, if the caller has just counted it: a million takes a second.
    counted: AudienceCounts | None = None
