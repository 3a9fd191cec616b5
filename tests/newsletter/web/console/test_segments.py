"""Segments in the console: counted, tried out, wrong at a place, changed, and deleted or not."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues.models import Issue, Revision
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from subscribers.directory import status_counts
from subscribers.models import Segment
from subscribers.segments import store as segment_store
from tests.conftest import add_person
from tests.newsletter.web.conftest import Browser, Office
from tests.newsletter.web.console.test_subscribers import NASTY, log

HOME = "/console/segments"
NOW = datetime.now(UTC)
_segment = table_of(Segment)


@pytest.fixture
def editor(office: Office) -> Browser:
    with transaction(office.parts.database) as session:
        for number in range(4):
            plan = "pro" if number else "free"
            add_person(session, f"p{number}@example.org", attributes={"plan": plan})
    return office.signed_in(Role.EDITOR)


def make(office: Office, name: str = "pros", rule: str = 'plan == "pro"') -> int:
    with transaction(office.parts.database) as session:
        return segment_store.save(session, name, rule, now=NOW).id


def test_a_rule_is_tried_out_before_it_is_saved(office: Office, editor: Browser) -> None:
    page = editor.post(f"{HOME}/try", name="x", expression='plan == "pro"').text
    assert re.search(r">3</strong>\s*subscribers", page)
    assert "p1@example.org" in page
    assert "p0@example.org" not in page
    assert "No segments yet" in editor.get(HOME).text


def test_a_segment_is_made_listed_renamed_and_deleted(office: Office, editor: Browser) -> None:
    made = editor.post(HOME, name="pros", expression='plan == "pro"', description="who pay")
    assert made.status_code == 303
    path = made.headers["location"].partition("?")[0]
    listed = editor.get(HOME).text
    assert "who pay" in listed
    assert re.search(r'data-name="Subscribers" class="number">3<', listed)
    renamed = editor.post(path, name="paying", expression='plan in ["pro"]')
    assert renamed.status_code == 303
    assert "paying" in editor.get(path).text
    assert editor.post(f"{path}/delete").status_code == 303
    assert editor.get(path).status_code == 404
    assert log(office) == [
        ("segment created", "pros"),
        ("segment changed", "paying"),
        ("segment deleted", "paying"),
    ]


def test_a_wrong_rule_is_marked_at_its_place_and_stays_as_it_was_typed(
    office: Office, editor: Browser
) -> None:
    rule = 'plan == "pro"\nand contry == "DE"'
    for path, status in ((HOME, 400), (f"{HOME}/try", 200)):
        answer = editor.post(path, name="x", expression=rule)
        assert answer.status_code == status
        assert "Line 2, column 5: no subscriber has an attribute “contry”" in answer.text
        marked = re.search(r"<mark>(.*?)</mark>(.*?)</pre>", answer.text, re.DOTALL)
        assert marked
        assert re.sub(r"<span.*?</span>", "", marked[1]) == "contry"
        assert "contry == &#34;DE&#34;</textarea>" in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    ["plan ==", "(plan", "plan == )", "\0", "a" * 5000, "1 +", "not", "(" * 200, "é ==", "x\n\n=="],
)
def test_whatever_is_typed_is_answered_with_a_place(
    office: Office, editor: Browser, rule: str
) -> None:
    answer = editor.post(HOME, name="x", expression=rule)
    assert answer.status_code == 400
    assert re.search(r"Line \d+, column \d+", answer.text)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "A segment cannot have this name"),
        ("a\0b", "A segment cannot have this name"),
        ("pros", "A segment of this name exists"),
        ("x" * 65, "A segment cannot have this name"),
    ],
)
def test_a_name_that_cannot_be_is_told(
    office: Office, editor: Browser, name: str, words: str
) -> None:
    make(office)
    other = make(office, "others", "")
    for path in (HOME, f"{HOME}/{other}"):
        answer = editor.post(path, name=name, expression="")
        assert answer.status_code == 400
        assert words in answer.text


@pytest.mark.parametrize("name", ["pros", "an older name"])
def test_what_an_unfinished_send_needs_is_not_deleted(
    office: Office, editor: Browser, name: str
) -> None:
    number = make(office)
    kept: dict[str, Any] = {"name": name, "expression": "x"}
    if name != "pros":
        kept["id"] = number
    with transaction(office.parts.database) as session:
        issue = Issue(slug="first", title="First", created_at=NOW, since=NOW)
        session.add(issue)
        session.flush()
        text = Revision(issue_id=issue.id, number=1, source="", digest="", title="", created_at=NOW)
        session.add(text)
        session.flush()
        send = Send(
            issue_id=issue.id,
            revision_id=text.id,
            segments=[kept],
            scheduled_for=NOW + timedelta(days=1),
            created_at=NOW,
        )
        session.add(send)
    answer = editor.post(f"{HOME}/{number}/delete")
    assert answer.status_code == 400
    assert "Send 1 uses it and is not finished" in answer.text
    assert log(office) == []
    with transaction(office.parts.database) as session:
        session.execute(update(table_of(Send)).values(state=SendState.CANCELLED))
    assert editor.post(f"{HOME}/{number}/delete").status_code == 303


def test_large_lists_show_figures_that_were_kept(
    office: Office, editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = make(office)
    monkeypatch.setattr(status_counts, "SMALL", 2)
    assert "In a few minutes" in editor.get(HOME).text
    with transaction(office.parts.database) as session:
        found, counted = segment_store.count_stalest(session, now=NOW, stale=timedelta(minutes=15))
        assert found is not None
        assert counted is not None
        segment_store.save_count(session, found.id, found.expression, counted, now=NOW)
        assert segment_store.count_stalest(session, now=NOW, stale=timedelta(minutes=15)) == (
            None,
            None,
        )
    assert re.search(r'data-name="Subscribers" class="number">3<', editor.get(HOME).text)
    # Another rule has no figures yet.
    editor.post(f"{HOME}/{number}", name="pros", expression='plan == "free"')
    with reading(office.parts.database) as session:
        assert session.scalar(select(_segment.c.people)) is None
    assert "In a few minutes" in editor.get(HOME).text


def test_a_viewer_looks_and_changes_nothing(office: Office, editor: Browser) -> None:
    number = make(office)
    viewer = office.signed_in(Role.VIEWER)
    assert "3" in viewer.get(HOME).text
    assert "plan ==" in viewer.get(f"{HOME}/{number}").text
    assert viewer.post(f"{HOME}/{number}", name="x").status_code == 403
    assert viewer.post(f"{HOME}/{number}/delete").status_code == 403


@pytest.mark.slow
def test_names_rules_and_people_are_text(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        add_person(session, "x@example.org", name=NASTY, attributes={"a": NASTY})
        made = segment_store.save(
            session, NASTY[:64], f"name != {NASTY!r}", now=NOW, description=NASTY
        ).id
    pages = [
        editor.get(HOME),
        editor.get(f"{HOME}/{made}"),
        editor.post(f"{HOME}/try", name=NASTY, expression=NASTY, description=NASTY),
    ]
    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "1337" not in page.text


@pytest.mark.parametrize("number", ["0", "999", "9" * 30])
def test_a_segment_that_there_is_not_is_404(editor: Browser, number: str) -> None:
    assert editor.get(f"{HOME}/{number}").status_code == 404
    assert editor.post(f"{HOME}/{number}", name="x").status_code == 404
    assert editor.post(f"{HOME}/{number}/delete").status_code == 404
