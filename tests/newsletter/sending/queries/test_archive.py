"""When everybody may read what was sent, and which words."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert, select, update

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import IssueError, SendError
from newsletter.issues import store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.provider.gateway import Refused
from newsletter.rendering.render import render
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.queries import send_list
from newsletter.sending.queries.archive import ArchiveFilter
from newsletter.settings.load import resource
from subscribers.models import Subscription, Topic
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import (
    PUBLICATION,
    FakeGateway,
    dispatcher,
    drain,
    make_plan,
    make_send,
    make_topic,
    planned,
    send_state,
)


def slugs(database: Engine, **choice: object) -> list[str]:
    with reading(database) as session:
        found = archive_queries.latest_issues(session, ArchiveFilter(**choice), limit=10)  # type: ignore[arg-type]
        return [one.slug for one in found]


def published_send(database: Engine) -> int | None:
    with reading(database) as session:
        return store.find(session, "first").published_send


def test_an_issue_is_public_once_its_send_is_sent_and_not_before(
    database: Engine, five: list[int]
) -> None:
    send = planned(database)
    worker = dispatcher(database, FakeGateway())
    for _ in range(2):
        assert worker.send_next()
        assert slugs(database) == []
    while worker.send_next():
        pass
    assert send_state(database, send) == "sent"
    assert slugs(database) == ["first"]
    assert published_send(database) == send


def test_a_cancelled_send_publishes_nothing(database: Engine, five: list[int]) -> None:
    send = planned(database)
    dispatcher(database, FakeGateway()).send_next()
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    assert slugs(database) == []


def test_what_nobody_got_is_not_public(database: Engine, five: list[int]) -> None:
    send = planned(database, size=5)
    drain(database, FakeGateway(*[Refused(413, "too large")] * 20))
    assert send_state(database, send) == "sent"
    assert slugs(database) == []


def test_what_was_public_once_does_not_change(database: Engine, five: list[int]) -> None:
    with transaction(database) as session:
        segment_store.save(session, "one", 'email == "p1@example.org"', now=NOW)
    first = make_send(database, "one")
    make_plan(database, first)
    drain(database, FakeGateway())
    with transaction(database) as session:
        store.switch_archive(session, "first", on=True, by=COMMAND_LINE, now=NOW)
    with reading(database) as session:
        before = archive_queries.find_published(session, "first")
    changed = parse_issue(
        "---\nsubject: New words\nslug: first\n---\n\nNew words.\n", name="first.md"
    )
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        second = send_lifecycle.create(
            session,
            changed,
            render(changed, PUBLICATION, templates=resource("templates/email")),
            ["everybody"],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=SendOptions(same_issue=True),
            approved_by=COMMAND_LINE,
        )
    make_plan(database, second.id)
    drain(database, FakeGateway())
    assert send_state(database, second.id) == "sent"
    with reading(database) as session:
        assert archive_queries.find_published(session, "first") == before
    assert published_send(database) == first


@pytest.mark.parametrize(("winner", "words"), [("B", "Second"), (None, "Hello")])
def test_a_test_shows_the_words_of_its_winner_or_the_first(
    database: Engine, five: list[int], winner: str | None, words: str
) -> None:
    drafts = [
        parse_issue(f"---\nsubject: {subject}\nslug: first\n---\n\n{subject}!\n", name="first.md")
        for subject in ("Hello", 'Second {{ name | default("words") }}')
    ]
    rendered = [render(one, PUBLICATION, templates=resource("templates/email")) for one in drafts]
    options = SendOptions(
        others=[(drafts[1], rendered[1])],
        test=ABTest(share=1.0, by=Measure.OPENS, wait=timedelta(hours=1)),
    )
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        send = send_lifecycle.create(
            session,
            drafts[0],
            rendered[0],
            ["everybody"],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=options,
            approved_by=COMMAND_LINE,
        )
    make_plan(database, send.id)
    drain(database, FakeGateway())
    with transaction(database) as session:
        table = table_of(Send)
        session.execute(update(table).where(table.c.id == send.id).values(winner=winner))
    with reading(database) as session:
        found = archive_queries.find_published(session, "first")
    assert found is not None
    assert found.issue.title == ("Second words" if winner else "Hello")
    assert f"{words}" in found.html.split("<body")[1]


def test_an_issue_is_taken_out_and_put_back_and_the_log_knows(
    database: Engine, five: list[int]
) -> None:
    planned(database)
    drain(database, FakeGateway())
    for on, seen in ((False, []), (False, []), (True, ["first"])):
        with transaction(database) as session:
            store.switch_archive(session, "first", on=on, by=COMMAND_LINE, now=NOW)
        assert slugs(database) == seen
        with reading(database) as session:
            assert (archive_queries.find_published(session, "first") is not None) == bool(seen)
            assert archive_queries.list_series(session) == ["letter"] * bool(seen)
    with reading(database) as session:
        assert [(row.action, row.subject) for row in audit.entries(session)] == [
            ("issue put into the archive", "first"),
            ("issue taken out of the archive", "first"),
            ("send created", "send 1 (first)"),
        ]
        with pytest.raises(IssueError, match="no such issue"):
            store.switch_archive(session, "none", on=True, by=COMMAND_LINE, now=NOW)


def test_issues_are_chosen_by_series_and_time(database: Engine, five: list[int]) -> None:
    for number, slug in enumerate(("a", "b", "c")):
        send = make_send(database, slug=slug)
        make_plan(database, send)
        drain(database, FakeGateway())
        with transaction(database) as session:
            issue = store.find(session, slug, lock=True)
            issue.published_at = NOW + timedelta(days=number)
            store.revision_of(session, issue).series = "odd" if number % 2 else "even"
    assert slugs(database) == ["c", "b", "a"]
    assert slugs(database, series="even") == ["c", "a"]
    assert slugs(database, since=NOW, until=NOW + timedelta(days=2)) == ["b", "a"]
    with reading(database) as session:
        assert archive_queries.list_series(session) == ["even", "odd"]
        assert archive_queries.publication_range(session) == (NOW, NOW + timedelta(days=2))
        assert store.find(session, "c").published_send == 3


RULES = {
    "everybody": "",
    "always": "True",
    "noted": "topic('engineering')  # all of them",
    "engineers": 'topic("engineering")',
    "either": 'topic("engineering") or topic("leadership")',
    "leaders": 'topic("leadership")',
    "one": 'email == "p1@example.org"',
    "both": 'topic("engineering") and topic("leadership")',
    "none": 'not topic("leadership")',
    "drawn": "sample(99, seed='x')",
    "some": 'topic("engineering") or email == "p1@example.org"',
}


@pytest.mark.parametrize(
    ("segment", "excluded", "topics", "is_public"),
    [
        ("everybody", [], "", True),
        ("always", [], "", True),
        ("everybody", [], "engineering", True),
        ("engineers", [], "", True),
        ("noted", [], "", True),
        ("engineers", [], "engineering", True),
        ("either", [], "", True),
        ("leaders", [], "engineering", False),
        ("everybody", ["leaders"], "", False),
        ("one", [], "", False),
        ("one", [], "engineering", False),
        ("both", [], "", False),
        ("none", [], "", False),
        ("drawn", [], "", False),
        ("some", [], "", False),
    ],
)
@pytest.mark.parametrize("says", [None, True, False])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_issue_is_public_if_it_says_so_or_went_to_all(
    database: Engine,
    five: list[int],
    segment: str,
    excluded: list[str],
    topics: str,
    is_public: bool,
    says: bool | None,
) -> None:
    for slug in ("engineering", "leadership"):
        make_topic(database, slug)
    with transaction(database) as session:
        for name, rule in RULES.items():
            segment_store.save(session, name, rule, now=NOW)
        chosen = [(five[0], "engineering"), (five[0], "leadership"), (five[1], "engineering")]
        for person, topic in chosen:
            number = session.scalar(select(table_of(Topic).c.id).filter_by(slug=topic))
            session.execute(
                insert(table_of(Subscription)).values(
                    subscriber_id=person, topic_id=number, since=NOW
                )
            )
    front = "" if says is None else f"archive: {str(says).lower()}\n"
    front += f"topics: [{topics}]\n" if topics else ""
    draft = parse_issue(f"---\nsubject: x\nslug: first\n{front}---\n\nHello.\n", name="first.md")
    rendered = render(draft, PUBLICATION, templates=resource("templates/email"))
    with transaction(database) as session:
        made = send_lifecycle.create(
            session,
            draft,
            rendered,
            [segment],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=SendOptions(excluded=excluded),
            approved_by=COMMAND_LINE,
        )
    wanted = is_public if says is None else says
    assert made.is_public is wanted
    make_plan(database, made.id)
    drain(database, FakeGateway())
    assert slugs(database) == ["first"] * wanted
    with reading(database) as session:
        assert (archive_queries.find_published(session, "first") is not None) is wanted


def test_a_letter_to_one_person_is_public_once_it_went_to_everybody(
    database: Engine, five: list[int]
) -> None:
    with transaction(database) as session:
        segment_store.save(session, "one", RULES["one"], now=NOW)
        segment_store.save(session, "everybody", "", now=NOW)
    first = make_send(database, "one")
    make_plan(database, first)
    drain(database, FakeGateway())
    assert slugs(database) == []
    second = make_send(database, "everybody")
    make_plan(database, second)
    drain(database, FakeGateway())
    assert slugs(database) == ["first"]
    assert published_send(database) == second


def test_who_missed_a_letter_and_gets_it_by_a_retry_makes_nothing_public(
    database: Engine, five: list[int]
) -> None:
    with transaction(database) as session:
        segment_store.save(session, "one", RULES["one"], now=NOW)
    send = make_send(database, "one")
    make_plan(database, send)
    drain(database, FakeGateway(*[Refused(413, "too large")] * 20))
    with transaction(database) as session:
        send_lifecycle.retry(session, send, by=Actor(None, "operator"), now=NOW, batch_size=2)
    drain(database, FakeGateway())
    assert send_state(database, send) == "sent"
    assert slugs(database) == []


def again(database: Engine, words: str, *, same_issue: bool = False, front: str = "") -> int:
    draft = parse_issue(
        f"---\nsubject: {words}\nslug: first\n{front}---\n\n{words}\n", name="first.md"
    )
    rendered = render(draft, PUBLICATION, templates=resource("templates/email"))
    with transaction(database) as session:
        return send_lifecycle.create(
            session,
            draft,
            rendered,
            ["everybody"],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=SendOptions(same_issue=same_issue),
            approved_by=COMMAND_LINE,
        ).id


def test_another_text_under_a_slug_that_was_sent_is_refused(
    database: Engine, five: list[int]
) -> None:
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
    first = again(database, "Hello")
    make_plan(database, first)
    drain(database, FakeGateway())
    with transaction(database) as session:
        add_person(session, "new@example.org")
    with pytest.raises(
        SendError, match=f"send {first} of this issue has a different text"
    ) as caught:
        again(database, "Another issue altogether")
    assert "slug:" in (caught.value.hint or "")
    assert "--same-issue" in (caught.value.hint or "")
    with reading(database) as session:
        # What was refused leaves no revision and no send behind.
        assert len(store.revisions(session, store.find(session, "first"))) == 1
        assert send_list.send_ids_by_issue(session, [1]) == {1: [first]}
    # The same words go to newcomers, whatever else the front matter says by now.
    second = again(database, "Hello", front="archive: false\n")
    make_plan(database, second)
    gateway = drain(database, FakeGateway())
    assert [len(one.recipients) for one in gateway.requests] == [1]
    with transaction(database) as session:
        add_person(session, "newer@example.org")
    third = again(database, "Corrected", same_issue=True)
    make_plan(database, third)
    assert [len(one.recipients) for one in drain(database, FakeGateway()).requests] == [1]


def test_words_of_a_send_that_never_began_do_not_count(database: Engine, five: list[int]) -> None:
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
    first = again(database, "Hello")
    with pytest.raises(SendError, match="different text"):
        again(database, "Corrected")
    with transaction(database) as session:
        send_lifecycle.cancel(session, first, by=Actor(None, "operator"), now=NOW)
    assert again(database, "Corrected") > first
