"""Durations: read as operators write them, written back the same, and said in words."""

from datetime import timedelta

import pytest

from newsletter import durations


@pytest.mark.parametrize("text", ["0s", "30s", "15m", "6h", "2d", "1w", "90m"])
def test_what_is_read_is_written_back(text: str) -> None:
    assert durations.written(durations.parse(text)) == text


@pytest.mark.parametrize("text", ["", "4", "h", "4 hours", "-4h", "1.5h", "٤h", "9" * 10 + "s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is written like 30s, 15m, 6h, 2d or 1w"):
        durations.parse(text)


def test_a_duration_that_leaves_the_calendar_is_refused() -> None:
    assert durations.parse("3660d") == durations.LONGEST
    with pytest.raises(ValueError, match="3660 days at most"):
        durations.parse("3661d")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (600, "10 min"),
        (659, "10 min"),
        (3600, "1 h"),
        (11_100, "3 h 5 min"),
        (48 * 3600 - 60, "47 h 59 min"),
        (48 * 3600, "2 days"),
        (52 * 3600, "2 days 4 h"),
    ],
)
def test_a_measured_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    assert durations.in_words(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1s", "1 second"),
        ("90s", "90 seconds"),
        ("1m", "1 minute"),
        ("90m", "90 minutes"),
        ("4h", "4 hours"),
        ("1d", "1 day"),
        ("2w", "14 days"),
    ],
)
def test_a_chosen_duration_is_said_in_its_largest_whole_unit(text: str, words: str) -> None:
    assert durations.period(durations.parse(text)) == words
