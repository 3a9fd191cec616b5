"""Kept figures: happenings and people, by day, domain and link; and the recount that checks."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SendError
from newsletter.tracking.models import RecipientCounter, SendCounter, VariantCounter
from newsletter.tracking.people import privacy
from newsletter.tracking.stats import counters
from newsletter.tracking.stats import rates as send_rates
from newsletter.tracking.stats import verify as verify_counters
from newsletter.tracking.stats.verify import Difference
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, take

pytestmark = pytest.mark.both_databases

__all__ = ["five", "run", "sent"]

A, B, C, D = (f"https://x.example/{letter}" for letter in "abcd")
NEXT_DAY = 1774594800 + 86400


def differences(database: Engine, send: int) -> list[Difference]:
    with reading(database) as session:
        return list(verify_counters.differences(session, send))


def of_send(database: Engine, send: int) -> dict[str, int]:
    with reading(database) as session:
        return counters.of_send(session, send)


def parts(database: Engine, send: int, part: str) -> dict[str, dict[str, int]]:
    with reading(database) as session:
        return counters.of_parts(session, send, part)


@pytest.fixture
def told(database: Engine, sent: int, five: list[int]) -> int:
    """Four delivered, of whom three read; one bounced. One opens at another provider's."""
    one, two, three, four, last = five
    take(
        database,
        *(entry(sent, who, "delivered") for who in five[:4]),
        entry(sent, last, "bounce", reason="550 no"),
        entry(sent, one, "open", at=1774594900),
        entry(sent, one, "open", at=NEXT_DAY),
        entry(sent, two, "open", sg_machine_open=True),
        entry(sent, one, "click", at=1774594950, url=A),
        entry(sent, one, "click", at=1774594990, url=A),
        entry(sent, one, "click", at=NEXT_DAY, url=B),
        entry(sent, three, "click", at=NEXT_DAY, url=A),
        *(entry(sent, four, "click", at=1774594960 + n, url=u) for n, u in enumerate((A, B, C, D))),
        entry(sent, two, "unsubscribe"),
        entry(sent, two, "group_unsubscribe", email="p2@other.example"),
        entry(sent, three, "spamreport"),
    )
    return sent


def test_happenings_and_people_are_figures_of_their_own(database: Engine, told: int) -> None:
    assert of_send(database, told) == {
        "delivered": 4,
        "bounce": 1,
        "people_bounced": 1,
        "open": 2,
        "opened": 1,
        "machine_open": 1,
        "click": 4,
        "clicked": 2,
        "machine_click": 4,
        "unsubscribe": 1,
        "group_unsubscribe": 1,
        "left": 2,
        "left_here": 1,
        "left_at_provider": 1,
        "spamreport": 1,
        "complained": 1,
    }


def test_days_domains_and_links_have_their_own(database: Engine, told: int) -> None:
    days = parts(database, told, "day")
    assert days["2026-03-28"] == {"open": 1, "click": 2}
    assert {what: n for what, n in days["2026-03-27"].items() if "click" in what} == {
        "click": 2,
        "machine_click": 4,
    }
    domains = parts(database, told, "domain")
    assert domains["other.example"] == {
        "group_unsubscribe": 1,
        "left": 1,
        "left_at_provider": 1,
    }
    assert (domains["example.org"]["clicked"], domains["example.org"]["delivered"]) == (2, 4)
    assert parts(database, told, "link") == {
        A: {"click": 3, "clicked": 2, "machine_click": 1},
        B: {"click": 1, "clicked": 1, "machine_click": 1},
        C: {"machine_click": 1},
        D: {"machine_click": 1},
    }


def test_the_recount_says_the_same_and_survives_an_erasure(
    database: Engine, told: int, five: list[int]
) -> None:
    assert differences(database, told) == []
    with transaction(database) as session:
        privacy.erase(session, five[0], now=NOW)
    assert differences(database, told) == []


@pytest.mark.slow
def test_what_was_tampered_with_is_named(database: Engine, told: int, five: list[int]) -> None:
    sends, parts, people = (
        table_of(SendCounter),
        table_of(VariantCounter),
        table_of(RecipientCounter),
    )
    with transaction(database) as session:
        session.execute(update(sends).where(sends.c.what == "open").values(count=7))
        session.execute(delete(parts).where(parts.c.value == C))
        whose = (people.c.subscriber_id == five[0]) & (people.c.link == B)
        session.execute(update(people).where(whose).values(count=2))
    assert differences(database, told) == [
        Difference(told, "link", C, "machine_click", 0, 1),
        Difference(told, "send", "", "open", 7, 2),
        Difference(told, "person", f"{five[0]} example.org {B}", "clicked", 2, 1),
    ]


def test_rates_are_what_the_page_says(database: Engine, told: int) -> None:
    with reading(database) as session:
        whole = send_rates.of_send(session, told)
        domains = send_rates.by_domain(session, told)
        assert list(send_rates.by_link(session, told)) == [A, B, C, D]
    assert whole.sent == 5
    rates = whole.rates
    assert (rates.delivered, rates.bounced, rates.blocked) == (4 / 5, 1 / 5, 0)
    assert (rates.opened, rates.opens) == (1 / 4, 2 / 4)
    assert (rates.clicked, rates.clicks, rates.clicked_of_openers) == (2 / 4, 4 / 4, 2)
    assert (rates.unsubscribed, rates.complained) == (2 / 4, 1 / 4)
    assert [(domain, one.sent) for domain, one in domains.items()] == [
        ("example.org", 5),
        ("other.example", 0),
    ]
    assert domains["other.example"].rates.unsubscribed is None


def test_a_send_that_nobody_made_has_no_performance(database: Engine) -> None:
    with reading(database) as session, pytest.raises(SendError, match="no such send"):
        send_rates.of_send(session, 99)


def test_events_outside_any_send_are_counted_apart(database: Engine, sent: int) -> None:
    take(database, {"event": "delivered", "timestamp": 1, "email": "a@b.example"})
    assert of_send(database, sent) == {}
    assert of_send(database, counters.NO_SEND) == {"delivered": 1}
    assert differences(database, counters.NO_SEND) == []
    with reading(database) as session:
        assert verify_counters.sends(session) == [counters.NO_SEND]


def test_links_that_look_like_ours_are_counted_without_their_tokens(
    database: Engine, sent: int, five: list[int]
) -> None:
    links = [f"https://x.example/preferences/{token}?a=1" for token in ("me-x", "me-y")]
    take(database, *(entry(sent, p, "click", url=u) for p, u in zip(five, links, strict=False)))
    assert parts(database, sent, "link") == {
        "https://x.example/preferences/…?a=1": {"click": 2, "clicked": 2}
    }


@pytest.mark.parametrize(
    ("agents", "machine"),
    [
        (["Mozilla/5.0 (Windows NT 10.0)"], 0),
        (["Mozilla/5.0 (via ggpht.com GoogleImageProxy)"], 0),
        (["Mozilla/5.0 BarracudaSentinel", "python-requests/2.32", "Googlebot/2.1"], 3),
    ],
)
def test_a_scanner_is_known_by_its_name(
    database: Engine, sent: int, five: list[int], agents: list[str], machine: int
) -> None:
    for number, agent in enumerate(agents):
        take(database, entry(sent, five[number], "open", useragent=agent))
    assert of_send(database, sent).get("machine_open", 0) == machine


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clicks", "machine"),
    [
        ([(0, A), (1, B), (2, C)], 0),
        ([(0, A), (1, A), (2, A), (3, A)], 0),
        ([(0, A), (4, B), (8, C), (10, D)], 4),
        ([(0, A), (4, B), (8, C), (11, D)], 0),
        ([(0, A), (4, B), (8, C), (10, D), (12, A), (30, A)], 5),
    ],
)
def test_many_links_within_seconds_are_a_scanner(
    database: Engine, sent: int, five: list[int], clicks: list[Any], machine: int
) -> None:
    for at, link in reversed(clicks):
        take(database, entry(sent, five[0], "click", at=1774594800 + at, url=link))
    figures = of_send(database, sent)
    assert figures.get("machine_click", 0) == machine
    assert figures.get("click", 0) == len(clicks) - machine
    assert differences(database, sent) == []


def test_many_people_at_once_are_no_scanner(database: Engine, sent: int, five: list[int]) -> None:
    take(
        database,
        *(entry(sent, p, "click", url=u) for p, u in zip(five, (A, B, C, D), strict=False)),
    )
    assert of_send(database, sent) == {"click": 4, "clicked": 4}


# From the command line


@pytest.fixture
def stats(run: Run, database_url: str) -> Run:
    """`newsletter stats` on the test's database."""
    return lambda *words: run("stats", *words, NEWSLETTER_DATABASE_URL=database_url)


@pytest.mark.slow
def test_figures_on_the_command_line(stats: Run, told: int) -> None:
    done = stats("show", str(told))
    assert done.returncode == 0, done.stderr
    assert "open rate" in done.stdout
    assert "25.00 %" in done.stdout
    (line,) = stats("show", str(told), "--json").stdout.splitlines()
    found = json.loads(line)
    assert (found["sent"], found["rates"]["opened"], found["links"][A]["clicked"]) == (5, 0.25, 2)
    nothing = stats("show", "99")
    assert (nothing.returncode, "no such send" in nothing.stderr) == (2, True)


def test_verify_exits_by_what_it_found(stats: Run, database: Engine, told: int) -> None:
    done = stats("verify")
    assert (done.returncode, done.stderr) == (0, "")
    with transaction(database) as session:
        session.execute(update(table_of(SendCounter)).values(count=3))
    done = stats("verify", str(told))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].split("\t") == [
        *("send_id", "part", "value", "what", "kept", "recounted")
    ]
