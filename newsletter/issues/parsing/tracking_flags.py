"""What is measured of an issue's emails: who opens them, and who clicks which link.

Three say so, and the nearest wins: the send, the issue's front matter, the publication's
settings. Each may leave it open but the last.
"""

from dataclasses import dataclass

from newsletter.errors import SegmentError
from subscribers.segments import parser as segment_parser

#: Fields of the segment language that are known only where something is measured.
_NEEDS = {"last_click_at": "clicks", "last_open_at": "opens"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the provider is asked to measure."""

    clicks: bool
    opens: bool

    @property
    def words(self) -> str:
        """For operators."""
        if self.clicks and self.opens:
            return "opens and clicks"
        if not self.clicks and not self.opens:
            return "neither opens nor clicks"
        return "clicks, not opens" if self.clicks else "opens, not clicks"


@dataclass(frozen=True, slots=True)
class TrackingChoice:
    """What somebody says of it; None leaves it to who comes next."""

    clicks: bool | None = None
    opens: bool | None = None

    def over(self, base: Tracked) -> Tracked:
        """What holds where this is said."""
        return Tracked(
            clicks=base.clicks if self.clicks is None else self.clicks,
            opens=base.opens if self.opens is None else self.opens,
        )


#: Whoever says nothing.
NO_CHOICE = TrackingChoice()
#: As the settings are by default.
TRACK_EVERYTHING = Tracked(clicks=True, opens=True)


def require_measured(rule: str, publication: Tracked, *, place: str) -> None:
    """Raise SegmentError where a segment's rule asks for what the publication does not measure.

    Its field would be empty, or what it was when that was measured last.
    """
    for name in sorted(segment_parser.names(rule).fields & _NEEDS.keys()):
        what = _NEEDS[name]
        if not getattr(publication, what):
            raise SegmentError(
                f"{what} are not measured, so nobody knows who this is",
                place=place,
                hint=f"Switch tracking.{what} on, or write the rule without {name} and "
                f"{'clicked' if what == 'clicks' else 'opened'}_within.",
            )
