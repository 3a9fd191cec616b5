"""Times are the publication's, wherever the machine is, and say so; zones are the lock file's."""

import json
import re
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import tzdata
from sqlalchemy import Engine

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.errors import SendError
from newsletter.sending.pacing.sending_windows import clock_note, written
from newsletter.sending.pacing.timetable_parsing import parse_start
from newsletter.sending.queries import send_status
from subscribers.consent import suppression
from subscribers.models import SuppressionReason
from tests.conftest import NOW, add_person
from tests.forking import command
from tests.newsletter.scheduling.conftest import approve, make_schedule, tick
from tests.newsletter.sending.conftest import FakeGateway, drain, make_plan, make_send
from tests.newsletter.web.conftest import Office, open_office

__all__ = ["open_office"]

#: Neither has the other's offset, nor UTC's, on any day.
HERE, MACHINE = "America/St_Johns", "Pacific/Auckland"
BERLIN = ZoneInfo("Europe/Berlin")
NAMES = {"at": "--at", "local_time": "--local-time"}
#: A time of day, and what may follow it: seconds, and an offset, Z, or a zone's name.
CLOCK = re.compile(
    r"\b\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?(?P<zone>Z|[+-]\d\d:?\d\d| ?[A-Z]{3,5}\b| [+-]\d\d)?"
)


@pytest.fixture
def filled(database: Engine, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A database with something of each kind that has a time; the environment to look at it."""
    with transaction(database) as session:
        people = [add_person(session, f"p{n}@example.org") for n in range(4)]
        suppression.add(session, people[:1], SuppressionReason.BOUNCED, at=NOW, evidence="gone")
    sent = make_send(database)
    make_plan(database, sent)
    drain(database, FakeGateway())
    make_send(database, slug="second", at=datetime.now(UTC) + timedelta(days=2))
    make_schedule(database, now=NOW)
    approve(database, "letter-1")
    tick(database, NOW + timedelta(days=1, seconds=5))
    return environment | {"NEWSLETTER_SITE__TIMEZONE": HERE, "TZ": MACHINE}


def zoneless(text: str) -> list[str]:
    """Times in a text that do not say of which zone they are."""
    return [found[0] for found in CLOCK.finditer(text) if not found["zone"]]


#: Every command that prints a time.
COMMANDS = (
    ("sends",),
    ("sends", "show", "1"),
    ("sends", "show", "2"),
    ("issue", "list"),
    ("issue", "show", "letter-1"),
    ("issue", "history", "letter-1"),
    ("segment", "list"),
    ("schedule", "list"),
    ("schedule", "next", "weekly"),
    ("schedule", "next", "--when", "daily 02:30"),
    ("suppressions", "lift", "--since", "2026-03-01", "--dry-run"),
    ("user", "list"),
    ("user", "log"),
    ("departures",),
    ("departures", "compare"),
    ("stats", "show", "1"),
    ("subscribers", "data", "p1@example.org"),
)
#: These show what somebody wrote, which is a rule and no moment.
RULES = re.compile(r"daily \d\d:\d\d|At \d\d:\d\d every day|\d\d:\d\d every day")


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words))
def test_every_time_that_a_command_prints_says_its_zone(
    database: Engine, filled: dict[str, str], tmp_path: Path, words: tuple[str, ...], as_json: bool
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("what is printed does not depend on the database")
    done = command([*words, *(["--json"] if as_json else [])], environment=filled, folder=tmp_path)
    if as_json and "No such option" in done.stderr:
        pytest.skip("it prints no JSON")
    assert done.returncode in {0, 3}, done.stderr
    said = RULES.sub("", done.stdout + done.stderr)
    assert zoneless(said) == []
    if as_json and done.stdout.startswith("{"):
        for line in done.stdout.splitlines():
            json.loads(line)


def test_a_command_shows_the_publications_zone(
    database: Engine, filled: dict[str, str], tmp_path: Path
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("what is printed does not depend on the database")
    done = command(["sends"], environment=filled, folder=tmp_path)
    assert written(NOW, ZoneInfo(HERE)) == "2026-03-27 04:30:00-02:30"
    assert "2026-03-27 04:30:00-02:30" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        *("/console/", "/console/sends", "/console/sends/1", "/console/log"),
        *("/console/schedules", "/console/schedules/1", "/console/sends/departures"),
        "/console/issues/letter-1",
    ],
)
def test_every_time_on_a_page_says_its_zone(
    database: Engine, filled: dict[str, str], open_office: Callable[..., Office], path: str
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("what is shown does not depend on the database")
    page = open_office().signed_in(Role.OWNER).get(path)
    assert page.status_code == 200
    shown = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page.text, flags=re.DOTALL)
    # An address has a port, which is no time.
    words = re.sub(r"https?://\S+|\d+(?:\.\d+){3}:\d+", "", re.sub(r"<[^>]+>", " ", shown))
    assert zoneless(RULES.sub("", words)) == []


@pytest.mark.slow
@pytest.mark.parametrize("zone", [HERE, "Asia/Kathmandu", "UTC"])
def test_a_send_at_a_time_without_an_offset_is_at_the_publications_time(
    database: Engine, filled: dict[str, str], tmp_path: Path, zone: str
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("the time is read before any database")
    (tmp_path / "issue.md").write_text("---\nsubject: Fourth\n---\n\nGood day.\n")
    day = (datetime.now(UTC) + timedelta(days=5)).date()
    words = ["send", "issue.md", "--segment", "everybody", "--at", f"{day}T07:00"]
    done = command(
        [*words, "--despite-findings"],
        environment=filled | {"NEWSLETTER_SITE__TIMEZONE": zone},
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    at = datetime(day.year, day.month, day.day, 7, tzinfo=ZoneInfo(zone))
    assert written(at, ZoneInfo(zone)) in done.stdout
    with reading(database) as session:
        made = send_status.latest_sends(session)[0][0]
        assert made.scheduled_for == at.astimezone(UTC)


def test_a_time_that_the_clocks_skip_or_show_twice_is_told() -> None:
    before = datetime(2026, 1, 1, tzinfo=UTC)

    def at(text: str) -> str:
        start, _ = parse_start(text, None, names=NAMES, now=before, zone=BERLIN)
        return written(start, BERLIN)

    assert at("2026-03-29T02:30") == "2026-03-29 03:30:00+02:00"
    assert at("2026-10-25T02:30") == "2026-10-25 02:30:00+02:00"
    assert at("2026-10-25T02:30+01:00") == "2026-10-25 02:30:00+01:00"
    assert "skip 02:30" in clock_note("2026-03-29T02:30", BERLIN)
    assert "twice" in clock_note("2026-10-25T02:30", BERLIN)
    for plain in ("2026-03-30T02:30", "2026-03-29T02:30+01:00", "nonsense", ""):
        assert clock_note(plain, BERLIN) == ""


@pytest.mark.parametrize(
    "text", ["soon", "07:00", "2026-13-01T07:00", "2026-02-30T07:00", "9999-12-31T23:59"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SendError) as caught:
        parse_start(text, None, names=NAMES, now=NOW, zone=BERLIN)
    assert caught.value.place == "--at"


@pytest.mark.slow
def test_the_zones_are_those_of_the_lock_file_in_every_process() -> None:
    assert zoneinfo.TZPATH == ()
    for module in (
        "newsletter.cli.main",
        "newsletter.web.app",
        "newsletter.container",
        "bench.setup",
    ):
        told = (
            f"import zoneinfo, {module}; print(zoneinfo.TZPATH, zoneinfo.ZoneInfo('Europe/Berlin'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", told],
            cwd=Path(__file__).parents[2],
            env={"PYTHONTZPATH": "/usr/share/zoneinfo", "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "() Europe/Berlin"


def test_the_doctor_names_the_version(environment: dict[str, str], tmp_path: Path) -> None:
    done = command(["doctor", "--json"], environment=environment, folder=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    (zones,) = [one for one in found if one["subject"] == "time zones"]
    assert (zones["verdict"], tzdata.IANA_VERSION in zones["message"]) == ("ok", True)
