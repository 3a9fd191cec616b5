"""Clicks on links to leave, to choose and to read on the web are counted apart, nowhere else."""

import json
import re
from typing import Any

import pytest
from sqlalchemy import Engine, select

from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.links import Links, Purpose
from newsletter.provider.events import OWN_PATHS, Event, EventKind, OwnKind, parse
from newsletter.sending.ab_testing import Measure
from newsletter.tracking.people import history as subscriber_history
from newsletter.tracking.stats import ab_test_results, counters
from newsletter.tracking.stats import rates as send_rates
from newsletter.tracking.stats import verify as verify_counters
from newsletter.web.console.subscribers.history_labels import WORDS
from subscribers.models import Subscriber
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, take
from tests.newsletter.tracking.stats.test_ab_test_results import make_people, make_trial

__all__ = ["five", "run", "sent"]

SITE = "https://news.example/letters"
TOKEN = Links(["k" * 32]).token(Purpose.RECIPIENT, 1, 2)
A = "https://x.example/a"


def kind_of(url: str, base_url: str | None = None) -> EventKind | OwnKind:
    body = json.dumps([{"event": "click", "timestamp": 1, "email": "a@b.example", "url": url}])
    (event,) = parse(body.encode(), base_url=base_url)
    assert isinstance(event, Event)
    return event.kind


@pytest.mark.parametrize("path", OWN_PATHS)
@pytest.mark.parametrize("purpose", Purpose)
def test_each_link_of_ours_is_known_wherever_the_service_stood(path: str, purpose: Purpose) -> None:
    token = Links(["k" * 32]).token(purpose, 0)
    for base in ("https://old.example", "http://127.0.0.1:8000", SITE, "HTTPS://NEWS.example/x"):
        for end in ("", "?a=1", "#top", "/erase"):
            url = f"{base}/{path}/{token}{end}"
            assert kind_of(url, SITE) is OwnKind.OWN_CLICK, url
            assert kind_of(url) is OwnKind.OWN_CLICK, url


@pytest.mark.parametrize("path", OWN_PATHS)
def test_at_our_own_address_a_damaged_token_is_ours_too(path: str) -> None:
    assert kind_of(f"{SITE}/{path}/x", SITE) is OwnKind.OWN_CLICK
    assert kind_of(f"HTTPS://NEWS.EXAMPLE/letters/{path}/x", SITE) is OwnKind.OWN_CLICK


@pytest.mark.parametrize(
    "url",
    [
        "https://vimeo.example/view/123456",
        "https://vimeo.example/view/About-us",
        "https://drive.example/file/d/1AbC/view?usp=sharing",
        "https://shop.example/preferences/",
        "https://other.example/unsubscribe/campaign-42",
        f"https://x.example/article?back={SITE}/view/",
        f"{SITE}/archive/view",
        f"{SITE}/",
        f"https://x.example/{TOKEN}",
        "https://x.example/view/" + "z" * 40,
        "https://x.example/view/Announcing-our-new-line-of-products-and-services",
        "https://x.example/view/" + "A" * 26,
        f"https://x.example/view/{TOKEN}{'A' * 4000}",
        "",
    ],
)
def test_a_link_of_somebody_else_is_a_click(url: str) -> None:
    assert kind_of(url, SITE) is EventKind.CLICK


def test_nobody_posts_our_own_name_for_it() -> None:
    body = json.dumps([{"event": "own_click", "timestamp": 1, "email": "a@b.example"}])
    (event,) = parse(body.encode())
    assert isinstance(event, Event)
    assert event.kind is EventKind.OTHER


def own(send: int, person: int, path: str = "unsubscribe", **more: Any) -> dict[str, Any]:
    return entry(send, person, "click", url=f"{SITE}/{path}/{TOKEN}", **more)


def read(database: Engine, person: int) -> tuple[Any, Any]:
    row = table_of(Subscriber)
    with reading(database) as session:
        found = select(row.c.last_open_at, row.c.last_click_at).where(row.c.id == person)
        return tuple(session.execute(found).one())


def test_they_are_in_no_rate_no_table_of_links_and_no_last_click(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, *(entry(sent, who, "delivered") for who in five))
    take(database, *(own(sent, who, path) for who, path in zip(five, OWN_PATHS, strict=False)))
    with reading(database) as session:
        whole = send_rates.of_send(session, sent)
        assert whole.figures == {"delivered": 5, "own_click": 5}
        assert (whole.rates.clicked, whole.rates.clicks, whole.rates.opened) == (0, 0, 0)
        assert whole.rates.clicked_of_openers is None
        assert send_rates.by_link(session, sent) == {}
        assert send_rates.most_clicked(session, sent, limit=10) == {}
        (domain,) = send_rates.by_domain(session, sent).values()
        assert domain.rates.clicked == 0
        days = counters.of_parts(session, sent, "day")
        assert "click" not in days["2026-03-27"]
        assert list(verify_counters.differences(session, sent)) == []
    assert [read(database, who) for who in five] == [(None, None)] * 5


def test_they_reveal_no_scanner_and_hide_none(database: Engine, sent: int, five: list[int]) -> None:
    paths = list(OWN_PATHS)
    for number, path in enumerate(paths):
        take(database, own(sent, five[0], path, at=1774594800 + number))
    take(database, entry(sent, five[0], "click", url=A, at=1774594802))
    with reading(database) as session:
        assert counters.of_send(session, sent) == {
            "own_click": len(paths),
            "click": 1,
            "clicked": 1,
        }
        assert list(verify_counters.differences(session, sent)) == []


@pytest.mark.parametrize("by", [Measure.CLICKS, Measure.OPENS])
def test_no_variant_wins_by_those_who_leave(database: Engine, by: Measure) -> None:
    make_people(database, 20)
    tested = make_trial(database, by=by)
    a, b = (list(tested.samples[label]) for label in "AB")
    take(database, *(tested.event(who, "click", url=f"{SITE}/unsubscribe/{TOKEN}") for who in b))
    take(database, *(tested.event(who, "unsubscribe") for who in b))
    take(database, tested.event(a[0], "click", url=A))
    with reading(database) as session:
        report = ab_test_results.report(session, tested.send)
        assert [(arm.opened, arm.clicked) for arm in report.variants] == [(1, 1), (0, 0)]
        assert ab_test_results.winner_of(report)[0] == "A"


def test_a_persons_history_tells_them_apart(database: Engine, sent: int, five: list[int]) -> None:
    take(database, own(sent, five[0]))
    with reading(database) as session:
        person = session.get_one(Subscriber, five[0])
        entries, _ = subscriber_history.of_subscriber(session, person)
    (found,) = [one for one in entries if one.sort == "event"]
    assert (found.what, found.detail) == ("own_click", f"{SITE}/unsubscribe/…")
    assert TOKEN not in str(entries)
    assert set(WORDS["event"]) == {*EventKind, *OwnKind}


def test_the_command_line_shows_them_in_a_line_of_their_own(
    run: Run, database: Engine, database_url: str, sent: int, five: list[int]
) -> None:
    take(database, own(sent, five[0]), entry(sent, five[0], "delivered"))
    told = run("stats", "show", str(sent), NEWSLETTER_DATABASE_URL=database_url).stdout
    assert re.search(r"clicks on own links\s+1", told)
    assert "unsubscribe/…" not in told
