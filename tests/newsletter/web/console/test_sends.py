"""Sends in the console: who may do what, what is shown, and what a wrong click comes to."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import Engine, select, update

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.provider.gateway import Accepted, Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import Batch, ProviderBackoff, Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.planner import plan
from newsletter.sending.queries import send_status
from subscribers.consent import suppression
from subscribers.models import SuppressionReason
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_send, send_state
from tests.newsletter.web.conftest import Browser, Office

XSS = "<script>alert(1)</script>"
_send, _batch = table_of(Send), table_of(Batch)


@pytest.fixture
def audience(office: Office) -> list[int]:
    """Five people, and the segment of everybody."""
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        return [add_person(session, f"p{n}@example.org", name=f"P{n}") for n in range(5)]


@pytest.fixture
def going(office: Office, audience: list[int]) -> int:
    """A send to all five, in batches of two, of which nothing has left."""
    return started(office.parts.database)


def started(database: Engine, slug: str = "first") -> int:
    send = make_send(database, slug=slug)
    with transaction(database) as session:
        plan(session, send, now=datetime.now(UTC), batch_size=2)
    return send


def approved(
    office: Office, slug: str = "spring", subject: str = "Spring is here", body: str = "Hello."
) -> int:
    """An approved issue; its revision's number."""
    source = f"---\nsubject: {subject}\nslug: {slug}\n---\n\n{body}\n"
    now = datetime.now(UTC)
    with transaction(office.parts.database) as session:
        saved = store.save(session, parse_issue(source, name="x.md"), by=COMMAND_LINE, now=now)
        approval.request(session, slug, by=COMMAND_LINE, now=now)
        number = saved.revision.number
        approval.approve(session, slug, revision=number, by=COMMAND_LINE, now=now)
        return number


def hidden(page: httpx.Response) -> dict[str, Any]:
    """What the page in between carries on."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text):
        if name == "segment":
            found.setdefault(name, []).append(value)
        elif name != "csrf":
            found[name] = value
    return found


def log_of(office: Office) -> list[tuple[str, str]]:
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        rows = session.execute(select(entry.c.action, entry.c.subject).order_by(entry.c.id))
        return [(row.action, row.subject) for row in rows]


def act(browser: Browser, send: int, what: str, **data: str) -> httpx.Response:
    return browser.post(f"/console/sends/{send}/{what}", **data)


# The list


def test_the_list_finds_sends_by_words_and_by_phase(office: Office, audience: list[int]) -> None:
    database = office.parts.database
    going = started(database, "winter-letter")
    coming = make_send(database, slug="summer-letter", at=NOW + timedelta(days=9000))
    viewer = office.signed_in(Role.VIEWER)

    def found(query: str) -> set[int]:
        text = viewer.get(f"/console/sends{query}").text
        return {int(n) for n in re.findall(r'href="/console/sends/(\d+)"', text)}

    assert found("") == {going, coming}
    assert found("?q=winter") == {going}
    assert found("?q=LETTER+winter") == {going}
    assert found("?q=100%25") == set()
    assert found("?phase=scheduled") == {coming}
    assert found("?phase=in+progress") == {going}
    assert found("?phase=ended") == set()
    assert found("?phase=nonsense&before=nonsense") == {going, coming}
    assert found(f"?before={coming}") == {going}


def test_a_long_list_is_paged(office: Office, audience: list[int]) -> None:
    database = office.parts.database
    first = make_send(database)
    with transaction(database) as session:
        row = session.execute(select(_send).where(_send.c.id == first)).one()._asdict()
        rows = [{**row, "id": first + n} for n in range(1, 120)]
        session.connection().execute(_send.insert(), rows)
    viewer = office.signed_in(Role.VIEWER)
    seen: list[str] = []
    query = ""
    while True:
        text = viewer.get(f"/console/sends{query}").text
        seen += re.findall(r'class="strong" href="/console/sends/(\d+)"', text)
        older = re.search(r'href="/console/sends(\?before=\d+)">Older', text)
        if older is None:
            break
        query = older[1]
    assert seen == [str(first + n) for n in range(119, -1, -1)]


# One send


def test_a_sends_page_shows_where_its_people_stand(office: Office, going: int) -> None:
    gateway = FakeGateway(Accepted("1"), Unknown("no answer"))
    dispatcher(office.parts.database, gateway).send_next()
    dispatcher(office.parts.database, gateway).send_next()
    text = office.signed_in(Role.VIEWER).get(f"/console/sends/{going}").text
    assert "2 accepted" in text
    assert "2 uncertain" in text
    assert "1 waiting" in text
    assert "no answer" in text
    assert "40 %" in text


def test_there_is_no_such_send(office: Office) -> None:
    viewer = office.signed_in(Role.VIEWER)
    for path in ("999", "999/people", "999/test", "999/live", str(2**70)):
        assert viewer.get(f"/console/sends/{path}").status_code == 404


def test_viewers_and_editors_are_offered_nothing_that_they_may_not_do(
    office: Office, going: int
) -> None:
    for each in (Role.VIEWER, Role.EDITOR):
        browser = office.signed_in(each)
        assert (
            "<button"
            not in browser.get(f"/console/sends/{going}").text.split("<main")[1].split("</main")[0]
        )
        assert "New send" not in browser.get("/console/sends").text
        assert act(browser, going, "pause").status_code == 403
    assert send_state(office.parts.database, going) == "sending"


def test_pause_resume_cancel_are_done_once_and_written_down(office: Office, going: int) -> None:
    database, approver = office.parts.database, office.signed_in(Role.APPROVER)
    assert act(approver, going, "pause").status_code == 303
    assert send_state(database, going) == "paused"
    assert "<p>Paused by approver@example.org</p>" in approver.get(f"/console/sends/{going}").text
    twice = act(approver, going, "pause")
    assert twice.status_code == 400
    assert "It is paused and cannot become paused" in twice.text
    assert act(approver, going, "resume").status_code == 303
    assert send_state(database, going) == "sending"
    assert act(approver, going, "cancel").status_code == 303
    assert send_state(database, going) == "cancelled"
    assert act(approver, going, "resume").status_code == 400
    subject = f"send {going} (first)"
    assert log_of(office)[-3:] == [
        ("send paused", subject),
        ("send resumed", subject),
        ("send cancelled", subject),
    ]


def test_what_was_done_is_said_only_as_long_as_it_is_so(office: Office, going: int) -> None:
    approver = office.signed_in(Role.APPROVER)
    act(approver, going, "pause")
    answer = act(approver, going, "resume")
    assert "Sending resumed." in approver.get(answer.headers["location"]).text
    while dispatcher(office.parts.database, FakeGateway()).send_next():
        pass
    assert send_state(office.parts.database, going) == "sent"
    assert "Sending resumed." not in approver.get(answer.headers["location"]).text


def lost(database: Engine, requests: int) -> None:
    """So many requests leave whose answers never come."""
    for _ in range(requests):
        with transaction(database) as session:
            provider_backoff.lift(session)
        assert dispatcher(database, FakeGateway(Unknown("no answer"))).send_next()


def test_doubts_are_settled_together_by_who_may_send_and_the_log_says_so(
    office: Office, going: int
) -> None:
    database, approver = office.parts.database, office.signed_in(Role.APPROVER)
    lost(database, 2)
    page = f"/console/sends/{going}"
    assert "Send all again" not in office.signed_in(Role.VIEWER).get(page).text
    text = approver.get(page).text
    assert "Send all 2 batches again" in text
    assert "4 recipients in total" in text
    assert "No events for later batches have arrived either" in text
    (shown,) = set(re.findall(r'name="left_by" value="([^"]+)"', text))
    # What came into doubt after the page was shown is not meant.
    lost(database, 1)
    answer = act(approver, going, "resolve", batch="all", answer="sent", left_by=shown)
    assert "The batches count as sent." in approver.get(answer.headers["location"]).text
    assert states_of(database, going) == {1: "accepted", 2: "accepted", 3: "uncertain"}
    assert ("2 uncertain batches marked as sent", f"send {going} (first)") in log_of(office)
    for word, when in (("sent", ""), ("sent", "2026-01-01T00:00"), ("perhaps", shown), ("", "x")):
        answer = act(approver, going, "resolve", batch="all", answer=word, left_by=when)
        assert answer.status_code == 400
    # All that was shown is settled already.
    answer = act(approver, going, "resolve", batch="all", answer="resend", left_by=shown)
    assert answer.status_code == 400
    assert states_of(database, going)[3] == "uncertain"
    later = datetime.now(UTC).isoformat()
    for role, status in ((Role.VIEWER, 403), (Role.EDITOR, 403), (Role.APPROVER, 303)):
        browser = office.signed_in(role)
        answer = act(browser, going, "resolve", batch="all", answer="resend", left_by=later)
        assert answer.status_code == status
    assert states_of(database, going)[3] == "pending"


def states_of(database: Engine, send: int) -> dict[int, str]:
    with reading(database) as session:
        rows = session.execute(
            select(_batch.c.number, _batch.c.state).where(_batch.c.send_id == send)
        )
        return {row.number: row.state for row in rows}


def test_the_pages_say_that_sending_is_stopped_and_when_it_is_tried_again(
    office: Office, going: int
) -> None:
    viewer = office.signed_in(Role.VIEWER)
    lost(office.parts.database, 1)
    with transaction(office.parts.database) as session:
        session.execute(
            update(table_of(ProviderBackoff)).values(until=datetime.now(UTC) + timedelta(hours=1))
        )
    for page in ("/console/", f"/console/sends/{going}"):
        text = viewer.get(page).text
        assert "the provider does not accept emails" in text
        assert "no answer" in text
        assert "ext attempt, with a few emails" in text
    with transaction(office.parts.database) as session:
        session.execute(update(table_of(ProviderBackoff)).values(until=datetime.now(UTC)))
    for page in ("/console/", f"/console/sends/{going}"):
        assert "ttempt with a few emails is running" in viewer.get(page).text
    # Nobody is kept waiting by it: nothing is to be done.
    with transaction(office.parts.database) as session:
        send_lifecycle.pause(
            session, going, by=Actor(None, "operator"), reason="wait", now=datetime.now(UTC)
        )
    assert "does not accept emails" not in viewer.get("/console/").text


def test_a_doubt_is_settled_by_the_operators_word_and_only_a_doubt(
    office: Office, going: int
) -> None:
    database, approver = office.parts.database, office.signed_in(Role.APPROVER)
    lost(database, 2)
    assert act(approver, going, "resolve", batch="1", answer="sent").status_code == 303
    assert act(approver, going, "resolve", batch="2", answer="resend").status_code == 303
    assert act(approver, going, "resolve", batch="2", answer="sent").status_code == 400
    assert act(approver, going, "resolve", batch="3", answer="sent").status_code == 400
    assert act(approver, going, "resolve", batch="x", answer="sent").status_code == 400
    assert act(approver, going, "resolve", batch="3", answer="perhaps").status_code == 400
    with reading(database) as session:
        rows = session.execute(
            select(_batch.c.number, _batch.c.state).where(_batch.c.send_id == going)
        )
        assert {row.number: row.state for row in rows} == {
            1: "accepted",
            2: "pending",
            3: "pending",
        }


def test_the_pace_is_changed_and_nonsense_is_refused_in_words(office: Office, going: int) -> None:
    database, approver = office.parts.database, office.signed_in(Role.APPROVER)
    assert act(approver, going, "pace", per_hour="1,000", quiet="22:00-07:00").status_code == 303
    with reading(database) as session:
        timetable = send_status.find(session, going).timetable
    assert (timetable["per_hour"], timetable["quiet"]) == (1000, "22:00-07:00")
    for field, value in (
        ("rate", "fast"),
        ("rate", "nan"),
        ("per_hour", "0"),
        ("per_day", "9" * 39),
        ("per_day", "1.5"),
        ("quiet", "always"),
    ):
        answer = act(approver, going, "pace", **{field: value})
        assert answer.status_code == 400, (field, value)
        assert 'role="alert"' in answer.text
    with reading(database) as session:
        assert send_status.find(session, going).timetable == timetable


def test_those_who_missed_it_get_it_and_nobody_else(office: Office, going: int) -> None:
    database, approver = office.parts.database, office.signed_in(Role.APPROVER)
    gateway = FakeGateway(Refused(400, "bad", recipient=0))
    while dispatcher(database, gateway).send_next():
        pass
    refused = gateway.requests[0].recipients[0].email
    assert send_state(database, going) == "sent"
    assert "Retry</h2>" in approver.get(f"/console/sends/{going}").text
    assert act(approver, going, "retry").status_code == 303
    while dispatcher(database, gateway).send_next():
        pass
    assert gateway.requests[-1].recipients[0].email == refused
    assert len(gateway.requests[-1].recipients) == 1
    assert act(approver, going, "retry").status_code == 400


# Its people


def test_people_are_paged_filtered_and_found_by_address(
    office: Office, audience: list[int]
) -> None:
    database, viewer = office.parts.database, office.signed_in(Role.VIEWER)
    with transaction(database) as session:
        for n in range(5, 150):
            add_person(session, f"p{n}@example.org")
    send = started(database)
    with transaction(database) as session:
        suppression.add(
            session, [audience[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x"
        )
    dispatcher(database, FakeGateway()).send_next()
    seen: list[str] = []
    query: str | None = ""
    while query is not None:
        text = viewer.get(f"/console/sends/{send}/people{query}").text
        seen += re.findall(r">(p\d+@example\.org)<", text)
        following = re.search(r'people(\?after=[\d-]+)">Next', text)
        query = following[1] if following else None
    assert seen == [f"p{n}@example.org" for n in range(150)]

    def found(query: str) -> list[str]:
        text = viewer.get(f"/console/sends/{send}/people?{query}").text
        return re.findall(r">(p\d+@example\.org)<", text)

    assert found("state=skipped") == ["p0@example.org"]
    assert found("q=P7%40Example.org") == ["p7@example.org"]
    assert found("q=nobody%40example.org") == []
    assert found("q=no+address") == []
    assert len(found("state=delivered")) == 100  # no filter: everybody
    assert len(found("after=x-y")) == 100


# Making one


def wish(**more: Any) -> dict[str, Any]:
    return {"issue": "spring", "segment": ["everybody"], "when": "now", **more}


def test_what_is_shown_is_what_is_made_and_only_then(office: Office, audience: list[int]) -> None:
    approved(office)
    approver = office.signed_in(Role.APPROVER)
    assert "Spring is here" in approver.get("/console/sends/new").text
    with transaction(office.parts.database) as session:
        suppression.add(session, [audience[0]], SuppressionReason.BOUNCED, at=NOW, evidence="x")
    shown = approver.post("/console/sends/new", **wish())
    assert ">4 recipients</h2>" in shown.text
    assert "Excluded: bounced" in shown.text
    with reading(office.parts.database) as session:
        assert send_status.latest_sends(session) == []
    made = approver.post("/console/sends/new", **{**hidden(shown), "step": "send"})
    assert made.status_code == 303
    number = int(re.findall(r"\d+", made.headers["location"])[0])
    with reading(office.parts.database) as session:
        send = send_status.find(session, number)
        assert (send.state, [s["name"] for s in send.segments]) == ("scheduled", ["everybody"])
    assert log_of(office)[-1] == ("send created", f"send {number} (spring)")


def test_what_the_checks_find_is_shown_and_what_blocks_is_not_sent(
    open_office: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[placeholders]\nlevel = "block"\n')
    offices = [open_office(require_second_factor="false")]
    with transaction(offices[0].parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approved(offices[0], body="Dear {{ name }}")
    approver = offices[0].signed_in(Role.APPROVER)
    shown = approver.post("/console/sends/new", **wish())
    assert "{{ name }} has no default" in shown.text
    environment["NEWSLETTER_CHECKS__FILE"] = str(rules)
    strict = open_office(require_second_factor="false").signed_in(Role.APPROVER)
    for form in (wish(), {**hidden(shown), "step": "send"}):
        answer = strict.post("/console/sends/new", **form)
        assert answer.status_code == 400
        assert "{{ name }} has no default" in answer.text


def test_an_audience_unlike_the_last_is_said_before_it_is_asked_once_more(
    office: Office, going: int
) -> None:
    with transaction(office.parts.database) as session:
        segment_store.save(session, "one", 'name == "P1"', now=NOW)
    approved(office)
    shown = office.signed_in(Role.APPROVER).post("/console/sends/new", **wish(segment=["one"]))
    assert f"(send {going}) went to 5" in shown.text


def test_two_clicks_make_one_send(office: Office, audience: list[int]) -> None:
    approved(office)
    approver = office.signed_in(Role.APPROVER)
    shown = hidden(approver.post("/console/sends/new", **wish()))
    assert approver.post("/console/sends/new", **shown, step="send").status_code == 303
    twice = approver.post("/console/sends/new", **shown, step="send")
    assert twice.status_code == 400
    assert "was made meanwhile" in twice.text
    with reading(office.parts.database) as session:
        assert len(send_status.latest_sends(session)) == 1


def test_an_issue_that_was_edited_meanwhile_is_not_sent(
    office: Office, audience: list[int]
) -> None:
    approved(office)
    approver = office.signed_in(Role.APPROVER)
    shown = hidden(approver.post("/console/sends/new", **wish()))
    approved(office, subject="Other words")
    answer = approver.post("/console/sends/new", **shown, step="send")
    assert answer.status_code == 400
    assert "edited meanwhile" in answer.text
    with reading(office.parts.database) as session:
        assert send_status.latest_sends(session) == []


def test_times_are_those_of_the_sites_zone_and_past_ones_are_refused(
    open_office: Any, environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_SITE__TIMEZONE"] = "Europe/Berlin"
    office = open_office(require_second_factor="false")
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approved(office)
    approver = office.signed_in(Role.APPROVER)
    shown = approver.post("/console/sends/new", **wish(when="at", at="2099-07-01T07:00"))
    assert "1 Jul 2099, 07:00" in shown.text
    made = approver.post("/console/sends/new", **hidden(shown), step="send")
    assert made.status_code == 303
    with reading(office.parts.database) as session:
        send, _ = send_status.latest_sends(session)[0]
        assert send.scheduled_for == datetime(2099, 7, 1, 5, 0, tzinfo=UTC)
    for at in ("2001-01-01T07:00", "", "soon", "9999-12-31T23:30"):
        answer = approver.post("/console/sends/new", **wish(when="at", at=at))
        assert answer.status_code == 400, at


@pytest.mark.parametrize(
    "wrong",
    [
        {"issue": ""},
        {"issue": "no-such"},
        {"issue": "\0"},
        {"segment": []},
        {"segment": ["no-such"]},
        {"segment": ["every\0body"]},
        {"excluded": ["no-such"]},
        {"excluded": ["everybody"]},
        {"rate": "x"},
        {"local_time": "25:00"},
        {"quiet": "x"},
    ],
)
def test_a_wish_that_cannot_be_kept_comes_back_with_the_reason(
    office: Office, audience: list[int], wrong: dict[str, Any]
) -> None:
    approved(office)
    answer = office.signed_in(Role.APPROVER).post("/console/sends/new", **wish(**wrong))
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_only_an_approved_issue_is_sent(office: Office, audience: list[int]) -> None:
    approved(office)
    with transaction(office.parts.database) as session:
        now = datetime.now(UTC)
        approval.return_to_draft(session, "spring", by=COMMAND_LINE, now=now, note="typos")
    answer = office.signed_in(Role.APPROVER).post("/console/sends/new", **wish())
    assert answer.status_code == 400
    assert "not approved" in answer.text


def test_back_keeps_what_was_chosen(office: Office, audience: list[int]) -> None:
    approved(office)
    approver = office.signed_in(Role.APPROVER)
    answer = approver.post("/console/sends/new", **wish(rate="50"), step="edit")
    assert answer.status_code == 200
    assert re.search(r'name="segment" value="everybody" checked', answer.text)
    assert re.search(r'name="rate"[^>]* value="50"', answer.text)


# Hostile words


def test_words_from_outside_are_shown_as_words(office: Office, audience: list[int]) -> None:
    database, owner = office.parts.database, office.signed_in(Role.OWNER)
    approved(office, subject=f"'{XSS}'")
    send = started(database)
    with transaction(database) as session:
        session.execute(update(store._issue).values(title=XSS))
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason=XSS, now=NOW)
        values = {"excluded_counts": {XSS: 3}, "segments": [{"name": XSS, "expression": ""}]}
        session.execute(update(_send).where(_send.c.id == send).values(**values))
        session.execute(
            update(_batch)
            .where(_batch.c.send_id == send, _batch.c.number == 1)
            .values(state="claimed", departed_at=NOW)
        )
        session.execute(
            update(_batch)
            .where(_batch.c.send_id == send, _batch.c.number == 1)
            .values(state="uncertain", detail=XSS)
        )
    pages = [
        "",
        f"/{send}",
        f"/{send}/people",
        f"/{send}/test",
        f"?q={XSS}",
        f"/{send}/people?q={XSS}",
        "/new",
    ]
    for path in pages:
        text = owner.get(f"/console/sends{path}").text
        assert XSS not in text, path
    assert "&lt;script&gt;" in owner.get(f"/console/sends/{send}").text
    shown = owner.post("/console/sends/new", **wish())
    assert shown.status_code == 200
    assert XSS not in shown.text


def test_a_cancelled_send_counts_who_was_not_sent_to_apart_and_figures_add_up(
    office: Office, going: int
) -> None:
    approver = office.signed_in(Role.APPROVER)
    assert act(approver, going, "cancel").status_code == 303
    shown = approver.get(f"/console/sends/{going}").text
    with reading(office.parts.database) as session:
        people = send_status.get_status(session, going).recipients
    assert "rejected by the provider" not in shown
    assert f"{people['rejected']:,} not sent" in shown
    assert '<p class="figure">100 %</p>' not in shown
    words = re.findall(r"<li><span class=\"dot dot-\w+\"></span>([\d,]+) ", shown)
    assert sum(int(word.replace(",", "")) for word in words) == sum(people.values())
