"""What is not measured is called so, and never 0: in rates, tables, JSON, pages and tests."""

import json
import re
from dataclasses import asdict

import pytest
from sqlalchemy import Engine, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.doctor import account as account_findings
from newsletter.errors import SendError
from newsletter.issues.parsing.tracking_flags import Tracked, TrackingChoice
from newsletter.scheduling import schedules
from newsletter.sending.ab_testing import Measure
from newsletter.sending.models import Send
from newsletter.sending.queries import send_status
from newsletter.tracking.stats import ab_test_results
from newsletter.tracking.stats import rates as send_rates
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.scheduling.conftest import approve, make_schedule, tick
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, take
from tests.newsletter.tracking.stats.test_ab_test_results import make_people, make_trial

__all__ = ["five", "run", "sent"]

_send = table_of(Send)
A = "https://x.example/a"
OF_OPENS = {"opened", "opens", "clicked_of_openers"}
OF_CLICKS = {"clicked", "clicks", "clicked_of_openers"}


def measure(database: Engine, send: int, *, clicks: bool, opens: bool) -> None:
    with transaction(database) as session:
        values = {"track_clicks": clicks, "track_opens": opens}
        session.execute(update(_send).where(_send.c.id == send).values(**values))


@pytest.fixture
def read(database: Engine, sent: int, five: list[int]) -> int:
    """A send that was delivered, opened and clicked, whatever was asked for."""
    take(database, *(entry(sent, who, "delivered") for who in five))
    take(database, *(entry(sent, who, "open") for who in five))
    take(database, *(entry(sent, who, "click", url=A) for who in five))
    return sent


CASES = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.slow
@pytest.mark.parametrize(("clicks", "opens"), CASES)
def test_a_rate_of_what_is_not_measured_is_unknown(
    database: Engine, read: int, *, clicks: bool, opens: bool
) -> None:
    measure(database, read, clicks=clicks, opens=opens)
    unknown = (set() if clicks else OF_CLICKS) | (set() if opens else OF_OPENS)
    with reading(database) as session:
        whole = send_rates.of_send(session, read)
        (domain,) = send_rates.by_domain(session, read).values()
        (largest,) = send_rates.largest_domains(session, read, limit=1).values()
    for one in (whole, domain, largest):
        rates = asdict(one.rates)
        assert {name for name, rate in rates.items() if rate is None} == unknown
        assert {name for name in rates if not one.measures(name)} == unknown
        assert rates["delivered"] == 1


@pytest.mark.parametrize(("clicks", "opens"), CASES)
def test_json_and_tables_say_so(
    run: Run, database: Engine, database_url: str, read: int, *, clicks: bool, opens: bool
) -> None:
    measure(database, read, clicks=clicks, opens=opens)

    def stats(*words: str) -> str:
        done = run("stats", "show", str(read), *words, NEWSLETTER_DATABASE_URL=database_url)
        assert done.returncode == 0, done.stderr
        return done.stdout + ("" if words else done.stderr)

    said = json.loads(stats("--json"))
    assert said["tracked"] == {"clicks": clicks, "opens": opens}
    assert (said["links"] is None) is (not clicks)
    for figures in (
        said["figures"],
        *(one["figures"] for one in said["domains"].values()),
        *said["days"].values(),
    ):
        for name in ("clicked", "click", "machine_click") if not clicks else ():
            assert figures[name] is None
        for name in ("opened", "open", "machine_open") if not opens else ():
            assert figures[name] is None
    assert (said["rates"]["clicked"] is None) is (not clicks)
    table = stats()
    for words, known in (("recipients who clicked", clicks), ("clicks", clicks), ("opens", opens)):
        assert bool(re.search(rf"^\s*{words}\s+5\s*$", table, re.M)) is known
        assert bool(re.search(rf"^\s*{words}\s+not measured\s*$", table, re.M)) is not known
    assert ("Clicks are not measured in this send." in table) is not clicks
    assert (A in table) is clicks


def test_a_test_by_hand_compares_what_is_measured_only(database: Engine) -> None:
    make_people(database, 20)
    tested = make_trial(database, by=Measure.OPERATOR)
    measure(database, tested.send, clicks=False, opens=True)
    with reading(database) as session:
        report = ab_test_results.report(session, tested.send)
    assert {one.measure for one in report.comparisons} == {Measure.OPENS}
    assert [report.measures(m) for m in Measure] == [True, False, True]


@pytest.mark.parametrize("by", [Measure.OPENS, Measure.CLICKS])
def test_a_winner_by_what_was_never_measured_is_not_invented(database: Engine, by: Measure) -> None:
    """A send that was made before anybody could choose asks for clicks that never come."""
    make_people(database, 20)
    tested = make_trial(database, by=by)
    measure(database, tested.send, clicks=by is Measure.OPENS, opens=by is Measure.CLICKS)
    with reading(database) as session, pytest.raises(SendError, match="are not measured"):
        ab_test_results.winner_of(ab_test_results.report(session, tested.send))


# On the command line


def test_segments_that_nobody_can_know_are_refused_on_the_command_line(
    run: Run, database: Engine, database_url: str
) -> None:
    off = {"NEWSLETTER_TRACKING__CLICKS": "false", "NEWSLETTER_DATABASE_URL": database_url}
    with transaction(database) as session:
        segment_store.save(session, "readers", 'clicked_within("2w")', now=NOW)
    for words in (
        ("segment", "create", "more", "last_click_at == None"),
        ("segment", "count", "readers"),
        ("segment", "show", "readers"),
    ):
        done = run(*words, **off)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "clicks are not tracked" in done.stderr
        assert "tracking.clicks" in done.stderr
    (row,) = map(json.loads, run("segment", "list", "--json", **off).stdout.splitlines())
    assert (row["subscribers"], row["can be emailed"]) == (None, None)
    assert "clicks are not tracked" in row["problem"]
    on = {"NEWSLETTER_DATABASE_URL": database_url}
    assert run("segment", "count", "readers", **on).returncode == 0


def test_a_send_says_on_the_command_line_what_is_measured(
    run: Run, database: Engine, database_url: str, read: int
) -> None:
    measure(database, read, clicks=False, opens=True)
    done = run("sends", "show", str(read), NEWSLETTER_DATABASE_URL=database_url)
    assert re.search(r"tracked\s+opens, not clicks", done.stdout), done.stderr


# By the calendar


@pytest.mark.parametrize("said", [None, True, False])
def test_what_a_schedule_says_goes_with_its_sends(
    database: Engine,
    five: list[int],
    said: bool | None,
) -> None:

    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
    number = make_schedule(database, "weekly", "daily 07:00", tracking=TrackingChoice(said, said))
    approve(database, "first")
    with reading(database) as session:
        due = session.get_one(schedules.Schedule, number).next_at
    assert due is not None
    (fired,) = tick(database, due)
    with reading(database) as session:
        send = send_status.find(session, fired.send_id or 0)
        assert (send.track_clicks, send.track_opens) == (said is not False, said is not False)
        kept = schedules.options_of(session, schedules.find(session, "weekly"))
        assert kept.tracking == TrackingChoice(said, said)


def test_the_doctor_compares_the_account_with_what_we_ask_for() -> None:

    class Account:
        def tracks(self, what: str) -> bool:
            return what in {"click", "open"}

    for tracked, differ in (
        (Tracked(clicks=True, opens=True), None),
        (Tracked(clicks=False, opens=True), "click"),
        (Tracked(clicks=False, opens=False), "click, open"),
    ):
        (found,) = account_findings._tracking(Account(), tracked)  # type: ignore[arg-type]
        assert (f"differ from the account's for {differ}" in found.message) is (differ is not None)
