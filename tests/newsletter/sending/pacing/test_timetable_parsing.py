"""Pace and start as operators write them: read alike, and errors name what each door calls it."""

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from newsletter.cli.sending.pacing_options import NAMES
from newsletter.errors import SendError
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.pacing.timetable_parsing import parse_start, parse_timetable
from newsletter.web.console.sends.send_form import LABELS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def parsed(**options: Any) -> Timetable:
    return parse_timetable(names=NAMES, zone="Europe/Berlin", **options)


def test_texts_of_a_form_and_numbers_of_a_command_give_the_same_timetable() -> None:
    rest = {"quiet": "22:00-07:00", "windows": ["mon-fri 08:00-18:00"], "local_time": "9:30"}
    typed = parsed(rate="2.5", per_hour="10,000", per_day=" 50000 ", **rest)
    assert typed == parsed(rate=2.5, per_hour=10_000, per_day=50_000, **rest)
    assert typed.description == (
        "at most 2.5 recipients per second; at most 10,000 per hour; at most 50,000 per day; "
        "not before 09:30 in each recipient's time zone; quiet hours 22:00-07:00; "
        "only mon-fri 08:00-18:00"
    )


def test_nothing_given_limits_nothing() -> None:
    for empty in (None, "", "  "):
        timetable = parsed(rate=empty, per_hour=empty, per_day=empty)
        assert timetable == Timetable(zone="Europe/Berlin")
        assert timetable.description == ""


def test_quiet_hours_left_out_are_those_of_the_settings_and_empty_ones_are_none() -> None:
    assert str(parsed(default_quiet="22:00-07:00").quiet) == "22:00-07:00"
    assert parsed(default_quiet="22:00-07:00", quiet="").quiet is None
    with pytest.raises(SendError) as wrong:
        parsed(default_quiet="always")
    assert wrong.value.place == "sending.quiet_hours"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rate", "fast"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("rate", "0"),
        ("rate", "-1"),
        ("per_hour", "1.5"),
        ("per_hour", "-5"),
        ("per_hour", "nan"),
        ("per_day", "0"),
        ("per_day", "9" * 30),
        ("per_day", "1e400"),
        ("quiet", "always"),
        ("local_time", "25:00"),
    ],
)
def test_a_mistake_has_the_name_that_the_operator_sees(option: str, value: str) -> None:
    for names in (NAMES, LABELS):
        with pytest.raises(SendError) as wrong:
            parse_timetable(names=names, zone="UTC", **{option: value})  # type: ignore[arg-type]
        assert wrong.value.place == names[option]


def test_a_start_is_now_a_time_or_a_day_of_everybodys_own_clock() -> None:
    def start(at: str | None, local_time: str | None = None) -> tuple[datetime, date | None]:
        return parse_start(at, local_time, names=NAMES, now=NOW, zone=BERLIN)

    assert start(None) == start("") == (NOW, None)
    assert start("2026-04-01T07:00") == (datetime(2026, 4, 1, 5, tzinfo=UTC), None)
    assert start("2026-04-01T07:00+00:00") == (datetime(2026, 4, 1, 7, tzinfo=UTC), None)
    day = date(2026, 4, 1)
    # 07:00 of that day comes first 14 hours east of Greenwich.
    assert start("2026-04-01", "07:00") == (datetime(2026, 3, 31, 17, tzinfo=UTC), day)
    for at, local_time in (
        ("2026-02-01T07:00", None),
        ("soon", None),
        ("2026-04-01T07:00", "07:00"),
        ("2026-03-01", "07:00"),
        ("9999-12-31T23:59", None),
    ):
        with pytest.raises(SendError) as wrong:
            start(at, local_time)
        assert wrong.value.place == "--at"
