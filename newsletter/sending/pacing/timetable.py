"""Computes when each batch may leave. Pure functions.

The plan gives each batch its time, so a worker on any machine compares it with the clock and
workers share no token bucket. Times are aware datetimes in UTC; sizes and limits count
recipients.
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
from newsletter.sending.pacing.quotas import Limit, WarmUp, invalid_limit

#: The longest that a send may take. Limits that need more are a mistake, and the list of
#: batches could become endless.
LONGEST = timedelta(days=366)
#: With a rate, a batch has at most this many seconds' worth of recipients: the pace is even and
#: a pause takes effect soon.
_SECONDS_PER_BATCH = 10
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Timetable:
    """The pace and the hours of a send; with nothing set it leaves as fast as possible."""

    #: Recipients per second over the whole send, kept by spacing out the batches.
    per_second: float | None = None
    #: Recipients within one clock hour of UTC.
    per_hour: int | None = None
    #: Recipients within one calendar day of ``zone``.
    per_day: int | None = None
    #: The time of day, in each recipient's time zone, before which nothing leaves.
    local_time: time | None = None
    #: The day of ``local_time``; None means the next ``local_time`` of each recipient.
    local_date: date | None = None
    #: The time from which the next ``local_time`` is looked for; None means the send's start.
    since: datetime | None = None
    #: Hours, in each recipient's time zone, in which nothing leaves.
    quiet: sending_windows.Hours | None = None
    #: If there are any, emails leave only within these hours, in each recipient's time zone.
    windows: tuple[sending_windows.Window, ...] = ()
    #: The publication's IANA time zone, for ``per_day`` and for recipients without a zone.
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.per_second is not None and not 0 < self.per_second < math.inf:
            raise invalid_limit("per_second", self.per_second, "Write a number above 0, like 50.")
        for name, limit in (("per_hour", self.per_hour), ("per_day", self.per_day)):
            if limit is not None and limit < 1:
                raise invalid_limit(name, limit, "Write a whole number from 1 on, like 10000.")
        if self.local_date and (self.local_time is None or self.local_date.year == date.max.year):
            raise invalid_limit(
                "local_date", self.local_date, "It goes with a local time, like 09:00."
            )
        if sending_windows.find_zone(self.zone) is None:
            raise invalid_limit("zone", self.zone, "Write a name like Europe/Berlin or UTC.")
        # Raises SendError if no hour is open. Here an operator sees the error; in the plan, no one.
        self.next_open(datetime(2001, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))

    @property
    def by_zone(self) -> bool:
        """Whether recipients of different time zones need separate batches."""
        return self.local_time is not None or self.quiet is not None or bool(self.windows)

    def largest(self, batch_size: int) -> int:
        """Recipients per batch: ``batch_size``, or ten seconds' worth of the rate if less."""
        if self.per_second is None:
            return batch_size
        return max(1, int(min(batch_size, self.per_second * _SECONDS_PER_BATCH)))

    def zone_of(self, name: str) -> ZoneInfo:
        """The zone called ``name``, or the publication's where that is empty or unknown."""
        return sending_windows.find_zone(name) or ZoneInfo(self.zone)

    def next_open(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first moment from ``moment`` on within the open hours of ``zone``."""
        return sending_windows.next_open(moment, zone, quiet=self.quiet, windows=self.windows)

    @property
    def description(self) -> str:
        """The timetable in English, for operators; empty if nothing is set."""
        phrases = []
        for value, phrase in (
            (self.per_second, "at most {:,g} recipients per second"),
            (self.per_hour, "at most {:,} per hour"),
            (self.per_day, "at most {:,} per day"),
            (self.local_time, "not before {:%H:%M} in each recipient's time zone"),
            (self.quiet and str(self.quiet), "quiet hours {}"),
            (" and ".join(map(str, self.windows)), "only {}"),
        ):
            if value:
                phrases.append(phrase.format(value))
        return "; ".join(phrases)

    def to_json(self) -> dict[str, Any]:
        """The values that are set, in JSON's types; hours as operators write them."""
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
        """The timetable of ``to_json``. Raises SendError for an unknown key."""
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
    """Whether a stored timetable (JSON) sets anything that delays a batch."""
    return not stored.keys() <= {"zone"}


class ZoneGroup(NamedTuple):
    """Recipients of one zone without batches; an unknown zone means that of the timetable."""

    zone: str
    people: int
    not_before: datetime


class ExistingBatch(NamedTuple):
    """A batch that exists, of recipients of one zone."""

    zone: str
    size: int
    not_before: datetime


class PlannedBatch(NamedTuple):
    """A batch to be created: its size, and the time from which it may leave."""

    size: int
    moment: datetime


#: Batches that leave one after the other, each with its index in the caller's list.
_Queue = deque[tuple[int, ExistingBatch]]


def cut_batches(
    timetable: Timetable,
    groups: Sequence[ZoneGroup],
    *,
    start: datetime,
    batch_size: int,
    warm_up: WarmUp | None = None,
    departed: Iterable[tuple[datetime, int]] = (),
) -> list[list[PlannedBatch]]:
    """Cut the groups into batches; returns the batches of each, in the order of ``groups``.

    The group that can leave first does; of several, the first in ``groups``. A batch is made
    smaller where the quota of an hour or a day has less left. ``departed`` gives (time, size)
    of batches that used quota before. Raises SendError when the send would take longer than
    LONGEST.
    """
    if batch_size < 1:
        raise invalid_limit("batch_size", batch_size, "Write a whole number from 1 on, like 1000.")
    pace, slots = (
        _Pace(timetable, start, start, warm_up, departed),
        [list[PlannedBatch]() for _ in groups],
    )
    queues = [
        deque([(n, ExistingBatch(*group))]) for n, group in enumerate(groups) if group.people > 0
    ]
    for order, size, moment in _depart(pace, queues, timetable.largest(batch_size)):
        slots[order].append(PlannedBatch(size, moment))
    return slots


def departure_times(
    timetable: Timetable,
    batches: Sequence[ExistingBatch],
    *,
    start: datetime,
    warm_up: WarmUp | None = None,
    began: datetime | None = None,
    departed: Iterable[tuple[datetime, int]] = (),
) -> list[datetime]:
    """When existing batches may leave, after a pause or a change of the pace.

    Batches of one zone keep their order. A batch larger than the quota of an hour or a day
    leaves in an unused one and also uses the quota of those after it. A warm-up's volume is
    never exceeded: the batch waits for a day that is large enough. ``began`` is when the
    send first started: recipients whose local time has passed since then do not wait for the
    next day. ``departed`` gives (time, size) of batches that used quota before. Raises
    SendError when the send would take longer than LONGEST.
    """
    pace, queues = (
        _Pace(timetable, start, began or start, warm_up, departed),
        dict[ZoneInfo, _Queue](),
    )
    for order, batch in enumerate(batches):
        queues.setdefault(timetable.zone_of(batch.zone), deque()).append((order, batch))
    moments = {order: moment for order, _, moment in _depart(pace, queues.values(), None)}
    return [moments[order] for order in range(len(batches))]


class _Pace:
    """What the batches of a send share: the timetable and the remaining quotas."""

    def __init__(
        self,
        timetable: Timetable,
        start: datetime,
        began: datetime,
        warm_up: WarmUp | None,
        departed: Iterable[tuple[datetime, int]],
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
        for moment, size in departed:
            self._count(moment, size)

    def _count(self, moment: datetime, size: int) -> None:
        """Use the quota of a batch's hour and day for one that left before."""
        for limit in self.limits:
            window = limit.window_at(moment)[0]
            limit.taken[window] = limit.taken.get(window, 0) + size

    def earliest(self, batch: ExistingBatch) -> datetime:
        """The first time that the start, the batch's ``not_before`` and its local time allow."""
        bound = max(self.start, batch.not_before.astimezone(UTC))
        zone = self.timetable.zone_of(batch.zone)
        if (at := self.timetable.local_time) is None:
            return bound
        if (day := self.timetable.local_date) is not None:
            return max(bound, sending_windows.local_moment(day, at, zone))
        today = self.began.astimezone(zone).date()
        candidates = (sending_windows.local_moment(today + n * _DAY, at, zone) for n in range(3))
        return max(bound, next(moment for moment in candidates if moment >= self.began))

    def first_possible(self, batch: ExistingBatch, moment: datetime, size: int) -> datetime:
        """The first time from ``moment`` on that is within the open hours and all quotas."""
        before, zone = None, self.timetable.zone_of(batch.zone)
        while moment != before and moment <= self.last:
            before = moment
            moment = self.timetable.next_open(moment, zone)
            for limit in self.limits:
                moment = limit.earliest(moment, size)
        return moment

    def use(self, moment: datetime, size: int) -> datetime:
        """Use the quotas for a batch; returns when the next one may leave."""
        for limit in self.limits:
            limit.use(moment, size, self.last)
        if (rate := self.timetable.per_second) is None:
            return moment
        # Capped, because a date past the year 9999 would overflow; _depart fails past LONGEST.
        return moment + timedelta(seconds=min(size / rate, LONGEST.total_seconds() + 1))


def _depart(
    pace: _Pace, queues: Iterable[_Queue], most: int | None
) -> Iterator[tuple[int, int, datetime]]:
    """Yield (index, size, time) of one batch after the other.

    ``most`` is the largest size; without it, batches are not cut. ``now`` only increases. A
    queue waits in a heap until the earliest time at which its first batch can leave, so the
    work grows with the number of batches, not with that of the queues.
    """
    now, ready = pace.start, list[tuple[int, _Queue]]()
    waiting = [(pace.earliest(queue[0][1]), queue[0][0], queue) for queue in queues]
    heapify(waiting)
    while waiting or ready:
        if not ready:
            now = max(now, waiting[0][0])
        if now > pace.last:
            message = f"the send would take more than {LONGEST.days} days"
            raise SendError(
                message, place="timetable", hint="Raise its limits or choose an earlier date."
            )
        while waiting and waiting[0][0] <= now:
            heappush(ready, heappop(waiting)[1:])
        order, queue = heappop(ready)
        batch = queue[0][1]
        moment = pace.first_possible(batch, now, 1 if most else batch.size)
        if moment > now:
            heappush(waiting, (moment, order, queue))
            continue
        remaining = [limit.window_at(now)[2] for limit in pace.limits] if most else []
        size = min(batch.size, most or batch.size, *remaining)
        yield order, size, now
        now = pace.use(now, size)
        if size < batch.size:
            queue[0] = (order, batch._replace(size=batch.size - size))
        else:
            queue.popleft()
        if queue:
            heappush(waiting, (pace.earliest(queue[0][1]), queue[0][0], queue))
