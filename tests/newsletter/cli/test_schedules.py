"""Schedules from the command line: made, looked at, changed, and refused with a remedy."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from newsletter.db.engine import open_database
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, add_readers, complaint, run
from tests.newsletter.scheduling.conftest import approve, make_schedule, tick

__all__ = ["run"]


@pytest.fixture
def weekly(run: Run) -> Run:
    """A schedule on Tuesdays, to everybody."""
    assert run("segment", "create", "everybody").returncode == 0
    done = run(*"schedule create weekly --series letter --segment everybody --when".split(),
               "tue 09:00", "--zone", "Europe/Berlin", "--skip", "2099-12-29")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Schedule weekly: At 09:00 on Tuesday (Europe/Berlin); next ")
    assert "no approved issue" in done.stderr
    return run


def records(run: Run, *words: str) -> list[dict[str, str]]:
    done = run("schedule", *words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_it_is_listed_shown_changed_paused_and_deleted(weekly: Run) -> None:
    [one] = records(weekly, "list")
    assert (one["schedule"], one["when"], one["state"]) == ("weekly", "tue 09:00", "active")
    shown = weekly("schedule", "show", "weekly")
    assert "none is approved" in shown.stdout
    assert "2099-12-29" in shown.stdout
    assert "It has not run yet." in shown.stderr
    changed = weekly("schedule", "change", "weekly", "--when", "mon 08:00", "--name", "monday")
    assert "At 08:00 on Monday (Europe/Berlin)" in changed.stdout
    assert "2099-12-29" in weekly("schedule", "show", "monday").stdout
    assert weekly("schedule", "change", "monday", "--per-hour", "500").returncode == 0
    shown = weekly("schedule", "show", "monday").stdout
    assert "at most 500 per hour" in shown
    assert "mon 08:00" in shown
    assert "are skipped" in weekly("schedule", "pause", "monday").stdout
    assert "It is paused" in weekly("schedule", "next", "monday").stderr
    assert "continues: next run" in weekly("schedule", "resume", "monday").stdout
    assert weekly("schedule", "delete", "monday").returncode == 0
    assert records(weekly, "list") == []


def test_the_next_times_are_shown_with_what_changes_of_clocks_do(run: Run) -> None:
    rule = ("next", "--when", "last sunday 02:30", "--zone", "Europe/Berlin", "--count", "12")
    notes = [row["note"] for row in records(run, *rule) if row["note"]]
    assert sorted(notes) == [
        "the clocks show 02:30 twice: the first time counts",
        "the clocks skip 02:30: it is due at 03:00",
    ]


@pytest.mark.slow
def test_days_are_left_out_by_a_list_and_sent_on_after_all(weekly: Run, tmp_path: Path) -> None:
    (tmp_path / "days.txt").write_text("2099-12-22 # before the feast\n2099-12-15\n")
    assert (
        "2099-12-15, 2099-12-22"
        in weekly("schedule", "skip", "weekly", "--file", "days.txt").stdout
    )
    undone = weekly("schedule", "skip", "weekly", "--undo", "2099-12-29")
    assert undone.stdout == "Schedule weekly sends on 2099-12-29.\n"
    first = records(weekly, "next", "weekly", "--count", "1")[0]
    said = weekly("schedule", "skip", "weekly").stdout
    assert first["day"].split()[1] in said
    assert records(weekly, "next", "weekly", "--count", "1")[0]["note"] == "skipped"
    (tmp_path / "days.txt").write_text("tomorrow\n")
    wrong = complaint(weekly("schedule", "skip", "weekly", "--file", "days.txt"), 2)
    assert "days.txt:1: “tomorrow” is not a date" in wrong


@pytest.mark.slow
def test_mistakes_are_refused_with_a_remedy(weekly: Run) -> None:
    make = "schedule create x --series letter --segment".split()
    assert "0 7 * * *" in complaint(weekly(*make, "everybody", "--when", "* 7 * * *"), 2)
    assert "no segment of this name" in complaint(weekly(*make, "no", "--when", "daily 07:00"), 2)
    zone = weekly(*make, "everybody", "--when", "daily 07:00", "--zone", "Mars/Olympus")
    assert "there is no time zone “Mars/Olympus”" in complaint(zone, 2)
    assert "no such schedule" in complaint(weekly("schedule", "pause", "none"), 2)
    assert "name a schedule, or a rule" in complaint(weekly("schedule", "next"), 2)
    used = complaint(weekly("segment", "delete", "everybody"), 2)
    assert "schedule weekly uses it" in used


@pytest.mark.slow
def test_what_became_of_a_time_is_shown_and_a_send_says_what_made_it(
    run: Run, tmp_path: Path
) -> None:
    add_readers(tmp_path, run, 2)
    database = open_database(f"sqlite:///{tmp_path / 'data' / 'newsletter.db'}")
    make_schedule(database, to=("all",))
    approve(database, "first")
    tick(database, NOW + timedelta(days=1))
    tick(database, NOW + timedelta(days=2))
    database.dispose()
    nothing, sent = records(run, "show", "weekly")
    assert (sent["outcome"], sent["send"]) == ("sent", 1)
    assert nothing["reason"] == "no approved issue in series letter"
    assert records(run, "list")[0]["last"] == "nothing"
    assert "weekly" in run("sends", "show", "1").stdout
