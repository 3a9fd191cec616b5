"""What is measured of a send: publication, issue and send say so, and the request asks for it."""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.headerregistry import HeaderRegistry
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import IssueError, SegmentError, SendError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.parsing.tracking_flags import Tracked, TrackingChoice
from newsletter.issues.store import COMMAND_LINE
from newsletter.operations import settings
from newsletter.provider.gateway import MailRequest
from newsletter.provider.payload import payload
from newsletter.rendering.render import render
from newsletter.rendering.transactional import render_transactional
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.dispatcher import SenderIdentity
from newsletter.sending.delivery.outbox import OutgoingEmail
from newsletter.sending.delivery.personalize import list_id
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.queries import send_status
from newsletter.settings.load import load, resource
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sandbox.test_server import settled
from tests.newsletter.sending.conftest import (
    PUBLICATION,
    FakeGateway,
    dispatcher,
    five,
    make_plan,
    make_send,
)

__all__ = ["five"]

TEMPLATES = resource("templates/email")
SAID = {None: "", True: "true", False: "false"}
BODY = (
    "Read [this](https://x.example/a), or [leave]({{ unsubscribe_url }}), "
    "[choose]({{ preferences_url }}), [look]({{ web_view_url }}).\n"
)


def issue(front: str = "", slug: str = "first", body: str = BODY) -> Any:
    return parse_issue(f"---\nsubject: News\nslug: {slug}\n{front}---\n\n{body}", name="issue.md")


def make(database: Engine, front: str = "", slug: str = "first", **options: Any) -> int:
    draft = issue(front, slug)
    with transaction(database) as session:
        if not any(
            one.segment.name == "everybody" for one in segment_store.listing(session, now=NOW)
        ):
            segment_store.save(session, "everybody", "", now=NOW)
        return send_lifecycle.create(
            session,
            draft,
            render(draft, PUBLICATION, templates=TEMPLATES),
            ["everybody"],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=SendOptions(**options),
            approved_by=COMMAND_LINE,
        ).id


def asked(database: Engine, send: int) -> MailRequest:
    make_plan(database, send, batch_size=5)
    gateway = FakeGateway()
    assert dispatcher(database, gateway).send_next()
    return gateway.requests[0]


@pytest.mark.parametrize(
    ("publication", "of_issue", "of_send"),
    list(itertools.product([True, False], [None, True, False], [None, True, False])),
)
def test_the_send_wins_over_the_issue_and_that_over_the_publication(
    publication: bool,
    of_issue: bool | None,
    of_send: bool | None,
) -> None:
    wins = next(one for one in (of_send, of_issue, publication) if one is not None)
    for what in ("clicks", "opens"):
        front = f"tracking: {{{what}: {SAID[of_issue]}}}\n" if of_issue is not None else ""
        base = Tracked(**{"clicks": True, "opens": True, what: publication})
        options = SendOptions(tracking=TrackingChoice(**{what: of_send}), publication=base)
        found = options.tracked(issue(front))
        assert getattr(found, what) is wins
        # Of the other one nobody said anything.
        assert sum((found.clicks, found.opens)) == 1 + wins


@pytest.mark.parametrize("clicks", [True, False])
@pytest.mark.parametrize("opens", [True, False])
def test_what_was_asked_for_is_kept_and_goes_with_each_request(
    database: Engine, five: list[int], *, clicks: bool, opens: bool
) -> None:
    send = make(database, tracking=TrackingChoice(clicks, opens))
    with reading(database) as session:
        kept = send_status.find(session, send)
        assert (kept.track_clicks, kept.track_opens) == (clicks, opens)
    assert payload(asked(database, send))["tracking_settings"] == {
        "click_tracking": {"enable": clicks, "enable_text": False},
        "open_tracking": {"enable": opens},
        "subscription_tracking": {"enable": False},
    }


def test_both_are_measured_unless_somebody_says_otherwise(
    database: Engine, five: list[int]
) -> None:
    request = asked(database, make_send(database))
    assert (request.track_clicks, request.track_opens) == (True, True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tracking: {clicks: false}", TrackingChoice(clicks=False)),
        ("tracking: {clicks: true, opens: false}", TrackingChoice(clicks=True, opens=False)),
        ("tracking:\n  opens: false", TrackingChoice(opens=False)),
        ("tracking:", TrackingChoice()),
        ("tracking: {}", TrackingChoice()),
    ],
)
def test_an_issue_says_what_is_measured(line: str, said: TrackingChoice) -> None:
    assert issue(f"{line}\n").tracking == said


@pytest.mark.parametrize(
    "line",
    [
        "tracking: off",
        "tracking: [clicks]",
        "tracking: {click: false}",
        "tracking: {clicks: maybe}",
        "tracking: {clicks: [false]}",
        "tracking: {clicks: false, clicks: true}",
        "tracking: {[a]: true}",
    ],
)
def test_a_mistake_in_it_is_told_with_its_line(line: str) -> None:
    with pytest.raises(IssueError) as caught:
        issue(f"{line}\n")
    assert caught.value.place == "issue.md:4"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("by", "choice", "refused"),
    [
        (Measure.CLICKS, TrackingChoice(clicks=False), True),
        (Measure.OPENS, TrackingChoice(opens=False), True),
        (Measure.CLICKS, TrackingChoice(opens=False), False),
        (Measure.OPENS, TrackingChoice(clicks=False), False),
        (Measure.OPERATOR, TrackingChoice(clicks=False, opens=False), False),
    ],
)
def test_no_winner_is_chosen_by_what_is_not_measured(
    database: Engine, five: list[int], by: Measure, choice: TrackingChoice, *, refused: bool
) -> None:
    draft = issue(slug="other")
    other = draft, render(draft, PUBLICATION, templates=TEMPLATES)
    options = {"tracking": choice, "others": [other], "test": ABTest(0.5, by, NOW - NOW)}
    if not refused:
        assert make(database, **options)
        return
    with pytest.raises(SendError, match=f"{by} are not measured") as caught:
        make(database, **options)
    assert "--winner" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        ('clicked_within("2w")', "clicks"),
        ("last_click_at == None", "clicks"),
        ('not clicked_within("1d") and name == "Ann"', "clicks"),
        ("has(last_click_at)", "clicks"),
        ('has("last_click_at")', "clicks"),
        ('opened_within("2w")', "opens"),
        ("last_open_at < days_ago(90)", "opens"),
        ("days_ago(90) > last_open_at", "opens"),
    ],
)
def test_no_send_goes_to_people_whom_nobody_can_know(
    database: Engine, five: list[int], rule: str, needs: str
) -> None:
    with transaction(database) as session:
        segment_store.save(session, "readers", rule, now=NOW)
    whole = {"clicks": True, "opens": True}
    for front in ({"segment_names": ["readers"]}, {"excluded": ["readers"]}):
        draft = issue(slug="other")
        options = SendOptions(
            publication=Tracked(**{**whole, needs: False}), excluded=front.get("excluded", ())
        )
        names = front.get("segment_names", ["everybody"])
        with transaction(database) as session:
            if "everybody" in names:
                segment_store.save(session, "everybody", "", now=NOW)
            with pytest.raises(SegmentError, match=f"{needs} are not tracked"):
                send_lifecycle.create(
                    session,
                    draft,
                    render(draft, PUBLICATION, templates=TEMPLATES),
                    names,
                    by=Actor(None, "operator"),
                    at=NOW,
                    now=NOW,
                    options=options,
                    approved_by=COMMAND_LINE,
                )


OWN = re.compile(r'<a( clicktracking=off)?[^<>]* href="https://news\.example/(\w+)/-nl')


@pytest.mark.parametrize("template", ["letter", "digest"])
def test_our_own_links_are_excepted_in_the_documented_form(template: str) -> None:
    body = BODY if template == "letter" else f"{BODY}\n## Section\n\n{BODY}"
    draft = parse_issue(f"---\nsubject: S\ntemplate: {template}\n---\n\n{body}", name="issue.md")
    html = render(draft, PUBLICATION, templates=TEMPLATES).html
    found = OWN.findall(html)
    assert {path for _, path in found} == {"unsubscribe", "preferences", "view"}
    assert all(mark for mark, _ in found)
    # What the author links to is measured, and nothing is marked twice.
    assert '<a href="https://x.example/a"' in html
    assert "clicktracking" not in re.sub(r"<a clicktracking=off ", "<a ", html)
    assert html.count('href="https://news.example/') == html.count("<a clicktracking=off ")


def test_a_template_of_ones_own_may_except_more(tmp_path: Any) -> None:
    for file in TEMPLATES.rglob("*"):
        if file.is_file():
            to = tmp_path / file.relative_to(TEMPLATES)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(file.read_text())
    footer = tmp_path / "partials" / "footer.mjml"
    link = '<a href="https://x.example/imprint" clicktracking="off">Imprint</a></p>'
    footer.write_text(footer.read_text().replace("</p>", link, 1))
    html = render(issue(), PUBLICATION, templates=tmp_path).html
    assert '<a clicktracking=off href="https://x.example/imprint"' in html


def test_no_link_of_a_single_email_is_measured() -> None:
    words = render_transactional(
        PUBLICATION,
        templates=TEMPLATES,
        title="Confirm",
        paragraphs=["One.", "Two."],
        button=("Yes", "https://news.example/confirm/AgEB?a=1&b=2"),
        footer="Bye.",
    )
    assert re.findall(r"<a [^<>]*>", words.html)
    assert all(
        tag.startswith("<a clicktracking=off ") for tag in re.findall("<a [^>]*>", words.html)
    )


@pytest.mark.parametrize("reply_to", ["", "answers@example.org"])
def test_a_single_email_says_that_a_machine_wrote_it_and_where_to_answer(
    database: Engine, reply_to: str
) -> None:
    mail = OutgoingEmail("Confirm", "<p>Yes</p>", "Yes")
    with transaction(database) as session:
        outbox.enqueue(session, kind="confirm", email="a@example.org", mail=mail, now=NOW)
    gateway = FakeGateway()
    sends = dispatcher(database, gateway)
    sends._sender = lambda: SenderIdentity("news@example.org", "Paper", reply_to)
    assert sends.send_outbox_email()
    body = payload(gateway.requests[0])
    assert body["headers"] == {"Auto-Submitted": "auto-generated"}
    assert body.get("reply_to") == ({"email": reply_to} if reply_to else None)
    assert body["tracking_settings"]["click_tracking"]["enable"] is False
    assert body["tracking_settings"]["open_tracking"]["enable"] is False


def test_the_service_answers_where_its_settings_say(environment: dict[str, str]) -> None:
    environment["NEWSLETTER_SENDER__REPLY_TO"] = "answers@example.org"
    environment["NEWSLETTER_SITE__NAME"] = "Our paper"
    parts = Container(load(environment))
    sends = parts.dispatcher(Heartbeat(parts.database))
    sender = sends._sender()
    assert (sender.reply_to, sender.publication) == ("answers@example.org", "Our paper")
    with transaction(parts.database) as session:
        by, values = Actor(None, "test"), {"sender.name": "Another"}
        settings.change(session, parts, values, by=by, now=datetime.now(UTC))
    parts.current_settings.forget()
    # A worker that runs already takes it up.
    assert sends._sender().name == "Another"
    parts.database.dispose()


@pytest.mark.parametrize(
    ("base_url", "topics", "name", "header"),
    [
        ("https://news.example", [], "Paper", "Paper <newsletter.news.example>"),
        ("https://news.example:8443/letters", [], "", "<newsletter.news.example>"),
        ("https://news.example", ["eng_1"], "Paper", "Paper <eng_1.newsletter.news.example>"),
        ("https://news.example", ["a", "b"], "Paper", "Paper <newsletter.news.example>"),
        ("http://[::1]:8000", [], "", "<newsletter.localhost>"),
        ("https://bücher.example", [], "", "<newsletter.xn--bcher-kva.example>"),
        ("https://n.example", [], "A @ B, <C>", '"A @ B, <C>" <newsletter.n.example>'),
    ],
)
def test_a_list_has_one_identifier_for_good(
    base_url: str, topics: list[str], name: str, header: str
) -> None:
    assert list_id(base_url, topics, name=name) == header


@pytest.mark.parametrize("name", ["Zeitung für alle", "新聞" * 40, "a" * 400, 'Q"uote\\', " "])
def test_the_name_in_it_is_whatever_the_publication_is_called(name: str) -> None:
    header = list_id("https://n.example", [], name=name)
    assert header.isascii()
    assert "\n" not in header
    assert header.endswith("<newsletter.n.example>")
    parsed = str(HeaderRegistry()("X-List", header))
    assert name.strip()[:5] in parsed.replace("\\", "").replace('Q"', 'Q"') or name == 'Q"uote\\'


def test_an_issue_carries_it_and_another_issue_the_same(database: Engine, five: list[int]) -> None:
    first = asked(database, make(database))
    second = asked(database, make(database, slug="second"))
    assert first.headers["List-Id"] == second.headers["List-Id"]


# The whole way, against a stand-in that obeys the request


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    config = SandboxConfig(event_rates={}, event_delay=0.0, api_keys=frozenset({"SG.test"}))
    with start_sandbox(config) as running:
        yield running


@pytest.mark.parametrize(
    ("clicks", "opens", "happens"),
    [
        (True, True, {"open", "click"}),
        (False, True, {"open"}),
        (True, False, {"click"}),
        (False, False, set()),
    ],
)
def test_clicks_and_opens_come_back_only_where_they_were_asked_for(
    environment: dict[str, str],
    sandbox: RunningSandbox,
    *,
    clicks: bool,
    opens: bool,
    happens: set[str],
) -> None:
    environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
    parts = Container(load(environment))
    with transaction(parts.database) as session:
        for n in range(8):
            add_person(session, f"click+{n}@example.org")
    send = make(parts.database, tracking=TrackingChoice(clicks, opens))
    make_plan(parts.database, send, batch_size=8)
    assert parts.dispatcher(Heartbeat(parts.database)).send_next()
    told = settled(sandbox)["events"]
    assert set(told) - {"processed", "delivered"} == happens
    events = [event for n in range(1, 9) for event in sandbox.store.events_of(n)]
    assert {e["url"] for e in events if e["event"] == "click"} <= {"https://x.example/a"}
    mail = httpx.get(f"{sandbox.url}/sandbox/messages/1").json()
    assert mail["headers"]["List-Id"] == "My newsletter <newsletter.127.0.0.1>"
    assert json.dumps(mail).count("clicktracking=off") >= 4
    parts.database.dispose()


def test_a_single_email_is_taken_and_brings_no_click_and_no_open(
    environment: dict[str, str], sandbox: RunningSandbox
) -> None:
    environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
    parts = Container(load(environment))
    words = render_transactional(
        parts.publication,
        templates=TEMPLATES,
        title="Confirm",
        paragraphs=["One."],
        button=("Yes", "http://127.0.0.1:8000/confirm/AgEB"),
        footer="Bye.",
    )
    mail = OutgoingEmail(words.subject, words.html, words.text)
    with transaction(parts.database) as session:
        outbox.enqueue(session, kind="confirm", email="click@example.org", mail=mail, now=NOW)
    assert parts.dispatcher(Heartbeat(parts.database)).send_outbox_email()
    assert set(settled(sandbox)["events"]) == {"processed", "delivered"}
    parts.database.dispose()
