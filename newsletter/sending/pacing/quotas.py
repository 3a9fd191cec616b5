"""How many may leave within an hour or a day: limits that operators set, and warm-ups. Pure."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from newsletter.errors import SendError
from newsletter.sending.pacing import sending_windows

_UNLIMITED = sys.maxsize
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class WarmUp:
    """Volumes by which a new sender address or IP address earns its reputation."""

    #: The calendar day of the first volume; days before it have no limit.
    begins: date
    #: Recipients on the first, the second … calendar day; days after the last have no limit.
    volumes: tuple[int, ...]
    #: What other sends take of each day already.
    used: Mapping[date, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.volumes and min(self.volumes) < 0:
            raise wrong("volumes", min(self.volumes), "A day's volume is 0 or more recipients.")

    def is_over(self, day: date) -> bool:
        """Whether no day from ``day`` on has a limit."""
        return (day - self.begins).days >= len(self.volumes)

    def volume(self, day: date) -> int:
        """How many may be mailed on ``day``, by all sends together."""
        index = (day - self.begins).days
        return self.volumes[index] if 0 <= index < len(self.volumes) else _UNLIMITED


@dataclass(slots=True)
class Limit:
    """So many recipients within each clock hour of UTC, or each day of a zone."""

    quota: Callable[[date], int]
    zone: ZoneInfo | None
    taken: dict[date, int]
    #: Whether a batch above the whole quota may leave, at the cost of the windows after it.
    stretches: bool

    def look(self, moment: datetime) -> tuple[date, datetime, int]:
        """The hour or day of ``moment``: what it is kept under, when it ends, and what is left."""
        window: date  # or the moment at which an hour begins, which is a date as well
        if self.zone is None:
            window = hour = moment.replace(minute=0, second=0, microsecond=0)
            end = hour + _HOUR
        else:
            window = moment.astimezone(self.zone).date()
            while (
                end := sending_windows.local_moment(window + _DAY, time.min, self.zone)
            ) <= moment:
                window += _DAY  # clocks put back over midnight show yesterday again
        return window, end, self.quota(window) - self.taken.get(window, 0)

    def wait(self, moment: datetime, size: int) -> datetime:
        """``moment`` where it has room for ``size``, or the beginning of the next window."""
        window, end, room = self.look(moment)
        return moment if size <= room or (self.stretches and window not in self.taken) else end

    def take(self, moment: datetime, size: int, last: datetime) -> None:
        """Let so many leave: in this window, and what does not fit in those after it."""
        while size > 0 and moment <= last:
            window, end, room = self.look(moment)
            fits = min(size, max(room, 0))
            self.taken[window] = self.taken.get(window, 0) + fits
            size, moment = size - fits, end


def wrong(name: str, value: object, hint: str) -> SendError:
    """The error for a limit that cannot be kept."""
    return SendError(f"{value} cannot be kept", place=name, hint=hint)
