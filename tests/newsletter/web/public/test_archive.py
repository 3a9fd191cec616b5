"""The public archive, as everybody, a cache, a feed reader and a crawler meet it."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import Engine, update
from starlette.testclient import TestClient

from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.issues import store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.links import Purpose
from newsletter.rendering.render import render
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.settings.load import load, resource
from newsletter.web.app import create_app
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, drain, make_plan

HTML = {"accept": "text/html"}
#: Stands in every value of the only subscriber, and in nothing else.
CANARY = "canaryzz"
ISSUE = """---
subject: {subject}
preheader: Words for {{{{ name | default("everybody") }}}}
title: '{title}'
slug: {slug}
series: {series}
---

Good day, {{{{ name | default("reader") }}}} of {{{{ attributes.company | default("somewhere") }}}}
({{{{ email | default("nobody") }}}}). [Choose]({{{{ preferences_url }}}}),
[leave]({{{{ unsubscribe_url }}}}),
[share](https://share.example/?by={{{{ email }}}}&of={{{{ web_view_url }}}}).
"""

Publish = Callable[..., None]


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Container]:
    own = {
        "NEWSLETTER_SITE__NAME": "Paper & <Ink>",
        "NEWSLETTER_SITE__BASE_URL": "https://news.example",
        "NEWSLETTER_SITE__TIMEZONE": "Pacific/Auckland",
    }
    container = Container(load(environment | own))
    yield container
    container.database.dispose()


@pytest.fixture
def publish(parts: Container) -> Publish:
    """Sends an issue to the one subscriber, of whom much is known."""
    with transaction(parts.database) as session:
        add_person(
            session,
            f"{CANARY}@example.org",
            name=f"Name {CANARY}",
            attributes={"company": f"Company {CANARY}"},
        )
        segment_store.save(session, "everybody", "", now=NOW)

    def sent(slug: str, *, at: datetime = NOW, **words: str) -> None:
        words = {"subject": slug, "title": slug, "series": "letter", **words}
        draft = parse_issue(ISSUE.format(slug=slug, **words), name=f"{slug}.md")
        rendered = render(draft, parts.publication, templates=resource("templates/email"))
        with transaction(parts.database) as session:
            send = send_lifecycle.create(
                session,
                draft,
                rendered,
                ["everybody"],
                by=Actor(None, "operator"),
                at=NOW,
                now=NOW,
                approved_by=COMMAND_LINE,
            )
        make_plan(parts.database, send.id)
        gateway = drain(parts.database, FakeGateway())
        assert CANARY in str(gateway.requests[0].recipients[0].substitutions)
        issue = table_of(Issue)
        with transaction(parts.database) as session:
            session.execute(update(issue).where(issue.c.slug == slug).values(published_at=at))

    return sent


@pytest.fixture
def client(parts: Container) -> TestClient:
    return TestClient(create_app(parts, background=False), headers=HTML, follow_redirects=False)


def test_an_issue_is_shown_without_anybodys_values_or_links(
    client: TestClient, publish: Publish
) -> None:
    publish("first", title='"Quotes" & <angles>')
    for path in ("/archive", "/archive/first", "/archive/feed.xml", "/sitemap.xml"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert CANARY not in answer.text
        assert not re.search(r"/(unsubscribe|preferences|view)/", answer.text)
        assert "<angles>" not in answer.text
    page = client.get("/archive/first").text
    assert "Good day, reader of somewhere" in page
    assert "(nobody)" in page
    assert 'href="https://share.example/?by=&amp;of=https://news.example/archive/first"' in page
    assert page.count('href="https://news.example/subscribe"') == 2
    assert "-nl" not in page


def test_a_page_says_what_it_is_to_those_who_link_to_it(
    client: TestClient, publish: Publish
) -> None:
    publish("first", title='"Quotes" & <angles>')
    page = client.get("/archive/first").text
    title = "&#34;Quotes&#34; &amp; &lt;angles&gt;"
    for line in (
        '<link rel="canonical" href="https://news.example/archive/first">',
        f'<meta property="og:title" content="{title}">',
        '<meta property="og:description" content="Words for everybody">',
        '<meta property="og:url" content="https://news.example/archive/first">',
        '<meta property="og:site_name" content="Paper &amp; &lt;Ink&gt;">',
        '<meta property="article:published_time" content="2026-03-27T07:00:00+00:00">',
        f"<title>{title} · Paper &amp; &lt;Ink&gt;</title>",
        '<time datetime="2026-03-27T20:00:00+13:00">27 March 2026</time>',
    ):
        assert line in page
    assert page.count("<title>") == page.count("<body") == page.count("<main>") == 1
    assert 'href="https://news.example/archive/feed.xml"' in client.get("/archive").text


def test_a_page_runs_nothing_and_may_be_kept_by_everybody(
    client: TestClient, publish: Publish
) -> None:
    publish("first")
    answer = client.get("/archive/first")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    for path in ("/archive", "/archive/first", "/archive/feed.xml", "/sitemap.xml", "/robots.txt"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "public, max-age=300"
        assert "set-cookie" not in answer.headers
        assert "x-robots-tag" not in answer.headers
        again = client.get(path, headers={"if-none-match": f'"other", W/{answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]
        assert client.post(path).status_code == 405


def test_a_page_is_asked_for_by_date(client: TestClient, publish: Publish) -> None:
    publish("first")
    seen = client.get("/archive/first").headers["last-modified"]
    assert seen == "Fri, 27 Mar 2026 07:00:00 GMT"
    for since, status in (
        (seen, 304),
        ("Fri, 27 Mar 2026 06:59:59 GMT", 200),
        ("yesterday", 200),
        ("Fri, 27 Mar 99999999 06:59:59 GMT", 200),
    ):
        answer = client.get("/archive/first", headers={"if-modified-since": since})
        assert answer.status_code == status, since
    both = {"if-modified-since": seen, "if-none-match": '"other"'}
    assert client.get("/archive/first", headers=both).status_code == 200


def test_the_feed_is_what_rfc_4287_asks_for(client: TestClient, publish: Publish) -> None:
    publish("first", title="Ampersand & <b>")
    publish("second", at=NOW + timedelta(days=1), series="odd-words")
    answer = client.get("/archive/feed.xml")
    assert answer.headers["content-type"] == "application/atom+xml; charset=utf-8"
    atom = "{http://www.w3.org/2005/Atom}"
    feed = ET.fromstring(answer.content)
    assert feed.tag == f"{atom}feed"
    assert feed.findtext(f"{atom}id") == "https://news.example/archive/feed.xml"
    assert feed.findtext(f"{atom}title") == "Paper & <Ink>"
    assert feed.findtext(f"{atom}author/{atom}name") == "Paper & <Ink>"
    assert feed.findtext(f"{atom}updated") == "2026-03-28T07:00:00Z"
    links = {link.get("rel"): link.get("href") for link in feed.findall(f"{atom}link")}
    assert links == {
        "self": "https://news.example/archive/feed.xml",
        "alternate": "https://news.example/archive",
    }
    entries = feed.findall(f"{atom}entry")
    assert [one.findtext(f"{atom}title") for one in entries] == ["second", "Ampersand & <b>"]
    assert entries[1].findtext(f"{atom}updated") == "2026-03-27T07:00:00Z"
    assert entries[1].findtext(f"{atom}summary") == "Words for everybody"
    ids = [one.findtext(f"{atom}id") for one in entries]
    assert len(set(ids)) == 2
    assert all(one and one.startswith("urn:uuid:") for one in ids)
    again = ET.fromstring(client.get("/archive/feed.xml").content)
    assert [one.findtext(f"{atom}id") for one in again.findall(f"{atom}entry")] == ids
    own = ET.fromstring(client.get("/archive/feed.xml?series=odd-words").content)
    assert len(own.findall(f"{atom}entry")) == 1
    assert own.findtext(f"{atom}id") == "https://news.example/archive/feed.xml?series=odd-words"


def test_an_empty_archive_has_valid_pages(client: TestClient) -> None:
    assert "No issue has been sent yet" in client.get("/archive").text
    feed = ET.fromstring(client.get("/archive/feed.xml").content)
    assert feed.findtext("{http://www.w3.org/2005/Atom}updated") == "1970-01-01T00:00:00Z"
    assert b"/archive</loc>" in client.get("/sitemap.xml").content


def test_crawlers_are_told_what_there_is(client: TestClient, publish: Publish) -> None:
    publish("first")
    robots = client.get("/robots.txt")
    assert robots.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Sitemap: https://news.example/sitemap.xml\n" in robots.text
    urls = ET.fromstring(client.get("/sitemap.xml").content)
    name = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    found = {one.findtext(f"{name}loc"): one.findtext(f"{name}lastmod") for one in urls}
    assert found == {
        "https://news.example/subscribe": None,
        "https://news.example/archive": None,
        "https://news.example/archive/first": "2026-03-27T07:00:00Z",
    }


def test_an_issue_that_is_taken_out_is_gone_everywhere(
    client: TestClient, publish: Publish, parts: Container
) -> None:
    publish("first")
    with transaction(parts.database) as session:
        store.switch_archive(session, "first", on=False, by=COMMAND_LINE, now=NOW)
    assert client.get("/archive/first").status_code == 404
    for path in ("/archive", "/archive/feed.xml", "/sitemap.xml"):
        assert "archive/first" not in client.get(path).text


def test_an_edit_that_nobody_approved_moves_no_issue_to_another_series(
    client: TestClient, publish: Publish, parts: Container
) -> None:
    publish("first")
    text = ISSUE.format(slug="first", subject="x", title="x", series="secret")
    with transaction(parts.database) as session:
        store.save(session, parse_issue(text, name="first.md"), by=COMMAND_LINE, now=NOW)
    for path in ("/archive", "/archive/feed.xml", "/archive/first"):
        of_series = client.get(path, params={"series": "letter"})
        assert of_series.status_code == 200, path
        assert "/archive/first" in of_series.text, path
        assert "secret" not in client.get(path).text, path
    assert client.get("/archive?series=secret").status_code == 404


def test_an_archive_that_is_switched_off_is_nowhere(
    environment: dict[str, str], publish: Publish
) -> None:
    publish("first")
    parts = Container(load(environment | {"NEWSLETTER_ARCHIVE__ENABLED": "false"}))
    client = TestClient(create_app(parts, background=False), headers=HTML)
    for path in ("/archive", "/archive/first", "/archive/feed.xml"):
        assert client.get(path).status_code == 404
    assert "archive" not in client.get("/sitemap.xml").text
    parts.database.dispose()


@pytest.mark.slow
def test_the_index_has_pages_series_and_years_of_the_publications_zone(
    client: TestClient, publish: Publish, parts: Container
) -> None:
    publish("old", at=datetime(2024, 12, 31, 10, 59, tzinfo=UTC))
    publish("new-year", at=datetime(2024, 12, 31, 11, 0, tzinfo=UTC), series="odd")
    page = client.get("/archive").text
    assert page.index("2025</h2>") < page.index("new-year") < page.index("2024</h2>")
    assert '<a href="/archive?series=odd">odd</a>' in page
    assert '<a href="/archive?year=2024">2024</a>' in page
    only = client.get("/archive?year=2025").text
    assert "/archive/new-year" in only
    assert "/archive/old" not in only
    assert "/archive/old" not in client.get("/archive?series=odd").text
    issue = table_of(Issue)
    with transaction(parts.database) as session:
        send = store.find(session, "old").published_send
        for number in range(60):
            words = {"slug": f"n{number}", "title": "x", "since": NOW, "created_at": NOW}
            more = {"published_at": NOW + timedelta(hours=number), "published_send": send}
            session.execute(
                issue.insert().values(**words, **more, state="draft", archive=True, series="s")
            )
    first, second = client.get("/archive").text, client.get("/archive?page=2").text
    assert first.count("<li>") == second.count("<li>") == 30
    assert '<a href="/archive?page=2" rel="next">' in first
    assert 'rel="prev"' not in first
    assert '<a href="/archive" rel="prev">' in second
    assert '<a href="/archive?page=3" rel="next">' in second
    third = client.get("/archive?page=3").text
    assert third.count("<li>") == 2
    assert 'rel="next"' not in third


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/archive/nothing", 404),
        ("/archive/%00", 404),
        ("/archive/..%2f..%2fetc%2fpasswd", 404),
        ("/archive/" + "x" * 5000, 404),
        ("/archive/first.html", 404),
        ("/archive?series=none", 404),
        ("/archive?series=%00", 422),
        ("/archive?year=1999", 404),
        ("/archive?year=99999", 422),
        ("/archive?year=x", 422),
        ("/archive?page=0", 422),
        ("/archive?page=2", 404),
        ("/archive?page=99999999999999999999", 422),
        ("/archive/feed.xml?series=none", 404),
        ("/archive/feed.xml?series=" + "x" * 200, 422),
    ],
)
def test_what_is_not_there_is_said_in_words(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert "<h1>" in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_titles_of_any_characters_make_valid_xml(
    client: TestClient, publish: Publish, parts: Container, database: Engine
) -> None:
    publish("first")
    table = table_of(Revision)
    with transaction(parts.database) as session:
        session.execute(update(table).values(title="a\x0b\x1f\ufffe\U0001f600]]>&amp;"))
    feed = ET.fromstring(client.get("/archive/feed.xml").content)
    entry = feed.find("{http://www.w3.org/2005/Atom}entry/{http://www.w3.org/2005/Atom}title")
    assert entry is not None
    assert entry.text == "a\ufffd\ufffd\ufffd\U0001f600]]>&amp;"


def own_link(parts: Container) -> str:
    """What stands behind “Read on the web” in the mail of the only reader."""
    return f"/view/{parts.links.token(Purpose.RECIPIENT, 1, 1)}"


def test_read_on_the_web_leads_to_the_archive_where_the_issue_is_public(
    client: TestClient, publish: Publish, parts: Container
) -> None:
    publish("first")
    answer = client.get(own_link(parts))
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "https://news.example/archive/first",
    )
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("why", ["kept out", "no archive", "not sent to all"])
def test_what_is_not_public_is_read_under_an_address_that_may_be_passed_on(
    client: TestClient, publish: Publish, parts: Container, why: str
) -> None:
    publish("first")
    if why == "no archive":
        own = parts.settings.model_copy(
            update={"archive": parts.settings.archive.model_copy(update={"enabled": False})}
        )
        other = Container(own)
        other.__dict__["database"] = parts.database
        client = TestClient(
            create_app(other, background=False), headers=HTML, follow_redirects=False
        )
    with transaction(parts.database) as session:
        values = {"archive": why == "no archive", "archive_set": why != "not sent to all"}
        session.execute(update(table_of(Issue)).values(values))
        # Whoever has the address of an old mail learns nothing of its reader.
        session.execute(
            update(table_of(Subscriber)).values(
                name=f"Later {CANARY}", email=f"later-{CANARY}@example.org"
            )
        )
    mine = own_link(parts)
    answer = client.get(mine)
    assert answer.status_code == 303
    address = answer.headers["location"].removeprefix("https://news.example")
    assert address.startswith("/shared/")
    shown = client.get(address)
    assert shown.status_code == 200
    assert "Good day, reader of somewhere" in shown.text
    assert CANARY not in shown.text + str(shown.headers) + address
    token = mine.removeprefix("/view/")
    assert token not in shown.text + address
    assert not re.search(r"/(unsubscribe|preferences|view)/", shown.text)
    assert f'of=https://news.example{address}"' in shown.text
    assert shown.headers["x-robots-tag"] == "noindex"
    assert "sandbox" in shown.headers["content-security-policy"]
    # The address opens this door alone.
    shared = address.removeprefix("/shared/")
    for door in ("unsubscribe", "preferences", "view"):
        assert client.get(f"/{door}/{shared}").status_code in {400, 404, 410}
    assert client.get(f"/shared/{token}").status_code in {400, 404, 410}


def test_an_issue_that_is_no_longer_kept_says_so(
    client: TestClient, publish: Publish, parts: Container
) -> None:
    publish("first")
    for path in (
        f"/view/{parts.links.token(Purpose.RECIPIENT, 99, 1)}",
        f"/shared/{parts.links.token(Purpose.VIEW, 99)}",
    ):
        answer = client.get(path)
        assert answer.status_code < 500
        assert "no longer available" in answer.text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_front_page_leads_to_what_there_is(
    client: TestClient, publish: Publish, parts: Container, method: str
) -> None:
    def front() -> str:
        answer = client.request(method, "/", follow_redirects=True)
        assert answer.status_code == 200
        return str(answer.url.path)

    assert front() == "/subscribe"
    publish("first")
    assert front() == "/archive"
    with transaction(parts.database) as session:
        store.switch_archive(session, "first", on=False, by=COMMAND_LINE, now=NOW)
    assert front() == "/subscribe"
