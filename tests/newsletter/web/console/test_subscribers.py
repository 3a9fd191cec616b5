"""Subscribers in the console: the list, one person, and what may be done about them."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.tracking.models import EventRow
from subscribers.consent import suppression, topics
from subscribers.models import Consent, Subscriber, Suppression, SuppressionReason
from tests.conftest import add_person
from tests.newsletter.web.conftest import Browser, Office

#: Comes out as a tag, an attribute, an address, a template or a formula where nobody escapes it.
NASTY = "\"'><script>alert(1)</script>{{7*191}}<img src=x onerror=alert(2)>"
NOW = datetime.now(UTC)


@pytest.fixture
def editor(office: Office) -> Browser:
    return office.signed_in(Role.EDITOR)


def add(office: Office, email: str = "alice@example.org", **values: object) -> int:
    with transaction(office.parts.database) as session:
        return add_person(session, email, **values)


def suppress(office: Office, person: int, reason: SuppressionReason) -> None:
    with transaction(office.parts.database) as session:
        suppression.add(session, [person], reason, at=NOW, evidence="a test")


def reasons(office: Office) -> list[str]:
    with reading(office.parts.database) as session:
        return list(session.scalars(select(table_of(Suppression).c.reason)))


def log(office: Office) -> list[tuple[str, str]]:
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        rows = session.execute(select(entry.c.action, entry.c.subject).order_by(entry.c.id))
        return [(row.action, row.subject) for row in rows]


def seen(page: str) -> str:
    found = re.search(r'name="seen" value="(\w+)"', page)
    assert found
    return found[1]


# The list.


def test_the_list_finds_people_by_address_name_and_state(office: Office, editor: Browser) -> None:
    left = add(office, "left@example.org", name="Lea")
    add(office, "alice@example.org", name="Alice")
    suppress(office, left, SuppressionReason.UNSUBSCRIBED)
    everybody = editor.get("/console/subscribers").text
    assert "alice@example.org" in everybody
    assert "left@example.org" in everybody
    assert "2 subscribers" in everybody
    found = editor.get("/console/subscribers?q=ALICE@example.org").text
    assert "alice@example.org" in found
    assert "left@example.org" not in found
    assert "left@example.org" in editor.get("/console/subscribers?q=le").text
    suppressed = editor.get("/console/subscribers?state=suppressed").text
    assert "left@example.org" in suppressed
    assert "alice@example.org" not in suppressed
    assert "No subscribers found." in editor.get("/console/subscribers?q=zz").text


def test_the_list_goes_on_page_by_page(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        for number in range(120):
            add_person(session, f"p{number:03}@example.org")
    path, seen_people, pages = "/console/subscribers?q=p", [], 0
    while path:
        page = editor.get(path).text
        seen_people += re.findall(r">(p\d+@example.org)<", page)
        further = re.search(r'href="([^"]+)">Next page', page)
        path = further[1].replace("&amp;", "&") if further else ""
        pages += 1
    assert (pages, seen_people) == (3, [f"p{number:03}@example.org" for number in range(120)])


def test_an_erased_address_is_told_to_be_kept_out(office: Office, editor: Browser) -> None:
    person = add(office, "gone@example.org")
    owner = office.signed_in(Role.OWNER)
    owner.post(f"/console/subscribers/{person}/erase", email="gone@example.org")
    page = editor.get("/console/subscribers?q=gone@example.org").text
    assert "it is suppressed by its keyed hash" in page
    assert "erased" in page


def test_an_unknown_segment_is_a_clear_answer(editor: Browser) -> None:
    answer = editor.get("/console/subscribers?segment=nothing%00")
    assert answer.status_code == 400
    assert "There is no segment of this name" in answer.text


# Adding by hand.


def test_somebody_is_added_with_the_consent_that_was_stated(
    office: Office, editor: Browser
) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name="News")
    answer = editor.post(
        "/console/subscribers/add",
        email="New@Example.org",
        name="New",
        wording="asked by phone",
        topic="news",
    )
    assert answer.status_code == 303
    page = editor.get(answer.headers["location"]).text
    assert "Subscriber added" in page
    assert "asked by phone" in page
    assert "News" in page
    consent = table_of(Consent)
    with reading(office.parts.database) as session:
        acts = session.execute(select(consent.c.act, consent.c.source, consent.c.wording)).all()
    assert [tuple(act) for act in acts] == [("imported", "console", "asked by phone")]
    assert log(office) == [("subscriber added", "subscriber 1")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"email": "nonsense", "wording": "x"}, "nonsense"),
        ({"email": "a@example.org", "wording": " \0 "}, "What did the person agree to"),
        ({"email": "alice@example.org", "wording": "x"}, "A subscriber has this address already"),
        ({"email": "left@example.org", "wording": "x"}, "This address is suppressed: complained"),
        ({"email": "a@example.org", "wording": "x", "name": "a\tb"}, "control characters"),
    ],
)
def test_who_cannot_be_added_is_told_why(
    office: Office, editor: Browser, form: dict[str, str], words: str
) -> None:
    add(office)
    suppress(office, add(office, "left@example.org"), SuppressionReason.COMPLAINED)
    answer = editor.post("/console/subscribers/add", **form)
    assert answer.status_code == 400
    assert words in answer.text
    assert log(office) == []


# One person.


def test_a_person_is_edited_and_the_log_tells_what_not_whom(
    office: Office, editor: Browser
) -> None:
    person = add(office, name="Alice", attributes={"plan": "pro"})
    path = f"/console/subscribers/{person}"
    answer = editor.post(
        f"{path}/edit",
        seen=seen(editor.get(path).text),
        name="Alice B.",
        language="de_AT",
        timezone="Europe/Vienna",
        attributes='{"plan": "team", "age": 41}',
    )
    assert answer.status_code == 303
    with reading(office.parts.database) as session:
        found = session.get(Subscriber, person)
        assert found is not None
        assert (found.name, found.language, found.timezone) == (
            "Alice B.",
            "de-AT",
            "Europe/Vienna",
        )
        assert found.attributes == {"plan": "team", "age": 41}
    assert log(office) == [
        ("subscriber changed: attributes, language, name, timezone", f"subscriber {person}")
    ]


@pytest.mark.slow
def test_a_topic_needs_a_word_on_consent_and_is_withdrawn_without(
    office: Office, editor: Browser
) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name="News")
    person = add(office)
    path = f"/console/subscribers/{person}"
    refused = editor.post(f"{path}/edit", seen=seen(editor.get(path).text), topic="news")
    assert refused.status_code == 400
    assert "What did the person agree to" in refused.text
    stamp = seen(editor.get(path).text)
    editor.post(f"{path}/edit", seen=stamp, topic="news", wording="by phone")
    editor.post(f"{path}/edit", seen=seen(editor.get(path).text))
    consent = table_of(Consent)
    with reading(office.parts.database) as session:
        acts = session.execute(select(consent.c.act, consent.c.wording).order_by(consent.c.id))
        assert [tuple(act) for act in acts] == [
            ("imported", "Topics: news. by phone"),
            ("withdrawn", "Topics: news"),
        ]


def test_two_who_edit_one_person_do_not_overwrite_each_other(
    office: Office, editor: Browser
) -> None:
    person = add(office, name="Alice")
    path = f"/console/subscribers/{person}"
    old = seen(editor.get(path).text)
    assert editor.post(f"{path}/edit", seen=old, name="First").status_code == 303
    late = editor.post(f"{path}/edit", seen=old, name="Second")
    assert late.status_code == 400
    assert "another user changed this subscriber" in late.text.lower()
    assert 'value="Second"' in late.text
    assert editor.post(f"{path}/edit", seen=seen(late.text), name="Second").status_code == 303


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("attributes", "[1]", "Not a JSON object"),
        ("attributes", '{"a": "\\u0000"}', "The JSON has a NUL character"),
        ("attributes", "{" + "x" * 30_000, "JSON"),
        ("language", "german", "language tag"),
        ("timezone", "Mars/Base", "time zone"),
        ("name", "x" * 201, "longer than 200"),
    ],
)
def test_what_cannot_be_kept_is_told_and_what_was_typed_stays(
    office: Office, editor: Browser, field: str, value: str, words: str
) -> None:
    path = f"/console/subscribers/{add(office)}"
    answer = editor.post(f"{path}/edit", seen=seen(editor.get(path).text), **{field: value})
    assert answer.status_code == 400
    assert words in answer.text


@pytest.mark.slow
def test_suppressing_needs_a_reason_and_an_operator_lifts_it(
    office: Office, editor: Browser
) -> None:
    path = f"/console/subscribers/{add(office)}"
    assert editor.post(f"{path}/suppress", why=" ").status_code == 400
    assert reasons(office) == []
    editor.post(f"{path}/suppress", why="asked us by letter")
    assert reasons(office) == ["manual"]
    assert "asked us by letter" in editor.get(path).text
    editor.post(f"{path}/lift")
    assert reasons(office) == []
    assert [what for what, _ in log(office)] == ["subscriber suppressed", "suppression lifted"]


def test_nobody_lifts_what_the_person_decided(office: Office, editor: Browser) -> None:
    person = add(office)
    suppress(office, person, SuppressionReason.UNSUBSCRIBED)
    path = f"/console/subscribers/{person}"
    assert "/lift" not in editor.get(path).text
    answer = editor.post(f"{path}/lift")
    assert answer.status_code == 400
    assert "This address stays suppressed: unsubscribed" in answer.text
    assert reasons(office) == ["unsubscribed"]
    assert log(office) == []


def test_erasing_asks_for_the_address_and_is_the_owners(office: Office, editor: Browser) -> None:
    person = add(office)
    path = f"/console/subscribers/{person}/erase"
    assert editor.post(path, email="alice@example.org").status_code == 403
    owner = office.signed_in(Role.OWNER)
    assert owner.post(path, email="bob@example.org").status_code == 400
    assert owner.post(path, email=" Alice@example.org ").status_code == 303
    assert reasons(office) == ["erased"]
    assert owner.get(f"/console/subscribers/{person}").status_code == 404
    assert log(office) == [("subscriber erased", f"subscriber {person}")]
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        kept = session.execute(select(entry.c.subject, entry.c.detail)).all()
    assert "alice" not in str(kept)


def test_a_persons_data_is_a_file_and_the_log_tells_who_took_it(
    office: Office, editor: Browser
) -> None:
    person = add(office)
    answer = editor.post(f"/console/subscribers/{person}/data")
    assert (
        answer.headers["content-disposition"] == f'attachment; filename="subscriber-{person}.json"'
    )
    assert json.loads(answer.content)["subscriber"]["email"] == "alice@example.org"
    assert log(office) == [("subscriber's data exported", f"subscriber {person}")]


def test_a_viewer_sees_and_does_nothing(office: Office) -> None:
    viewer = office.signed_in(Role.VIEWER)
    page = viewer.get(f"/console/subscribers/{add(office)}").text
    assert "alice@example.org" in page
    for action in ("/edit", "/suppress", "/erase", "/data"):
        assert action not in page


@pytest.mark.parametrize("number", ["0", "999", "9" * 30])
def test_nobody_of_this_number_is_404(office: Office, editor: Browser, number: str) -> None:
    assert editor.get(f"/console/subscribers/{number}").status_code == 404
    assert editor.post(f"/console/subscribers/{number}/suppress", why="x").status_code == 404


# History.


def event(office: Office, person: int, kind: str, *, at: datetime, **more: object) -> None:
    with transaction(office.parts.database) as session:
        key = session.scalar(select(func.count()).select_from(table_of(EventRow))) or 0
        row = {"received_at": at, "subscriber_id": person, "raw": "{}", "by_machine": False}
        session.add(
            EventRow(at=at, key=bytes([key // 256, key % 256] * 8), kind=kind, **row | more)
        )


def test_the_history_is_paged_and_marks_what_machines_did(office: Office, editor: Browser) -> None:
    person = add(office, created_at=NOW - timedelta(days=9))
    for minute in range(60):
        event(
            office, person, "open", at=NOW + timedelta(minutes=minute), by_machine=minute % 2 == 0
        )
    event(
        office, person, "bounce", at=NOW + timedelta(hours=2), raw='{"reason": "550 no such box"}'
    )
    first = editor.get(f"/console/subscribers/{person}").text
    assert first.index("550 no such box") < first.index("Opened")
    assert first.count(">Opened<") == 49
    assert first.count('class="badge">Bot') == 24
    assert "Added" not in first
    second = editor.get(f"/console/subscribers/{person}?history=1").text
    assert second.count(">Opened<") == 11
    assert "Added" in second


# What others wrote.


def test_nothing_that_others_wrote_becomes_a_part_of_the_page(
    office: Office, editor: Browser
) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name=NASTY, description=NASTY)
        person = add_person(
            session,
            "o'{{7*191}}&@example.org",
            name=NASTY[:200],
            attributes={NASTY: NASTY, "list": [NASTY], "object": {NASTY: 1}},
            source=NASTY[:100],
        )
        session.add(
            Consent(subscriber_id=person, at=NOW, act="imported", source=NASTY[:100], wording=NASTY)
        )
        suppression.add(session, [person], SuppressionReason.MANUAL, at=NOW, evidence=NASTY)
    event(office, person, "click", at=NOW, link=f"javascript:{NASTY}", raw="{}")
    event(office, person, "dropped", at=NOW, raw=json.dumps({"reason": NASTY}))
    for path in (
        "/console/subscribers",
        f"/console/subscribers?q={NASTY}&segment={NASTY}",
        f"/console/subscribers/{person}",
        "/console/subscribers/add",
    ):
        page = editor.get(path).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "1337" not in page
        assert 'href="javascript' not in page


# Bounces that were wrong.


def test_a_bounce_is_lifted_with_a_reason_that_the_log_keeps(
    office: Office, editor: Browser
) -> None:
    person = add(office)
    suppress(office, person, SuppressionReason.BOUNCED)
    path = f"/console/subscribers/{person}"
    assert "Lift the bounce" in editor.get(path).text
    assert editor.post(f"{path}/lift-bounce", reason=" ").status_code == 400
    assert reasons(office) == ["bounced"]
    answer = editor.post(f"{path}/lift-bounce", reason="she wrote")
    assert "Bounce lifted" in editor.get(answer.headers["location"]).text
    assert reasons(office) == []
    assert log(office)[-1] == ("suppression lifted", f"subscriber {person}")


@pytest.mark.slow
def test_only_a_bounce_can_be_lifted_as_one(office: Office, editor: Browser) -> None:
    person = add(office)
    suppress(office, person, SuppressionReason.COMPLAINED)
    path = f"/console/subscribers/{person}"
    assert "Lift the bounce" not in editor.get(path).text
    assert editor.post(f"{path}/lift-bounce", reason="x").status_code == 400
    assert reasons(office) == ["complained"]


def test_bounces_between_two_times_are_previewed_and_lifted(office: Office) -> None:
    approver = office.signed_in(Role.APPROVER)
    for name in ("alice", "bob"):
        suppress(office, add(office, f"{name}@example.org"), SuppressionReason.BOUNCED)
    path = "/console/subscribers/bounces"
    assert approver.get(path).status_code == 200
    since = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    shown = approver.get(f"{path}?since={since}&text=TEST").text
    assert "Lift 2 bounces" in shown
    assert "alice@example.org" in shown
    assert "Lift 2" not in approver.get(f"{path}?since={since}&text=other").text
    for wrong in ("2026-99-99", "now", "9999-12-31T23:59", NASTY):
        answer = approver.get(path, params={"since": wrong})
        assert answer.status_code in {400, 422}
        assert "<script>alert" not in answer.text
    data = {"since": since, "until": "", "text": "test"}
    assert approver.post(path, reason="", **data).status_code == 400
    assert len(reasons(office)) == 2
    answer = approver.post(path, reason="outage", **data)
    assert answer.headers["location"] == f"{path}?lifted=2"
    assert "2 subscribers get email again" in approver.get(answer.headers["location"]).text
    assert reasons(office) == []
    assert log(office)[-1] == ("suppressions lifted", "")
