"""Topics in the console: listed, changed, ordered, hidden, and deleted once nothing needs them."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import store as issue_store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from subscribers.consent import topics
from subscribers.segments import store as segment_store
from subscribers.self_service import preferences
from tests.conftest import add_person
from tests.newsletter.web.conftest import Browser, Office
from tests.newsletter.web.console.test_subscribers import NASTY, log

HOME = "/console/subscribers/topics"
NOW = datetime.now(UTC)

pytestmark = pytest.mark.both_databases


@pytest.fixture
def editor(office: Office) -> Browser:
    with transaction(office.parts.database) as session:
        for slug in ("arts", "news", "sport"):
            topics.save(session, slug, name=slug.capitalize(), description=f"All of {slug}")
        person = add_person(session, "ann@example.org")
        topics.choose(session, person, ["news"], now=NOW)
    return office.signed_in(Role.EDITOR)


def order(page: str) -> list[str]:
    return re.findall(rf'href="{HOME}/([a-z]+)"', page)


def change(editor: Browser, slug: str, **values: str) -> int:
    stored = {"name": slug.capitalize(), "description": f"All of {slug}"}
    return editor.post(f"{HOME}/{slug}", **stored | values).status_code


def test_a_topic_is_renamed_and_described(office: Office, editor: Browser) -> None:
    assert change(editor, "news", name="Our news", description="Weekly") == 303
    page = editor.get(HOME).text
    assert "Our news" in page
    assert "Weekly" in page
    assert re.search(r'Weekly</td><td data-name="Subscribers" class="number">1<', page)
    assert change(editor, "news", name="Our news", description="Weekly") == 303  # no second entry
    assert log(office) == [("topic changed", "news")]


def test_topics_are_ordered_on_every_page(office: Office, editor: Browser) -> None:
    assert order(editor.get(HOME).text) == ["arts", "news", "sport"]
    assert change(editor, "sport", place="1") == 303
    assert change(editor, "arts", place="99") == 303
    assert order(editor.get(HOME).text) == ["sport", "news", "arts"]
    editor.post(HOME, slug="late", name="Aaa")
    assert order(editor.get(HOME).text) == ["sport", "news", "arts", "late"]
    public = editor.get("/subscribe").text
    assert re.findall(r'name="topics" value="(\w+)"', public) == ["sport", "news", "arts", "late"]


def test_a_hidden_topic_is_offered_only_to_those_who_chose_it(
    office: Office, editor: Browser
) -> None:
    for slug in ("news", "sport"):
        assert change(editor, slug, hidden="yes") == 303
    assert re.findall(r'name="topics" value="(\w+)"', editor.get("/subscribe").text) == ["arts"]
    assert "Hidden" in editor.get(HOME).text
    signup = {"email": "ben@example.org", "topics": ["sport"]}
    refused = editor.client.post("/subscribe", json=signup, headers={"accept": "application/json"})
    assert refused.status_code in {400, 422}
    assert "sport" in refused.text
    with reading(office.parts.database) as session:
        offered = preferences.view(session, 1, now=NOW)
        assert offered is not None
        assert [one.slug for one in offered.topics] == ["arts", "news"]
    assert change(editor, "sport") == 303  # shown again
    assert "sport" in editor.get("/subscribe").text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": " "}, "A topic needs a name"),
        ({"place": "0"}, "The place is a whole number from 1"),
        ({"place": "-1"}, "The place is a whole number from 1"),
        ({"place": "x\0"}, "The place is a whole number from 1"),
    ],
)
def test_a_wrong_value_is_named_and_changes_nothing(
    office: Office, editor: Browser, values: dict[str, str], words: str
) -> None:
    answer = editor.post(f"{HOME}/news", **{"name": "News", "place": "3", **values})
    assert answer.status_code == 400
    assert words in answer.text
    assert order(editor.get(HOME).text) == ["arts", "news", "sport"]
    assert log(office) == []


def test_an_unknown_topic_is_not_found(editor: Browser) -> None:
    for slug in ("none", "a%00b", "NEWS"):
        assert editor.get(f"{HOME}/{slug}").status_code == 404
        assert editor.post(f"{HOME}/{slug}", name="x").status_code == 404
        assert editor.post(f"{HOME}/{slug}/delete").status_code == 404


def test_a_topic_is_deleted_after_its_page_says_what_is_lost(
    office: Office, editor: Browser
) -> None:
    text = "---\nsubject: Hello\nslug: first\ntopics: [news]\n---\n\nGood day.\n"
    with transaction(office.parts.database) as session:
        draft = parse_issue(text, name="first.md")
        issue_store.save(session, draft, by=Actor(None, "setup"), now=NOW)
    before = log(office)
    page = editor.get(f"{HOME}/news").text
    assert "1 subscriber loses this topic" in page
    assert "cannot be sent until their topics are changed: first" in page
    assert editor.post(f"{HOME}/news/delete").status_code == 303
    assert order(editor.get(HOME).text) == ["arts", "sport"]
    assert log(office)[len(before) :] == [("topic deleted", "news")]
    with reading(office.parts.database) as session:
        assert topics.names_of(session, 1) == []


def test_a_topic_that_a_segment_needs_is_not_deleted(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        segment_store.save(session, "readers", 'topic("news") or topic("arts")', now=NOW)
        segment_store.save(session, "others", 'name == "news"', now=NOW)
    assert "Delete topic" not in editor.get(f"{HOME}/news").text
    answer = editor.post(f"{HOME}/news/delete")
    assert answer.status_code == 400
    assert "Segment readers needs it" in answer.text
    with transaction(office.parts.database) as session:
        segment_store.delete(session, "readers")
    assert editor.post(f"{HOME}/news/delete").status_code == 303


def test_a_topic_that_an_unfinished_send_needs_is_not_deleted(
    office: Office, editor: Browser
) -> None:
    with transaction(office.parts.database) as session:
        issue = Issue(slug="first", title="First", created_at=NOW, since=NOW)
        session.add(issue)
        session.flush()
        text = Revision(issue_id=issue.id, number=1, source="", digest="", title="", created_at=NOW)
        session.add(text)
        session.flush()
        session.add(
            Send(
                issue_id=issue.id,
                revision_id=text.id,
                segments=[{"name": "all", "expression": ""}],
                topics=["news"],
                scheduled_for=NOW + timedelta(days=1),
                created_at=NOW,
            )
        )
    answer = editor.post(f"{HOME}/news/delete")
    assert answer.status_code == 400
    assert "Send 1 needs it" in answer.text
    with transaction(office.parts.database) as session:
        session.execute(update(table_of(Send)).values(state=SendState.CANCELLED))
    assert editor.post(f"{HOME}/news/delete").status_code == 303


def test_whatever_a_topic_is_called_is_shown_as_text(office: Office, editor: Browser) -> None:
    assert change(editor, "news", name=NASTY, description=NASTY) == 303
    for page in (HOME, f"{HOME}/news"):
        assert "<script>alert" not in editor.get(page).text
        assert "&lt;script&gt;alert" in editor.get(page).text


def test_a_viewer_reads_and_changes_nothing(office: Office, editor: Browser) -> None:
    viewer = office.signed_in(Role.VIEWER)
    page = viewer.get(f"{HOME}/news").text
    assert "What depends on it" in page
    assert "<form class=" not in page
    assert viewer.post(f"{HOME}/news", name="x").status_code == 403
    assert viewer.post(f"{HOME}/news/delete").status_code == 403
