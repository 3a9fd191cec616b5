"""Who opened and clicked, on the console and as CSV; and the figures of a send as CSV."""

import csv
import re
from io import StringIO
from typing import Any

import pytest
from sqlalchemy import update

from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.sending.models import Send
from newsletter.web.console.sends import activity
from subscribers.models import Subscriber
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take
from tests.newsletter.web.conftest import Browser, Office

A, B = "https://x.example/a?b=1&c=2", "https://x.example/b"
_send = table_of(Send)


@pytest.fixture
def send(office: Office) -> int:
    """A send to four, of whom two opened, two clicked, and one bounced."""
    database = office.parts.database
    with transaction(database) as session:
        one, two, three, four = (
            add_person(session, f"p{n}@example.org", name=f"P{n}") for n in range(1, 5)
        )
    number = make_send(database)
    make_plan(database, number, batch_size=5, now=NOW)
    dispatcher(database, FakeGateway()).send_next()
    take(
        database,
        *(entry(number, who, "delivered") for who in (one, two, three)),
        entry(number, four, "bounce", reason="550 no"),
        entry(number, one, "open"),
        entry(number, two, "open"),
        entry(number, one, "click", url=A),
        entry(number, three, "click", url=B),
        entry(number, three, "open", sg_machine_open=True),
    )
    return number


@pytest.fixture
def viewer(office: Office) -> Browser:
    return office.signed_in(Role.VIEWER)


def addresses(text: str) -> list[str]:
    return re.findall(r"p\d@example\.org", text)


def table(viewer: Browser, path: str, **query: str) -> list[dict[str, Any]]:
    answer = viewer.get(path, params=query)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    return list(csv.DictReader(StringIO(answer.text, newline="")))


def test_each_list_has_a_page(viewer: Browser, send: int) -> None:
    at = f"/console/sends/{send}/activity"
    assert f'href="{at}"' in viewer.get(f"/console/sends/{send}").text
    for name, found in (
        ("", [1, 2]),
        ("opened", [1, 2]),
        ("clicked", [1, 3]),
        ("not-opened", [3]),
        ("bounced", [4]),
        ("nonsense", [1, 2]),
    ):
        text = viewer.get(at, params={"list": name}).text
        assert addresses(text) == [f"p{n}@example.org" for n in found]
    clicked = viewer.get(at, params={"list": "clicked", "link": A}).text
    assert addresses(clicked) == ["p1@example.org"]
    assert 'value="https://x.example/a?b=1&amp;c=2" selected' in clicked
    unknown = viewer.get(at, params={"list": "clicked", "link": "https://nothing.example"}).text
    assert "Nobody clicked this link yet." in unknown
    assert viewer.get("/console/sends/999/activity").status_code == 404
    assert viewer.get("/console/sends/999/activity.csv").status_code == 404


def test_pages_follow_each_other_by_key(
    viewer: Browser, send: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "_A_PAGE", 1)
    path, seen = f"/console/sends/{send}/activity?list=clicked", list[str]()
    while path:
        text = viewer.get(path).text
        seen += addresses(text)
        more = re.search(r'href="([^"]*after=\d+)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == ["p1@example.org", "p3@example.org"]


def test_a_list_is_downloaded_whole_and_without_formulas(
    office: Office, viewer: Browser, send: int
) -> None:
    person = table_of(Subscriber)
    with transaction(office.parts.database) as session:
        bad = update(person).where(person.c.email == "p1@example.org")
        session.execute(bad.values(email="=1+1@example.org"))
    rows = table(viewer, f"/console/sends/{send}/activity.csv", list="clicked")
    assert [(row["email"], row["times"], row["links"]) for row in rows] == [
        ("'=1+1@example.org", "1", A),
        ("p3@example.org", "1", B),
    ]
    (row,) = table(viewer, f"/console/sends/{send}/activity.csv", list="bounced")
    assert (row["status"], row["reason"]) == ("bounced", "550 no")


def test_what_was_not_measured_is_said_and_never_an_empty_list(
    office: Office, viewer: Browser, send: int
) -> None:
    with transaction(office.parts.database) as session:
        session.execute(update(_send).values(track_opens=False, track_clicks=False))
    for name, words in (
        ("opened", "Opens were not measured in this send."),
        ("not-opened", "Opens were not measured in this send."),
        ("clicked", "Clicks were not measured in this send."),
    ):
        at = f"/console/sends/{send}/activity"
        text = viewer.get(at, params={"list": name}).text
        assert words in text
        assert "Nobody" not in text
        download = viewer.get(f"{at}.csv", params={"list": name})
        assert download.status_code == 303
        assert download.headers["location"] == f"{at}?list={name}"
    links = viewer.get(f"/console/sends/{send}/links.csv")
    assert links.headers["location"] == f"/console/sends/{send}/activity?list=clicked"
    (domain,) = table(viewer, f"/console/sends/{send}/domains.csv")
    assert (domain["opened"], domain["clicked"]) == ("not measured", "not measured")
    assert domain["opened_rate"] == "not measured"
    assert domain["delivered"] == "3"
    (day,) = table(viewer, f"/console/sends/{send}/days.csv")
    assert (day["open"], day["click"], day["delivered"]) == ("not measured", "not measured", "3")


def test_the_figures_of_a_send_are_tables(viewer: Browser, send: int) -> None:
    text = viewer.get(f"/console/deliverability?send={send}").text
    for name in ("domains", "links", "days"):
        assert f'href="/console/sends/{send}/{name}.csv"' in text
        assert viewer.get(f"/console/sends/999/{name}.csv").status_code == 404
    (domain,) = table(viewer, f"/console/sends/{send}/domains.csv")
    assert (domain["domain"], domain["sent"]) == ("example.org", "4")
    assert (domain["opened"], domain["machine_open"]) == ("2", "1")
    assert domain["delivered_rate"] == "0.750000"
    links = table(viewer, f"/console/sends/{send}/links.csv")
    assert {row["link"]: row["clicked"] for row in links} == {A: "1", B: "1"}
    (day,) = table(viewer, f"/console/sends/{send}/days.csv")
    assert (day["delivered"], day["bounce"], day["open"]) == ("3", "1", "2")
