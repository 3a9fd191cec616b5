"""Quotas per hour and per day: limits that operators set, and warm-ups. Pure functions."""

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
    """Daily volumes by which a new sender address or IP address earns its reputation."""

    #: The calendar day of the first volume; days before it have no limit.
    begins: date
    #: Recipients on the first, second and each following day; days after the last have no limit.
    volumes: tuple[int, ...]
    #: Recipients of other sends on each day.
    used: Mapping[date, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.volumes and min(self.volumes) < 0:
            raise invalid_limit(
                "volumes", min(self.volumes), "A day's volume is 0 or more recipients."
            )

    def is_over(self, day: date) -> bool:
        """Whether no day from ``day`` on has a limit."""
        return (day - self.begins).days >= len(self.volumes)

    def volume(self, day: date) -> int:
        """The most recipients on ``day``, of all sends together."""
        index = (day - self.begins).days
        return self.volumes[index] if 0 <= index < len(self.volumes) else _UNLIMITED


@dataclass(slots=True)
class Limit:
    """A quota of recipients for each clock hour of UTC, or for each day of a time zone."""

    quota: Callable[[date], int]
    zone: ZoneInfo | None
    taken: dict[date, int]
    #: Whether a batch larger than the quota may leave in an unused window; it then uses up the
    #: windows after it as well.
    stretches: bool

    def window_at(self, moment: datetime) -> tuple[date, datetime, int]:
        """The hour or day of ``moment``: its key in ``taken``, its end, its remaining quota."""
        window: date  # or the moment at which an hour begins, which is a date as well
        if self.zone is None:
            window = hour = moment.replace(minute=0, second=0, microsecond=0)
            end = hour + _HOUR
        else:
            window = moment.astimezone(self.zone).date()
            while (
                end := sending_windows.local_moment(window + _DAY, time.min, self.zone)
            ) <= moment:
                window += _DAY  # clocks that are put back over midnight repeat the day before
        return window, end, self.quota(window) - self.taken.get(window, 0)

    def earliest(self, moment: datetime, size: int) -> datetime:
        """``moment`` if its window has quota for ``size``, or else the next window's start."""
        window, end, remaining = self.window_at(moment)
        return moment if size <= remaining or (self.stretches and window not in self.taken) else end

    def use(self, moment: datetime, size: int, last: datetime) -> None:
        """Use the quota for ``size`` recipients: of this window, then of those after it."""
        while size > 0 and moment <= last:
            window, end, remaining = self.window_at(moment)
            fits = min(size, max(remaining, 0))
            self.taken[window] = self.taken.get(window, 0) + fits
            size, moment = size - fits, end


def invalid_limit(name: str, value: object, hint: str) -> SendError:
    """The error for a limit with an invalid value."""
    return SendError(f"{value} is not a valid value", place=name, hint=hint)
