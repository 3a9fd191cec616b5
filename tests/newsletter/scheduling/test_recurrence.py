"""When a schedule is due: against a walk along the wall clock, and as properties."""

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.errors import SendError
from newsletter.scheduling.recurrence import (
    Occurrence,
    find_zone,
    first,
    occurrences,
    parse,
    parse_dates,
)
from tests.newsletter.scheduling.calendar_walk import RULES, walked

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (
    "Europe/Berlin America/New_York America/Sao_Paulo Australia/Sydney Australia/Lord_Howe "
    "Asia/Kathmandu Pacific/Kiritimati"
).split()


def due(rule: str, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    found = occurrences(parse(rule), zone, after=begin)
    return [one.due for one in takewhile(lambda one: one.due <= end, found)]


#: In 2017 São Paulo's clocks skipped midnight.
YEARS = [*((zone, 2026) for zone in ZONES), ("America/Sao_Paulo", 2017)]


@pytest.mark.slow
@pytest.mark.parametrize(("zone", "year"), YEARS)
def test_two_years_are_as_a_walk_along_the_wall_clock_finds_them(zone: str, year: int) -> None:
    begin, end = (datetime(each, 1, 1, tzinfo=UTC) for each in (year, year + 2))
    expected = walked(ZoneInfo(zone), begin, end, *RULES)
    for rule in RULES:
        assert due(rule, ZoneInfo(zone), begin, end) == expected[rule], rule


def at(rule: str, zone: ZoneInfo, after: str, count: int = 1) -> list[Occurrence]:
    begin = datetime.fromisoformat(after).replace(tzinfo=zone)
    return first(occurrences(parse(rule), zone, after=begin), count)


def test_a_time_that_the_clocks_skip_is_due_at_the_first_moment_after_the_gap() -> None:
    [berlin] = at("daily 02:30", BERLIN, "2026-03-28T12:00")
    assert berlin.due == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert f"{berlin.wall:%Y-%m-%d %H:%M}" == "2026-03-29 02:30"
    assert berlin.note == "the clocks skip 02:30: it is due at 03:00"
    [island] = at("daily 02:15", ZoneInfo("Australia/Lord_Howe"), "2026-10-03T12:00")
    assert island.note == "the clocks skip 02:15: it is due at 02:30"
    [midnight] = at("daily 00:00", ZoneInfo("America/Sao_Paulo"), "2017-10-14T12:00")
    assert midnight.note == "the clocks skip 00:00: it is due at 01:00"
    assert midnight.due == datetime(2017, 10, 15, 3, 0, tzinfo=UTC)
    # On Samoa the whole 30th of December was left out.
    [day] = at("2011-12-30 12:00", ZoneInfo("Pacific/Apia"), "2011-12-29T12:00")
    assert day.due == datetime(2011, 12, 30, 10, 0, tzinfo=UTC)


def test_a_time_that_the_clocks_show_twice_is_due_once_at_the_first() -> None:
    one, following = at("daily 02:30", BERLIN, "2026-10-24T12:00", 2)
    assert one.due == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert one.note == "the clocks show 02:30 twice: the first time counts"
    assert following.due == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    # Asked between the two, the first is past and the second is none.
    between = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    assert first(occurrences(parse("daily 02:30"), BERLIN, after=between), 1) == [following]


def test_several_times_in_one_gap_are_due_together_once() -> None:
    found = at("0 * * * *", BERLIN, "2026-03-29T00:30", 3)
    assert [one.due.hour for one in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("written", "cron"),
    [
        ("daily 07:00", "0 7 * * *"),
        ("Every day at 7:00", "0 7 * * *"),
        ("weekdays 07:00", "0 7 * * 1-5"),
        ("MON-FRI  07:00", "0 7 * * 1-5"),
        ("sat,sun 10:30", "30 10 * * 0,6"),
        ("fri-mon 10:30", "30 10 * * 0,1,5,6"),
        ("every tuesday at 09:00", "0 9 * * 2"),
        ("first tuesday 09:00", "0 9 * * 2#1"),
        ("3rd sunday at 09:00", "0 9 * * 0#3"),
        ("last friday 16:00", "0 16 * * 5L"),
        ("last day 18:00", "0 18 L * *"),
        ("last weekday 18:00", "0 18 LW * *"),
        ("day 15 09:00", "0 9 15 * *"),
        ("1st 09:00", "0 9 1 * *"),
        ("0 7 * * tue", "0 7 * * tue"),
    ],
)
def test_words_mean_what_they_say(written: str, cron: str) -> None:
    assert parse(written).cron == cron


def test_days_of_the_week_count_as_cron_counts_them() -> None:
    """0 and 7 are Sunday, 1 is Monday: not as APScheduler counts, where 1 is Tuesday."""
    for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")):
        [numbered] = at(f"0 9 * * {number}", BERLIN, "2026-05-01T12:00")
        [named] = at(f"0 9 * * {name}", BERLIN, "2026-05-01T12:00")
        assert numbered.due == named.due
        assert f"{numbered.wall:%a}".lower() == name


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("", "no time of day", "first tuesday 09:00"),
        ("monday", "no time of day", "mon-fri 07:00"),
        ("sunny 07:00", "not days of the week", "daily 07:00"),
        ("daily 25:00", "not a time of day", "07:00"),
        ("first mon-fri 09:00", "more than one day", "first tuesday"),
        ("day 32 09:00", "no month has this day", "day 15"),
        ("* 7 * * *", "more than once an hour", "0 7 * * *"),
        ("*/5 * * * *", "more than once an hour", "0 * * * *"),
        ("0 9 1-7 * tue", "days of the month and days of the week", "tue#1"),
        ("0 9 * * 8", "day-of-week", "0 is Sunday"),
        ("0 25 * * *", "hour", "Minute, hour"),
        ("0 9 31 2 *", "day-of-month", "Minute, hour"),
        ("2026-02-30 09:00", "not a date and a time", "2026-12-01 09:00"),
        ("2026-12-01", "a time of day without a zone", "2026-12-01 09:00"),
        (
            "2026-12-01T09:00+01:00",
            "a time of day without a zone",
            "the time zone has a field of its own",
        ),
        ("9999-12-31 23:30", "the year 9999 is not supported", "from 1970 to 2199"),
        ("0001-01-01 00:00", "the year 1 is not supported", "from 1970 to 2199"),
        ("day ٣ 09:00", "not days of the week", "day 15"),
        ("0 9 ٣ * *", "day-of-month", "Minute, hour"),
        ("٣ 9 * * *", "more than once an hour", "0 9 * * *"),
        ("0 9 * * * " * 20, "no time of day", "daily 07:00"),
    ],
)
def test_what_says_no_time_is_refused_with_what_to_write(
    written: str, message: str, hint: str
) -> None:
    with pytest.raises(SendError) as caught:
        parse(written, place="when")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert (caught.value.place or "").startswith("when")


def test_unknown_zones_and_days_are_refused() -> None:
    for name in ("Europe/Atlantis", "", "../etc/passwd", "Europe"):
        with pytest.raises(SendError, match="there is no time zone"):
            find_zone(name)
    assert parse_dates("2026-12-25, 2026-12-26 # feast\n\n# more\n2026-12-25\n") == [
        date(2026, 12, 25),
        date(2026, 12, 26),
    ]
    with pytest.raises(SendError, match=r"holidays\.txt:2") as caught:
        parse_dates("2026-12-25\n26.12.2026", place="holidays.txt")
    assert "“26.12.2026” is not a date" in caught.value.message
    with pytest.raises(SendError, match="more than 1,000"):
        parse_dates("\n".join(str(date(2026, 1, 1) + timedelta(n)) for n in range(1001)))


def test_a_rule_says_itself_in_words() -> None:
    assert parse("first tuesday 09:00").description == "At 09:00 on the first Tuesday of the month"
    assert parse("0 7 * * mon-fri").description == "At 07:00 on Monday through Friday"
    assert parse("2026-12-01 09:00").description == "Once, on 1 December 2026 at 09:00"


ANY_ZONE = st.sampled_from([ZoneInfo(name) for name in (*ZONES, "UTC", "Africa/Cairo")])
ANY_MOMENT = st.integers(800_000_000, 2_100_000_000).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)


@given(st.sampled_from(sorted(RULES)), ANY_ZONE, ANY_MOMENT)
def test_due_times_only_go_on_and_each_wall_comes_once(
    rule: str, zone: ZoneInfo, after: datetime
) -> None:
    found = first(occurrences(parse(rule), zone, after=after), 40)
    assert all(one.due > after for one in found)
    assert all(a.due < b.due and a.wall < b.wall for a, b in pairwise(found))
    for one in found:
        shown = one.due.astimezone(zone).replace(tzinfo=None)
        assert RULES[rule](one.wall)
        assert (shown == one.wall) or "skip" in one.note


@given(st.sampled_from(sorted(RULES)), ANY_ZONE, ANY_MOMENT, st.integers(1, 30))
def test_it_does_not_matter_from_where_one_looks(
    rule: str, zone: ZoneInfo, after: datetime, number: int
) -> None:
    """From the moment just before a due time, that one is found again, and from it the next."""
    found = first(occurrences(parse(rule), zone, after=after), number + 1)
    before = found[number - 1].due - timedelta(microseconds=1)
    again = first(occurrences(parse(rule), zone, after=before), 2)
    assert [one.due for one in again] == [one.due for one in found[number - 1 :]]


_CHARACTERS = st.text("0123456789 */,-#:LWmontuefrisdayfirstlastat\u00b2\u0660é", max_size=30)


@given(_CHARACTERS | st.text(max_size=120) | st.lists(_CHARACTERS, max_size=7).map(" ".join))
@settings(max_examples=500)
def test_whatever_is_written_is_a_rule_or_a_clear_refusal(written: str) -> None:
    try:
        rule = parse(written)
    except SendError as error:
        assert re.search(r"\w", error.message)
    else:
        assert rule.description
        assert parse(rule.text) == rule
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        assert len(first(occurrences(rule, BERLIN, after=begin), 2)) <= 2
