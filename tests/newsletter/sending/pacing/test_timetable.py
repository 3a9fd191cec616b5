"""Batches leave at the pace and in the hours that were asked for, and everybody gets one."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from newsletter.errors import SendError
from newsletter.sending.pacing.sending_windows import (
    Hours,
    Window,
    next_open,
    parse_hours,
    parse_window,
)
from newsletter.sending.pacing.timetable import (
    ExistingBatch,
    PlannedBatch,
    Timetable,
    WarmUp,
    ZoneGroup,
    cut_batches,
    departure_times,
)

T = TypeVar("T")
START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)  # a Monday
ZONES = [
    "",
    "Mars/Olympus",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
]
NIGHT = Hours(time(22), time(7))
OFFICE = parse_window("mon-fri 08:00-18:00", place="")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def plan(
    timetable: Timetable,
    *people: tuple[str, int],
    start: datetime = START,
    batch_size: int = 1000,
    warm_up: WarmUp | None = None,
) -> list[list[PlannedBatch]]:
    groups = [ZoneGroup(zone, count, start) for zone, count in people]
    return cut_batches(timetable, groups, start=start, batch_size=batch_size, warm_up=warm_up)


def by_hour(slots: list[PlannedBatch]) -> dict[str, int]:
    taken: Counter[str] = Counter()
    for size, moment in slots:
        taken[f"{moment:%m-%d %H}"] += size
    return dict(taken)


def by_day(slots: list[PlannedBatch], zone: str = "UTC") -> dict[date, int]:
    taken: Counter[date] = Counter()
    for size, moment in slots:
        taken[moment.astimezone(ZoneInfo(zone)).date()] += size
    return dict(taken)


# ── What is asked ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"per_second": 0}, "per_second"),
        ({"per_second": -1.5}, "per_second"),
        ({"per_second": float("nan")}, "per_second"),
        ({"per_second": float("inf")}, "per_second"),
        ({"per_hour": 0}, "per_hour"),
        ({"per_day": -10}, "per_day"),
        ({"local_date": date(2026, 6, 1)}, "local_date"),
        ({"local_time": time(9), "local_date": date.max}, "local_date"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": ""}, "zone"),
    ],
)
def test_what_cannot_be_kept_is_refused(values: dict[str, Any], place: str) -> None:
    with pytest.raises(SendError) as raised:
        Timetable(**values)
    assert raised.value.place == place
    assert raised.value.hint


def test_hours_that_leave_no_time_are_refused_at_once() -> None:
    with pytest.raises(SendError, match="leave no time"):
        Timetable(quiet=Hours(time(7), time(19)), windows=(OFFICE,))


def test_a_warm_up_has_no_negative_volumes() -> None:
    with pytest.raises(SendError, match="-1"):
        WarmUp(date(2026, 6, 1), (50, -1))


@pytest.mark.parametrize(
    ("timetable", "by_zone"),
    [
        (Timetable(), False),
        (Timetable(per_second=5, per_hour=5, per_day=5, zone="Europe/Berlin"), False),
        (Timetable(local_time=time(0)), True),
        (Timetable(quiet=NIGHT), True),
        (Timetable(windows=(OFFICE,)), True),
    ],
)
def test_only_hours_tell_zones_apart(timetable: Timetable, by_zone: bool) -> None:
    assert timetable.by_zone is by_zone


@pytest.mark.parametrize(
    ("rate", "largest"), [(None, 1000), (500, 1000), (50, 500), (0.5, 5), (0.01, 1)]
)
def test_a_request_carries_no_more_than_ten_seconds_worth(rate: float | None, largest: int) -> None:
    assert Timetable(per_second=rate).largest(1000) == largest


def test_a_timetable_is_kept_as_operators_write_it() -> None:
    timetable = Timetable(
        per_second=50,
        per_day=20_000,
        local_time=time(0),
        local_date=date(2026, 3, 29),
        quiet=NIGHT,
        windows=(OFFICE,),
        zone="Europe/Berlin",
    )
    assert timetable.to_json() == {
        "per_second": 50,
        "per_day": 20_000,
        "local_time": "00:00",
        "local_date": "2026-03-29",
        "quiet": "22:00-07:00",
        "windows": ["mon-fri 08:00-18:00"],
        "zone": "Europe/Berlin",
    }


def test_an_empty_timetable_is_empty_json() -> None:
    assert Timetable().to_json() == {}
    assert Timetable.from_json({}) == Timetable()


def test_a_limit_that_this_version_does_not_know_is_not_dropped_in_silence() -> None:
    with pytest.raises(SendError, match="per_week"):
        Timetable.from_json({"per_week": 7})


# ── Without limits ─────────────────────────────────────────────────────────────────────


def test_without_limits_everything_leaves_at_once() -> None:
    assert plan(Timetable(), ("", 2500), ("Europe/Berlin", 0), ("Asia/Tokyo", 10)) == [
        [PlannedBatch(1000, START), PlannedBatch(1000, START), PlannedBatch(500, START)],
        [],
        [PlannedBatch(10, START)],
    ]


def test_nobody_means_no_batches() -> None:
    assert cut_batches(Timetable(), [], start=START, batch_size=1000) == []
    assert departure_times(Timetable(), [], start=START) == []


def test_a_group_waits_for_its_own_bound() -> None:
    groups = [ZoneGroup("", 5, after(60)), ZoneGroup("", 5, after(-60))]
    slots = cut_batches(Timetable(), groups, start=START, batch_size=10)
    assert slots == [[PlannedBatch(5, after(60))], [PlannedBatch(5, START)]]


def test_a_batch_has_somebody_in_it() -> None:
    with pytest.raises(SendError) as raised:
        plan(Timetable(), ("", 5), batch_size=0)
    assert raised.value.place == "batch_size"


# ── The rate ───────────────────────────────────────────────────────────────────────────


def test_the_rate_spaces_out_batches_over_all_groups() -> None:
    assert plan(Timetable(per_second=10), ("", 150), ("Asia/Tokyo", 150)) == [
        [PlannedBatch(100, START), PlannedBatch(50, after(10))],
        [PlannedBatch(100, after(15)), PlannedBatch(50, after(25))],
    ]


def test_an_idle_time_is_not_saved_up() -> None:
    groups = [ZoneGroup("", 100, START), ZoneGroup("", 200, after(3600))]
    first, second = cut_batches(Timetable(per_second=10), groups, start=START, batch_size=1000)
    assert first == [PlannedBatch(100, START)]
    assert second == [PlannedBatch(100, after(3600)), PlannedBatch(100, after(3610))]


def test_a_group_that_may_leave_goes_before_one_that_waits() -> None:
    groups = [ZoneGroup("", 20, after(15)), ZoneGroup("", 30, START)]
    first, second = cut_batches(Timetable(per_second=1), groups, start=START, batch_size=10)
    assert [slot.moment for slot in second] == [START, after(10), after(40)]
    assert [slot.moment for slot in first] == [after(20), after(30)]


@pytest.mark.parametrize("rate", [1e-300, 1e-6])
def test_a_pace_that_takes_years_is_refused(rate: float) -> None:
    assert plan(Timetable(per_second=rate), ("", 1)) == [[PlannedBatch(1, START)]]
    with pytest.raises(SendError, match="366 days"):
        plan(Timetable(per_second=rate), ("", 2_000))


# ── Hours and days ─────────────────────────────────────────────────────────────────────


def test_a_clock_hour_takes_no_more_than_its_limit() -> None:
    start = utc("2026-06-01 12:59")
    [slots] = plan(Timetable(per_hour=1500), ("", 4000), start=start)
    assert by_hour(slots) == {"06-01 12": 1500, "06-01 13": 1500, "06-01 14": 1000}
    assert [slot.size for slot in slots] == [1000, 500, 1000, 500, 1000]
    assert slots[2].moment == utc("2026-06-01 13:00")


def test_a_calendar_day_is_one_of_the_publication() -> None:
    timetable = Timetable(per_day=100, zone="America/New_York")
    [slots] = plan(timetable, ("Asia/Tokyo", 250), start=utc("2026-06-01 03:00"))
    assert [slot.moment for slot in slots] == [
        utc("2026-06-01 03:00"),  # still the day before in New York
        utc("2026-06-01 04:00"),
        utc("2026-06-02 04:00"),
    ]


def test_a_day_with_a_change_of_clocks_is_23_or_25_hours_long() -> None:
    timetable = Timetable(per_day=10, zone="Europe/Berlin")
    [spring] = plan(timetable, ("", 20), start=utc("2026-03-28 23:00"))
    assert [slot.moment for slot in spring] == [utc("2026-03-28 23:00"), utc("2026-03-29 22:00")]
    [autumn] = plan(timetable, ("", 20), start=utc("2026-10-24 22:00"))
    assert [slot.moment for slot in autumn] == [utc("2026-10-24 22:00"), utc("2026-10-25 23:00")]


def test_a_day_that_is_shown_again_after_midnight_is_over() -> None:
    timetable = Timetable(per_day=10, zone="America/St_Johns")  # in 2010 from 00:01 to 23:01
    [slots] = plan(timetable, ("", 20), start=utc("2010-11-07 02:31"))
    assert [slot.moment for slot in slots] == [utc("2010-11-07 02:31"), utc("2010-11-08 03:30")]


def test_limits_hold_together() -> None:
    timetable = Timetable(per_second=1, per_hour=1000, per_day=2500)
    [slots] = plan(timetable, ("", 3000), start=utc("2026-06-01 20:00"))
    assert by_hour(slots) == {
        "06-01 20": 1000,
        "06-01 21": 1000,
        "06-01 22": 500,
        "06-02 00": 500,
    }


def test_a_limit_that_takes_years_is_refused() -> None:
    with pytest.raises(SendError, match="366 days"):
        plan(Timetable(per_day=1), ("", 400))


# ── Warm-up ────────────────────────────────────────────────────────────────────────────


def test_a_warm_up_grows_day_by_day_and_then_ends() -> None:
    warm_up = WarmUp(date(2026, 6, 2), (50, 0, 100), used={date(2026, 6, 4): 30})
    [slots] = plan(Timetable(), ("", 500), start=utc("2026-06-02 12:00"), warm_up=warm_up)
    assert by_day(slots) == {date(2026, 6, 2): 50, date(2026, 6, 4): 70, date(2026, 6, 5): 380}


def test_days_before_a_warm_up_have_no_limit() -> None:
    warm_up = WarmUp(date(2026, 6, 2), (50,))
    assert plan(Timetable(), ("", 500), warm_up=warm_up) == [[PlannedBatch(500, START)]]


def test_a_day_that_others_have_used_up_is_left_to_them() -> None:
    warm_up = WarmUp(date(2026, 6, 1), (50, 100), used={date(2026, 6, 1): 80})
    [slots] = plan(Timetable(), ("", 90), warm_up=warm_up)
    assert slots == [PlannedBatch(90, utc("2026-06-02 00:00"))]


# ── Local time ─────────────────────────────────────────────────────────────────────────


def test_everybody_gets_it_at_nine_oclock_of_a_day() -> None:
    timetable = Timetable(local_time=time(9), local_date=date(2026, 6, 2), zone="Europe/Berlin")
    people = [(zone, 1) for zone in ("", "America/New_York", "Pacific/Kiritimati")]
    slots = plan(timetable, *people)
    assert [slot[0].moment for slot in slots] == [
        utc("2026-06-02 07:00"),
        utc("2026-06-02 13:00"),
        utc("2026-06-01 19:00"),
    ]


def test_a_local_time_that_is_past_means_at_once() -> None:
    timetable = Timetable(local_time=time(9), local_date=date(2026, 6, 1))
    slots = plan(timetable, ("Europe/Berlin", 1), ("America/New_York", 1))
    assert [slot[0].moment for slot in slots] == [START, utc("2026-06-01 13:00")]


def test_without_a_date_it_is_the_next_such_time() -> None:
    slots = plan(Timetable(local_time=time(14)), ("Europe/Berlin", 1), ("Europe/Helsinki", 1))
    assert [slot[0].moment for slot in slots] == [START, utc("2026-06-02 11:00")]


@pytest.mark.parametrize(
    ("zone", "day", "at", "moment"),
    [
        ("Europe/Berlin", date(2026, 3, 29), time(2, 30), "2026-03-29 01:30"),
        ("Europe/Berlin", date(2026, 10, 25), time(2, 30), "2026-10-25 00:30"),
        ("America/New_York", date(2026, 3, 8), time(2, 30), "2026-03-08 07:30"),
        ("America/New_York", date(2026, 11, 1), time(1, 30), "2026-11-01 05:30"),
        ("Australia/Lord_Howe", date(2026, 10, 4), time(2, 15), "2026-10-03 15:45"),
        ("Australia/Lord_Howe", date(2026, 4, 5), time(1, 45), "2026-04-04 14:45"),
    ],
)
def test_a_local_time_that_is_skipped_or_repeated_follows_rfc_5545(
    zone: str, day: date, at: time, moment: str
) -> None:
    start = utc(moment) - timedelta(hours=20)
    for local_date in (day, None):
        timetable = Timetable(local_time=at, local_date=local_date)
        assert plan(timetable, (zone, 1), start=start) == [[PlannedBatch(1, utc(moment))]]


def test_a_date_that_is_years_away_is_refused() -> None:
    with pytest.raises(SendError, match="366 days"):
        plan(Timetable(local_time=time(9), local_date=date(2030, 1, 1)), ("", 1))


# ── Open hours ─────────────────────────────────────────────────────────────────────────


def test_where_it_is_night_people_get_it_in_the_morning() -> None:
    slots = plan(Timetable(quiet=NIGHT), ("Pacific/Kiritimati", 5), ("Europe/Berlin", 5))
    assert [slot[0].moment for slot in slots] == [utc("2026-06-01 17:00"), START]


def test_a_slow_send_stops_for_the_night() -> None:
    timetable = Timetable(per_second=1, quiet=NIGHT)
    [slots] = plan(timetable, ("Europe/Berlin", 40), start=utc("2026-06-01 19:59:35"))
    assert [slot.moment for slot in slots] == [
        utc("2026-06-01 19:59:35"),
        utc("2026-06-01 19:59:45"),
        utc("2026-06-01 19:59:55"),
        utc("2026-06-02 05:00:00"),
    ]


def test_a_limit_that_ends_at_night_goes_on_in_the_morning() -> None:
    timetable = Timetable(per_hour=10, quiet=NIGHT)
    [slots] = plan(timetable, ("Europe/Berlin", 20), start=utc("2026-06-01 19:30"))
    assert [slot.moment for slot in slots] == [utc("2026-06-01 19:30"), utc("2026-06-02 05:00")]


# ── Batches that are cut already ───────────────────────────────────────────────────────


def test_a_new_pace_counts_from_its_start() -> None:
    lots = [
        ExistingBatch("", 100, START),
        ExistingBatch("", 50, START),
        ExistingBatch("Asia/Tokyo", 100, START),
    ]
    moments = departure_times(Timetable(per_second=10), lots, start=after(1000))
    assert moments == [after(1000), after(1010), after(1015)]


def test_lots_of_all_zones_keep_their_order_when_nothing_tells_them_apart() -> None:
    lots = [
        ExistingBatch(zone, 10, START)
        for zone in ("Asia/Tokyo", "", "Europe/Berlin", "", "Asia/Tokyo")
    ]
    assert departure_times(Timetable(per_second=1), lots, start=START) == [
        after(10 * n) for n in range(5)
    ]


def test_a_lot_stays_whole_and_waits_for_an_hour_with_room() -> None:
    lots = [ExistingBatch("", size, START) for size in (600, 600, 400, 1000)]
    moments = departure_times(Timetable(per_hour=1000), lots, start=START)
    assert moments == [START, after(3600), after(3600), after(7200)]


def test_a_lot_above_the_limit_takes_the_following_hours_too() -> None:
    lots = [ExistingBatch("", size, START) for size in (100, 700, 300, 300, 700)]
    moments = departure_times(Timetable(per_hour=300), lots, start=START)
    # 700 need the hours 1, 2 and a third of 3; 300 do not fit in there.
    assert moments == [START, after(3600), after(4 * 3600), after(5 * 3600), after(6 * 3600)]


def test_a_lot_waits_for_a_day_of_the_warm_up_that_is_large_enough() -> None:
    warm_up = WarmUp(START.date(), (50, 100, 200))
    lots = [
        ExistingBatch("", 120, START),
        ExistingBatch("", 80, START),
        ExistingBatch("", 500, START),
    ]
    moments = departure_times(Timetable(), lots, start=START, warm_up=warm_up)
    assert moments == [utc("2026-06-03 00:00"), utc("2026-06-03 00:00"), utc("2026-06-04 00:00")]


def test_lots_of_another_zone_pass_by_those_that_sleep() -> None:
    lots = [
        ExistingBatch("Pacific/Kiritimati", 10, START),
        ExistingBatch("Europe/Berlin", 10, START),
    ]
    moments = departure_times(Timetable(quiet=NIGHT), lots, start=START)
    assert moments == [utc("2026-06-01 17:00"), START]


def test_after_a_pause_nobody_waits_another_day_for_an_hour_that_has_come() -> None:
    timetable, lots = Timetable(local_time=time(9)), [ExistingBatch("Europe/Berlin", 10, START)]
    resumed = utc("2026-06-02 09:00")  # 11:00 in Berlin; the send started the day before
    assert departure_times(timetable, lots, start=resumed) == [utc("2026-06-03 07:00")]
    assert departure_times(timetable, lots, start=resumed, began=START) == [resumed]
    assert departure_times(timetable, lots, start=after(5), began=START) == [
        utc("2026-06-02 07:00")
    ]


# ── Rules that always hold ─────────────────────────────────────────────────────────────

times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
hours = st.tuples(times, times).filter(lambda ends: ends[0] != ends[1]).map(lambda e: Hours(*e))
windows = st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), hours)
starts = st.builds(
    lambda day, minute: datetime(*day, tzinfo=UTC) + timedelta(minutes=minute),
    st.sampled_from([(2026, 3, 28), (2026, 4, 4), (2026, 6, 1), (2026, 10, 24), (2026, 10, 31)]),
    st.integers(0, 2 * 24 * 60),
)
bounds = st.none() | st.integers(0, 3 * 24 * 60)


@st.composite
def timetables(draw: st.DrawFn) -> Timetable:
    local_time = draw(st.none() | times)
    values: dict[str, Any] = {
        "per_second": draw(st.none() | st.floats(0.02, 1000)),
        "per_hour": draw(st.none() | st.integers(10, 2000)),
        "per_day": draw(st.none() | st.integers(50, 5000)),
        "local_time": local_time,
        "local_date": local_time
        and draw(st.none() | st.dates(date(2026, 3, 25), date(2026, 12, 1))),
        "zone": draw(
            st.sampled_from([zone for zone in ZONES if "/" in zone and "Mars" not in zone])
        ),
    }
    open_hours: dict[str, Any] = {
        "quiet": draw(st.none() | hours),
        "windows": tuple(draw(st.lists(windows, max_size=2))),
    }
    try:
        return Timetable(**values, **open_hours)
    except SendError:  # hours that leave no time
        return Timetable(**values)


@st.composite
def warm_ups(draw: st.DrawFn) -> WarmUp:
    volumes = draw(st.lists(st.integers(0, 300), max_size=5))
    begins = draw(st.dates(date(2026, 3, 28), date(2026, 6, 2)))
    used = draw(st.dictionaries(st.integers(0, 5), st.integers(0, 300), max_size=3))
    return WarmUp(
        begins, tuple(volumes), {begins + timedelta(days=n): count for n, count in used.items()}
    )


def within_a_year(made: Callable[[], list[T]]) -> list[T]:
    """What is made, or another example where narrow hours and low limits take too long."""
    try:
        return made()
    except SendError as error:
        assume("366 days" not in error.message)
        raise


def check_hours(timetable: Timetable, zone: str, moment: datetime) -> None:
    clock = ZoneInfo(zone if "/" in zone and "Mars" not in zone else timetable.zone)
    wall = moment.astimezone(clock)
    assert next_open(moment, clock, quiet=timetable.quiet, windows=timetable.windows) == moment
    if timetable.quiet:
        start, end = timetable.quiet.start, timetable.quiet.end
        night = start <= wall.time() < end if start < end else not end <= wall.time() < start
        assert not night
    if timetable.local_date and timetable.local_time:
        assert wall.replace(tzinfo=None) >= datetime.combine(
            timetable.local_date, timetable.local_time
        )


def check_rate(timetable: Timetable, leaving: list[tuple[datetime, int]]) -> None:
    if timetable.per_second is None:
        return
    for (moment, size), (later, _) in pairwise(leaving):
        gap = timedelta(seconds=size / timetable.per_second)
        assert later - moment >= gap - timedelta(microseconds=1)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    timetables(),
    st.lists(st.tuples(st.sampled_from(ZONES), st.integers(0, 1500), bounds), max_size=6),
    starts,
    st.integers(20, 1000),
    st.none() | warm_ups(),
)
def test_a_plan_keeps_all_rules(
    timetable: Timetable,
    people: list[tuple[str, int, int | None]],
    start: datetime,
    batch_size: int,
    warm_up: WarmUp | None,
) -> None:
    groups = [
        ZoneGroup(zone, count, start + timedelta(minutes=bound or -60))
        for zone, count, bound in people
    ]
    plan = within_a_year(
        lambda: cut_batches(timetable, groups, start=start, batch_size=batch_size, warm_up=warm_up)
    )
    assert [sum(slot.size for slot in slots) for slots in plan] == [g.people for g in groups]
    for group, slots in zip(groups, plan, strict=True):
        assert [slot.moment for slot in slots] == sorted(slot.moment for slot in slots)
        for size, moment in slots:
            assert 1 <= size <= timetable.largest(batch_size)
            assert moment >= max(start, group.not_before)
            check_hours(timetable, group.zone, moment)
    leaving = sorted(slot for slots in plan for slot in slots)
    check_rate(timetable, sorted((moment, size) for size, moment in leaving))
    if timetable.per_hour:
        assert all(taken <= timetable.per_hour for taken in by_hour(leaving).values())
    for day, taken in by_day(leaving, timetable.zone).items():
        assert taken <= (timetable.per_day or taken)
        if warm_up:
            assert taken + warm_up.used.get(day, 0) <= warm_up.volume(day)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    timetables(),
    st.lists(
        st.tuples(st.sampled_from(ZONES), st.integers(1, 900), bounds), min_size=1, max_size=20
    ),
    starts,
    st.none() | warm_ups(),
)
def test_batches_that_are_cut_keep_all_rules_that_they_can(
    timetable: Timetable,
    sizes: list[tuple[str, int, int | None]],
    start: datetime,
    warm_up: WarmUp | None,
) -> None:
    lots = [
        ExistingBatch(zone, size, start + timedelta(minutes=bound or -60))
        for zone, size, bound in sizes
    ]
    moments = within_a_year(lambda: departure_times(timetable, lots, start=start, warm_up=warm_up))
    for lot, moment in zip(lots, moments, strict=True):
        assert moment >= max(start, lot.not_before)
        check_hours(timetable, lot.zone, moment)
    for zone in ZONES:
        of_zone = [moment for lot, moment in zip(lots, moments, strict=True) if lot.zone == zone]
        assert of_zone == sorted(of_zone)
    check_rate(timetable, sorted((m, lot.size) for lot, m in zip(lots, moments, strict=True)))
    leaving = [PlannedBatch(lot.size, moment) for lot, moment in zip(lots, moments, strict=True)]
    hourly = timetable.per_hour
    if hourly and max(lot.size for lot in lots) <= hourly:
        assert all(taken <= hourly for taken in by_hour(leaving).values())
    daily = timetable.per_day
    for day, taken in by_day(leaving, timetable.zone).items():
        if daily and max(lot.size for lot in lots) <= daily:
            assert taken <= daily
        if warm_up:
            assert taken + warm_up.used.get(day, 0) <= warm_up.volume(day)


@settings(deadline=None)
@given(timetables())
def test_a_timetable_comes_back_from_json_whole(timetable: Timetable) -> None:
    assert Timetable.from_json(json.loads(json.dumps(timetable.to_json()))) == timetable


@pytest.mark.slow
@settings(deadline=None)
@given(timetables(), st.lists(st.integers(1, 900), min_size=1, max_size=20), starts)
def test_the_same_timetable_gives_cut_batches_the_same_moments(
    timetable: Timetable, people: list[int], start: datetime
) -> None:
    groups = [ZoneGroup("", count, start) for count in people]
    plan = within_a_year(lambda: cut_batches(timetable, groups, start=start, batch_size=100))
    slots = [slot for of_group in plan for slot in of_group]
    lots = [ExistingBatch("", slot.size, start) for slot in slots]
    assert departure_times(timetable, lots, start=start) == [slot.moment for slot in slots]


# ── Size ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_million_people_at_one_a_second_stop_for_their_nights() -> None:
    timetable = Timetable(per_second=1, quiet=parse_hours("22:00-07:00", place="--quiet"))
    slots = plan(timetable, *((zone, 250_000) for zone in ZONES[2:]))
    assert [sum(slot.size for slot in of_zone) for of_zone in slots] == [250_000] * 4
    assert len({slot.moment for of_zone in slots for slot in of_zone}) == 100_000
