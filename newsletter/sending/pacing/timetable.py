"""When each batch may leave. Pure.

The pace is written into the plan: a worker on any machine only has to look at the
clock, and nobody counts tokens. Moments are aware datetimes in UTC; sizes and limits
count recipients.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from newsletter.errors import SendError
from newsletter.sending.pacing import sending_windows
from newsletter.sending.pacing.quotas import Limit, WarmUp, wrong

#: A plan that takes longer is a mistake in its limits, and would make an endless list.
LONGEST = timedelta(days=366)
#: With a rate, a request carries at most so many seconds' worth: the pace is even, a pause soon.
_SECONDS_A_REQUEST = 10
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Timetable:
    """The pace and the hours of a send; with nothing set it leaves as fast as it can."""

    #: The rate: recipients a second over the whole send, kept by spacing out the batches.
    per_second: float | None = None
    #: Recipients within one clock hour of UTC.
    per_hour: int | None = None
    #: Recipients within one calendar day of ``zone``.
    per_day: int | None = None
    #: The time of day on each person's own clock before which nothing leaves.
    local_time: time | None = None
    #: The day of ``local_time``; None means each person's next such time.
    local_date: date | None = None
    #: From when each person's next such time counts; None means from the start of the send.
    since: datetime | None = None
    #: Hours on each person's own clock in which nothing leaves.
    quiet: sending_windows.Hours | None = None
    #: If there are any, hours on each person's own clock in which alone something leaves.
    windows: tuple[sending_windows.Window, ...] = ()
    #: The publication's IANA zone: its days count, and people without a zone live by it.
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.per_second is not None and not 0 < self.per_second < math.inf:
            raise wrong("per_second", self.per_second, "Write a number above 0, like 50.")
        for name, limit in (("per_hour", self.per_hour), ("per_day", self.per_day)):
            if limit is not None and limit < 1:
                raise wrong(name, limit, "Write a whole number from 1 on, like 10000.")
        if self.local_date and (self.local_time is None or self.local_date.year == date.max.year):
            raise wrong("local_date", self.local_date, "It goes with a local time, like 09:00.")
        if sending_windows.find_zone(self.zone) is None:
            raise wrong("zone", self.zone, "Write a name like Europe/Berlin or UTC.")
        # Hours that exclude each other are told to whoever sets them, not to the plan.
        self.next_open(datetime(2001, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))

    @property
    def by_zone(self) -> bool:
        """Whether people of different zones need batches of their own."""
        return self.local_time is not None or self.quiet is not None or bool(self.windows)

    def largest(self, batch_size: int) -> int:
        """Recipients a request: ``batch_size``, or ten seconds' worth of the rate if less."""
        if self.per_second is None:
            return batch_size
        return max(1, int(min(batch_size, self.per_second * _SECONDS_A_REQUEST)))

    def zone_of(self, name: str) -> ZoneInfo:
        """The zone called ``name``, or the publication's where that is empty or unknown."""
        return sending_windows.find_zone(name) or ZoneInfo(self.zone)

    def next_open(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first moment from ``moment`` on within the open hours of ``zone``."""
        return sending_windows.next_open(moment, zone, quiet=self.quiet, windows=self.windows)

    def to_json(self) -> dict[str, Any]:
        """What is set, in JSON's own types; hours as operators write them."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {
            "local_time": None if self.local_time is None else f"{self.local_time:%H:%M}",
            "local_date": self.local_date and self.local_date.isoformat(),
            "since": self.since and self.since.isoformat(),
            "quiet": self.quiet and str(self.quiet),
            "windows": [str(window) for window in self.windows] or None,
            "zone": None if self.zone == "UTC" else self.zone,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Timetable":
        """The timetable of ``to_json``; SendError when it says what this version cannot keep."""
        place, given = "timetable", dict(values)
        if unknown := sorted(set(given) - set(cls.__dataclass_fields__)):
            raise SendError(f"this version does not know {', '.join(unknown)}", place=place)
        if "local_time" in given:
            given["local_time"] = sending_windows.parse_time(given["local_time"], place=place)
        if "local_date" in given:
            given["local_date"] = date.fromisoformat(given["local_date"])
        if "since" in given:
            given["since"] = datetime.fromisoformat(given["since"])
        if "quiet" in given:
            given["quiet"] = sending_windows.parse_hours(given["quiet"], place=place)
        windows = [
            sending_windows.parse_window(text, place=place) for text in given.pop("windows", ())
        ]
        return cls(**given, windows=tuple(windows))


def is_paced(stored: Mapping[str, Any]) -> bool:
    """Whether a timetable in JSON says when anything leaves."""
    return not stored.keys() <= {"zone"}


class ZoneGroup(NamedTuple):
    """People of one zone who have no batches yet; an unknown zone means the timetable's."""

    zone: str
    people: int
    not_before: datetime


class ExistingBatch(NamedTuple):
    """A batch that is cut already, of people of one zone."""

    zone: str
    size: int
    not_before: datetime


class PlannedBatch(NamedTuple):
    """A batch to be: so many people, from this moment on."""

    size: int
    moment: datetime


#: Those who leave one after the other, each with its place among all.
_Line = deque[tuple[int, ExistingBatch]]


def cut(
    timetable: Timetable,
    groups: Sequence[ZoneGroup],
    *,
    start: datetime,
    batch_size: int,
    warm_up: WarmUp | None = None,
    left: Iterable[tuple[datetime, int]] = (),
) -> list[list[PlannedBatch]]:
    """The batches of each group, in the order of ``groups``; none above a limit.

    Whoever can leave first does; of several, the group that stands first. A batch is
    made smaller where an hour or a day has less left, by what has gone out before (``left``:
    moments and sizes). Raises SendError when the limits
    stretch the send over more than LONGEST.
    """
    if batch_size < 1:
        raise wrong("batch_size", batch_size, "Write a whole number from 1 on, like 1000.")
    pace, slots = (
        _Pace(timetable, start, start, warm_up, left),
        [list[PlannedBatch]() for _ in groups],
    )
    lines = [
        deque([(n, ExistingBatch(*group))]) for n, group in enumerate(groups) if group.people > 0
    ]
    for order, size, moment in _depart(pace, lines, timetable.largest(batch_size)):
        slots[order].append(PlannedBatch(size, moment))
    return slots


def retime(
    timetable: Timetable,
    lots: Sequence[ExistingBatch],
    *,
    start: datetime,
    warm_up: WarmUp | None = None,
    began: datetime | None = None,
    left: Iterable[tuple[datetime, int]] = (),
) -> list[datetime]:
    """Moments for batches that are cut already, after a pause or a change of the pace.

    Lots of one zone keep their order. A lot larger than a whole hour's or day's limit
    leaves in an empty one and uses up the following ones; a warm-up's day is never
    exceeded: the lot waits for one that is large enough. ``began`` is when the send first
    started: people whose local time has come since then do not wait for tomorrow's. ``left`` are
    moments and sizes of batches that have gone out: hours and days have so much less room.
    """
    pace, lines = _Pace(timetable, start, began or start, warm_up, left), dict[ZoneInfo, _Line]()
    for order, lot in enumerate(lots):
        lines.setdefault(timetable.zone_of(lot.zone), deque()).append((order, lot))
    moments = {order: moment for order, _, moment in _depart(pace, lines.values(), None)}
    return [moments[order] for order in range(len(lots))]


class _Pace:
    """What the batches of a send share: the timetable, and what is left of its limits."""

    def __init__(
        self,
        timetable: Timetable,
        start: datetime,
        began: datetime,
        warm_up: WarmUp | None,
        left: Iterable[tuple[datetime, int]],
    ) -> None:
        self.timetable, self.start = timetable, start.astimezone(UTC)
        self.began = timetable.since or began
        self.last = self.start + LONGEST
        self.limits, zone = list[Limit](), timetable.zone_of("")
        if (hourly := timetable.per_hour) is not None:
            self.limits.append(Limit(lambda _: hourly, None, {}, stretches=True))
        if (daily := timetable.per_day) is not None:
            self.limits.append(Limit(lambda _: daily, zone, {}, stretches=True))
        if warm_up is not None:
            self.limits.append(Limit(warm_up.volume, zone, dict(warm_up.used), stretches=False))
        for moment, size in left:
            self._count(moment, size)

    def _count(self, moment: datetime, size: int) -> None:
        """Count what left before: it fills its hour and its day."""
        for limit in self.limits:
            window = limit.look(moment)[0]
            limit.taken[window] = limit.taken.get(window, 0) + size

    def earliest(self, lot: ExistingBatch) -> datetime:
        """The first moment that the start, the lot's own bound and its local time allow."""
        bound = max(self.start, lot.not_before.astimezone(UTC))
        zone = self.timetable.zone_of(lot.zone)
        if (at := self.timetable.local_time) is None:
            return bound
        if (day := self.timetable.local_date) is not None:
            return max(bound, sending_windows.local_moment(day, at, zone))
        today = self.began.astimezone(zone).date()
        coming = (sending_windows.local_moment(today + n * _DAY, at, zone) for n in range(3))
        return max(bound, next(moment for moment in coming if moment >= self.began))

    def possible(self, lot: ExistingBatch, moment: datetime, size: int) -> datetime:
        """The first moment from ``moment`` on that is within open hours and all limits."""
        before, zone = None, self.timetable.zone_of(lot.zone)
        while moment != before and moment <= self.last:
            before = moment
            moment = self.timetable.next_open(moment, zone)
            for limit in self.limits:
                moment = limit.wait(moment, size)
        return moment

    def take(self, moment: datetime, size: int) -> datetime:
        """Let so many leave; returns the moment from which the next batch may."""
        for limit in self.limits:
            limit.take(moment, size, self.last)
        if (rate := self.timetable.per_second) is None:
            return moment
        # Past the last moment the distance does not matter, and may lie beyond the calendar.
        return moment + timedelta(seconds=min(size / rate, LONGEST.total_seconds() + 1))


def _depart(
    pace: _Pace, lines: Iterable[_Line], most: int | None
) -> Iterator[tuple[int, int, datetime]]:
    """Order, size and moment of batch after batch; without ``most``, lots stay whole.

    ``now`` only moves on. A line waits by a moment before which it surely cannot leave and
    is looked at again only then: the work grows with the batches, not with the lines.
    """
    now, ready = pace.start, list[tuple[int, _Line]]()
    waiting = [(pace.earliest(line[0][1]), line[0][0], line) for line in lines]
    heapify(waiting)
    while waiting or ready:
        if not ready:
            now = max(now, waiting[0][0])
        if now > pace.last:
            message = f"it would not be over within {LONGEST.days} days"
            raise SendError(message, place="timetable", hint="Raise its limits or change its date.")
        while waiting and waiting[0][0] <= now:
            heappush(ready, heappop(waiting)[1:])
        order, line = heappop(ready)
        lot = line[0][1]
        moment = pace.possible(lot, now, 1 if most else lot.size)
        if moment > now:
            heappush(waiting, (moment, order, line))
            continue
        room = [limit.look(now)[2] for limit in pace.limits] if most else []
        size = min(lot.size, most or lot.size, *room)
        yield order, size, now
        now = pace.take(now, size)
        if size < lot.size:
            line[0] = (order, lot._replace(size=lot.size - size))
        else:
            line.popleft()
        if line:
            heappush(waiting, (pace.earliest(line[0][1]), line[0][0], line))
