"""Whether clicks and opens of an issue's emails are tracked.

The send's choice wins over the issue's front matter, and that over the publication's settings.
Send and issue may leave the choice open.
"""

from dataclasses import dataclass

from newsletter.errors import SegmentError
from subscribers.segments import parser as segment_parser

#: Segment fields that need tracking, each with what has to be tracked.
_NEEDS = {"last_click_at": "clicks", "last_open_at": "opens"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the provider tracks."""

    clicks: bool
    opens: bool

    @property
    def words(self) -> str:
        """A phrase for operators."""
        if self.clicks and self.opens:
            return "opens and clicks"
        if not self.clicks and not self.opens:
            return "neither opens nor clicks"
        return "clicks, not opens" if self.clicks else "opens, not clicks"


@dataclass(frozen=True, slots=True)
class TrackingChoice:
    """The choice of a send or an issue; None leaves it to the next level."""

    clicks: bool | None = None
    opens: bool | None = None

    def over(self, base: Tracked) -> Tracked:
        """This choice where it is set, ``base`` where it is not."""
        return Tracked(
            clicks=base.clicks if self.clicks is None else self.clicks,
            opens=base.opens if self.opens is None else self.opens,
        )


#: Leaves both to the next level.
NO_CHOICE = TrackingChoice()
#: The default of the settings.
TRACK_EVERYTHING = Tracked(clicks=True, opens=True)


def require_measured(rule: str, publication: Tracked, *, place: str) -> None:
    """Raise SegmentError when a segment's rule needs tracking that the publication has off.

    The field would be empty, or as old as the tracking.
    """
    for name in sorted(segment_parser.names(rule).fields & _NEEDS.keys()):
        what = _NEEDS[name]
        if not getattr(publication, what):
            raise SegmentError(
                f"{what} are not tracked, so this segment cannot be computed",
                place=place,
                hint=f"Turn on tracking.{what}, or write the rule without {name} and "
                f"{'clicked' if what == 'clicks' else 'opened'}_within.",
            )
