"""What operators write as hours, and when such hours are on the clocks of the world."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import SendError
from newsletter.sending.pacing.sending_windows import (
    EVERY_DAY,
    Hours,
    Window,
    find_zone,
    local_moment,
    next_open,
    parse_hours,
    parse_time,
    parse_window,
)

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
KIRITIMATI = ZoneInfo("Pacific/Kiritimati")
ZONES = [
    BERLIN,
    NEW_YORK,
    LORD_HOWE,
    KIRITIMATI,
    ZoneInfo("UTC"),
    ZoneInfo("Africa/Cairo"),  # the clocks change at midnight
    ZoneInfo("America/Nuuk"),  # and here an hour before it
    ZoneInfo("Asia/Kathmandu"),
]
NIGHT = Hours(time(22), time(7))

times = st.builds(time, st.integers(0, 23), st.integers(0, 59))
some_hours = (
    st.tuples(times, times).filter(lambda ends: ends[0] != ends[1]).map(lambda e: Hours(*e))
)
some_windows = st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), some_hours)
# Around the changes of the clocks in 2026, and in between.
moments = st.builds(
    lambda day, minute: datetime(*day, tzinfo=UTC) + timedelta(minutes=minute),
    st.sampled_from([(2026, 3, 7), (2026, 3, 28), (2026, 4, 4), (2026, 4, 23), (2026, 10, 24)]),
    st.integers(0, 3 * 24 * 60),
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opens(text: str, zone: ZoneInfo, quiet: str = "", *windows: str) -> str:
    """The first open moment from a moment in UTC on, as a text in UTC."""
    moment = next_open(
        utc(text),
        zone,
        quiet=parse_hours(quiet, place="--quiet") if quiet else None,
        windows=[parse_window(window, place="--window") for window in windows],
    )
    return f"{moment:%Y-%m-%d %H:%M}"


def shows(hours: Hours, wall: datetime) -> bool:
    """Whether a clock with this face is within daily hours: the rule, told once more."""
    if hours.start < hours.end:
        return hours.start <= wall.time() < hours.end
    return wall.time() >= hours.start or wall.time() < hours.end


def in_window(window: Window, wall: datetime) -> bool:
    of_yesterday = window.hours.end < window.hours.start and wall.time() < window.hours.end
    day = (wall.weekday() - of_yesterday) % 7
    return day in window.days and shows(window.hours, wall)


# ── Texts ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"), [("07:00", time(7)), (" 7:05 ", time(7, 5)), ("23:59", time(23, 59))]
)
def test_a_time_is_hours_and_minutes(text: str, value: time) -> None:
    assert parse_time(text, place="--at") == value


@pytest.mark.parametrize("text", ["", "25:00", "24:00", "7", "07:60", "7 am", "٠٧:٠٠", "07:00:00"])
def test_any_other_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(SendError, match="not a time of day") as raised:
        parse_time(text, place=f"--at {text}")
    assert raised.value.place == f"--at {text}"
    assert "07:00" in str(raised.value.hint)


def test_hours_may_cross_midnight() -> None:
    assert parse_hours("22:00-07:00", place="--quiet") == NIGHT
    assert parse_hours("8:00 – 18:00", place="--quiet") == Hours(time(8), time(18))


@pytest.mark.parametrize("text", ["", "22:00", "22:00-", "25:00-07:00", "1:00-2:00-3:00"])
def test_other_hours_are_refused(text: str) -> None:
    with pytest.raises(SendError) as raised:
        parse_hours(text, place=f"--quiet {text}")
    assert raised.value.place == f"--quiet {text}"
    assert raised.value.hint


def test_hours_without_length_are_refused() -> None:
    with pytest.raises(SendError, match="not a range of hours"):
        parse_hours("07:00-07:00", place="--quiet")
    with pytest.raises(SendError, match="not a range of hours"):
        Hours(time(7), time(7))


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri 08:00-18:00", {0, 1, 2, 3, 4}),
        ("sat,sun 08:00-18:00", {5, 6}),
        ("Fri-Mon 08:00-18:00", {4, 5, 6, 0}),
        ("MONDAY, thurs - sat 08:00-18:00", {0, 3, 4, 5}),
        ("wed 08:00-18:00", {2}),
        ("08:00-18:00", EVERY_DAY),
    ],
)
def test_a_window_is_days_and_hours(text: str, days: set[int]) -> None:
    assert parse_window(text, place="") == Window(frozenset(days), Hours(time(8), time(18)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon-fri",
        "mo-fr 08:00-18:00",
        "montag 08:00-18:00",
        "mon-wed-fri 08:00-18:00",
        "mon,,tue 08:00-18:00",
        "mon- 08:00-18:00",
        "mon 8-18",
        "weekdays 08:00-18:00",
    ],
)
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(SendError) as raised:
        parse_window(text, place=f"--window {text}")
    assert raised.value.place == f"--window {text}"
    assert raised.value.hint


@pytest.mark.parametrize("days", [set(), {7}, {-1, 0}])
def test_a_window_has_days_of_the_week(days: set[int]) -> None:
    with pytest.raises(SendError):
        Window(frozenset(days), NIGHT)


@pytest.mark.parametrize(
    "text",
    [
        "mon-fri 08:00-18:00",
        "sat,sun 10:00-12:00",
        "08:00-18:00",
        "mon,wed 09:05-10:00",
        "fri-mon 22:00-07:00",
        "mon,thu-sat 10:00-12:00",
    ],
)
def test_a_window_is_shown_as_it_is_written(text: str) -> None:
    assert str(parse_window(text, place="")) == text


@given(some_hours, some_windows)
def test_texts_come_back_whole(hours: Hours, window: Window) -> None:
    assert parse_hours(str(hours), place="") == hours
    assert parse_window(str(window), place="") == window


@given(st.text() | st.from_regex(r"[a-z,-]{0,12} ?[0-9:]{0,5}-[0-9:]{0,5}", fullmatch=True))
def test_no_text_makes_anything_but_a_window_or_an_error(text: str) -> None:
    try:
        assert parse_window(text, place=text).days
    except SendError as error:
        assert error.place == text
        assert error.hint


# ── Moments ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("day", "at", "zone", "moment"),
    [
        (date(2026, 6, 1), time(9), BERLIN, "2026-06-01 07:00"),
        (date(2026, 3, 29), time(2, 30), BERLIN, "2026-03-29 01:30"),  # skipped: 03:30 in summer
        (date(2026, 10, 25), time(2, 30), BERLIN, "2026-10-25 00:30"),  # twice: the first
        (date(2026, 3, 8), time(2, 30), NEW_YORK, "2026-03-08 07:30"),
        (date(2026, 11, 1), time(1, 30), NEW_YORK, "2026-11-01 05:30"),
        (date(2026, 10, 4), time(2, 15), LORD_HOWE, "2026-10-03 15:45"),  # half an hour skipped
        (date(2026, 4, 5), time(1, 45), LORD_HOWE, "2026-04-04 14:45"),
        (date(2026, 1, 1), time(0), KIRITIMATI, "2025-12-31 10:00"),
    ],
)
def test_a_time_of_a_day_follows_rfc_5545(day: date, at: time, zone: ZoneInfo, moment: str) -> None:
    assert local_moment(day, at, zone) == utc(moment)
    assert local_moment(day, at.replace(fold=1), zone) == utc(moment)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "Europe", "\0", "ü" * 300])
def test_a_name_that_is_no_zone_finds_none(name: str) -> None:
    assert find_zone(name) is None


def test_a_zone_is_found_by_its_name() -> None:
    assert find_zone("Europe/Berlin") is BERLIN


# ── Open hours ─────────────────────────────────────────────────────────────────────────


def test_without_hours_everything_is_open() -> None:
    assert opens("2026-06-01 03:21", BERLIN) == "2026-06-01 03:21"


@pytest.mark.parametrize(
    ("moment", "opening"),
    [
        ("2026-06-01 19:59", "2026-06-01 19:59"),
        ("2026-06-01 20:00", "2026-06-02 05:00"),  # 22:00 in Berlin
        ("2026-06-02 04:59", "2026-06-02 05:00"),
        ("2026-06-02 05:00", "2026-06-02 05:00"),
    ],
)
def test_quiet_hours_are_waited_out(moment: str, opening: str) -> None:
    assert opens(moment, BERLIN, "22:00-07:00") == opening


def test_one_moment_is_night_here_and_day_there() -> None:
    assert opens("2026-06-01 12:00", KIRITIMATI, "22:00-07:00") == "2026-06-01 17:00"
    assert opens("2026-06-01 12:00", NEW_YORK, "22:00-07:00") == "2026-06-01 12:00"


def test_windows_are_waited_for() -> None:
    weekend = "2026-06-06 10:00"
    assert opens(weekend, BERLIN, "", "mon-fri 08:00-18:00") == "2026-06-08 06:00"
    both = ("mon-fri 08:00-18:00", "sat 13:00-14:00")
    assert opens(weekend, BERLIN, "", *both) == "2026-06-06 11:00"


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    assert opens("2026-06-06 00:00", ZoneInfo("UTC"), "", "fri 22:00-02:00") == "2026-06-06 00:00"
    assert opens("2026-06-05 00:00", ZoneInfo("UTC"), "", "fri 22:00-02:00") == "2026-06-05 22:00"


def test_quiet_hours_cut_a_piece_out_of_a_window() -> None:
    quiet, window = "12:00-14:00", "08:00-18:00"
    assert opens("2026-06-01 10:30", BERLIN, quiet, window) == "2026-06-01 12:00"
    assert opens("2026-06-01 17:00", BERLIN, quiet, window) == "2026-06-02 06:00"


@pytest.mark.parametrize(
    ("quiet", "windows"),
    [("07:00-19:00", ["08:00-18:00"]), ("00:00-23:59", ["mon 12:00-12:01"])],
)
def test_hours_that_leave_no_time_are_an_error(quiet: str, windows: list[str]) -> None:
    with pytest.raises(SendError, match="these hours leave no time for sending") as raised:
        opens("2026-06-01 10:00", BERLIN, quiet, *windows)
    assert quiet in str(raised.value.place)


@pytest.mark.parametrize(
    ("moment", "zone", "quiet", "opening"),
    [
        # Nights that are an hour shorter, longer, or end at a time that does not exist.
        ("2026-03-28 22:00", BERLIN, "22:00-07:00", "2026-03-29 05:00"),
        ("2026-10-24 21:00", BERLIN, "22:00-07:00", "2026-10-25 06:00"),
        ("2026-03-28 22:00", BERLIN, "22:00-02:30", "2026-03-29 01:30"),
        ("2026-03-29 01:10", BERLIN, "22:00-02:30", "2026-03-29 01:30"),
        ("2026-03-08 05:00", NEW_YORK, "22:00-02:30", "2026-03-08 07:30"),
        ("2026-10-03 14:00", LORD_HOWE, "22:00-02:15", "2026-10-03 15:45"),
        # 02:30 comes twice: quiet ends at the first, and what the clock shows then is quiet again.
        ("2026-10-24 21:00", BERLIN, "22:00-02:30", "2026-10-25 00:30"),
        ("2026-10-25 00:59", BERLIN, "22:00-02:30", "2026-10-25 00:59"),
        ("2026-10-25 01:00", BERLIN, "22:00-02:30", "2026-10-25 01:30"),
        ("2026-04-04 15:00", LORD_HOWE, "22:00-01:45", "2026-04-04 15:15"),
    ],
)
def test_nights_in_which_the_clocks_change(
    moment: str, zone: ZoneInfo, quiet: str, opening: str
) -> None:
    assert opens(moment, zone, quiet) == opening


@pytest.mark.parametrize(
    ("moment", "window", "opening"),
    [
        ("2026-03-28 23:00", "02:30-18:00", "2026-03-29 01:30"),  # begins at 03:30 in summer
        ("2026-03-28 23:00", "02:10-02:50", "2026-03-30 00:10"),  # is never shown that day
        ("2026-03-29 01:00", "01:00-02:30", "2026-03-29 23:00"),  # ends as the clocks change
        ("2026-10-24 22:00", "02:10-02:50", "2026-10-25 00:10"),
        ("2026-10-25 01:10", "02:10-02:50", "2026-10-26 01:10"),  # of two, the first counts
    ],
)
def test_windows_on_days_on_which_the_clocks_change(moment: str, window: str, opening: str) -> None:
    assert opens(moment, BERLIN, "", window) == opening


def test_clocks_that_are_put_back_over_midnight_show_yesterday_again() -> None:
    zone = ZoneInfo("America/St_Johns")  # until 2011 from 00:01 to 23:01
    assert opens("2010-11-07 02:31", zone, "20:00-23:30") == "2010-11-07 03:00"


def test_clocks_that_skip_midnight_begin_the_day_late() -> None:
    zone = ZoneInfo("America/Toronto")  # in 1919 from 23:30 to 00:30
    assert opens("1919-03-31 04:35", zone, "12:00-23:45") == "1919-03-31 04:45"


@given(moments, st.sampled_from(ZONES), st.none() | some_hours, st.lists(some_windows, max_size=3))
def test_an_opening_is_open_on_the_clock_and_never_before(
    moment: datetime, zone: ZoneInfo, quiet: Hours | None, windows: list[Window]
) -> None:
    try:
        opening = next_open(moment, zone, quiet=quiet, windows=windows)
    except SendError:
        opening = moment + timedelta(days=12)  # all of this must be closed, then
    else:
        wall = opening.astimezone(zone)
        assert opening >= moment
        assert not (quiet and shows(quiet, wall))
        assert not windows or any(in_window(window, wall) for window in windows)
        assert next_open(opening, zone, quiet=quiet, windows=windows) == opening
    # Nothing open was passed over, apart from days of changing clocks, which are told above.
    step = timedelta(minutes=30)
    for before in (moment + n * step for n in range(int((opening - moment) / step))):
        wall = before.astimezone(zone)
        midnight, next_midnight = (
            local_moment(wall.date() + timedelta(days=n), time(), zone) for n in (0, 1)
        )
        if next_midnight - midnight == timedelta(days=1):
            closed = windows and not any(in_window(window, wall) for window in windows)
            assert closed or (quiet and shows(quiet, wall))


@given(
    st.tuples(moments, moments).map(sorted),
    st.sampled_from(ZONES),
    some_hours,
)
def test_whoever_asks_later_is_not_served_earlier(
    pair: list[datetime], zone: ZoneInfo, quiet: Hours
) -> None:
    first, second = (next_open(moment, zone, quiet=quiet, windows=()) for moment in pair)
    assert first <= second
    assert second == first or first < pair[1]
