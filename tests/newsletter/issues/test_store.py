"""Issues in the database: nothing that was stored changes, and nobody overwrites anybody unseen."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import IssueError
from newsletter.issues import store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.issues.states import IssueState
from newsletter.issues.store import SavedRevision, StaleRevisionError
from tests.conftest import NOW

pytestmark = pytest.mark.both_databases

ALICE, BOB = Actor(1, "alice@example.org"), Actor(2, "bob@example.org")


def draft(words: str = "Good day.", *, slug: str = "news", front: str = "") -> Draft:
    text = f"---\nsubject: Our {slug}\nslug: {slug}\n{front}---\n\n{words}\n"
    return parse_issue(text, name="any.md")


def save(
    database: Engine, made: Draft, *, by: Actor = ALICE, base: int | None = None, later: int = 0
) -> SavedRevision:
    with transaction(database) as session:
        saved = store.save(session, made, by=by, now=NOW + timedelta(minutes=later), base=base)
        session.expunge_all()
        return saved


def texts(database: Engine, slug: str = "news") -> list[str]:
    """The bodies of an issue's revisions, the first one first."""
    with reading(database) as session:
        found = store.revisions(session, store.find(session, slug))
        return [store.draft_of(session, one).body.strip() for one in reversed(found)]


def test_each_text_is_a_revision_with_its_author(database: Engine) -> None:
    first = save(database, draft("One."), base=0)
    second = save(database, draft("Two."), by=BOB, base=1, later=5)
    assert (first.revision.number, second.revision.number) == (1, 2)
    assert first.is_new
    assert texts(database) == ["One.", "Two."]
    with reading(database) as session:
        issue = store.find(session, "news")
        latest = store.revision_of(session, issue)
        assert (latest.number, latest.author, latest.author_id) == (2, "bob@example.org", 2)
        assert store.revision_of(session, issue, 1).author == "alice@example.org"
        assert (issue.title, issue.series, issue.state) == ("Our news", "letter", "draft")
        assert issue.since == NOW + timedelta(minutes=5)


def test_the_same_text_once_more_changes_nothing(database: Engine) -> None:
    save(database, draft(), base=0)
    # Also for who did not see that the revision is there already: theirs says the same.
    again = save(database, draft(), by=BOB, base=0, later=5)
    assert not again.is_new
    assert again.revision.author == "alice@example.org"
    assert texts(database) == ["Good day."]
    with reading(database) as session:
        assert store.find(session, "news").since == NOW


def test_who_started_from_an_older_revision_is_refused_and_gets_the_text_back(
    database: Engine,
) -> None:
    save(database, draft("One."), base=0)
    save(database, draft("Two."), by=BOB, base=1)
    mine = draft("Mine.")
    with pytest.raises(StaleRevisionError) as refused:
        save(database, mine, base=1)
    assert refused.value.message == "bob@example.org saved revision 2 meanwhile"
    assert (refused.value.text, refused.value.latest) == (mine.source, 2)
    assert texts(database) == ["One.", "Two."]


def test_a_revision_that_never_was_is_no_base(database: Engine) -> None:
    with pytest.raises(StaleRevisionError, match="there is no revision 7"):
        save(database, draft(), base=7)
    with reading(database) as session, pytest.raises(IssueError, match="no such issue"):
        store.find(session, "news")


def test_without_a_base_the_latest_is_replaced(database: Engine) -> None:
    save(database, draft("One."))
    save(database, draft("Two."), by=BOB)
    assert texts(database) == ["One.", "Two."]


@pytest.mark.parametrize("base", [0, 1])
def test_of_two_who_store_at_the_same_time_one_is_refused(database: Engine, base: int) -> None:
    if base:
        save(database, draft("First."), base=0)
    with ThreadPoolExecutor(1) as other:
        with transaction(database) as session:
            store.save(session, draft("Alice's."), by=ALICE, now=NOW, base=base)
            waits = other.submit(save, database, draft("Bob's."), by=BOB, base=base)
        with pytest.raises(StaleRevisionError) as refused:
            waits.result(timeout=30)
    assert "Bob's." in refused.value.text
    assert texts(database)[base:] == ["Alice's."]


def test_twenty_who_store_at_once_make_twenty_revisions_or_refusals(database: Engine) -> None:
    save(database, draft("0"), base=0)

    def write(number: int) -> bool:
        try:
            return save(database, draft(f"by {number}"), base=1).is_new
        except StaleRevisionError:
            return False

    with ThreadPoolExecutor(5) as pool:
        stored = list(pool.map(write, range(20)))
    assert stored.count(True) == 1
    assert texts(database)[1] == f"by {stored.index(True)}"


def test_an_edit_makes_a_draft_of_an_approved_issue(database: Engine) -> None:
    save(database, draft("One."), base=0)
    with transaction(database) as session:
        store.find(session, "news").state = IssueState.APPROVED
    save(database, draft("Two."), base=1)
    with reading(database) as session:
        assert store.find(session, "news").state == IssueState.DRAFT


def test_an_edit_takes_an_issue_out_of_the_archive_but_puts_none_in_that_is_out(
    database: Engine,
) -> None:
    save(database, draft("One.", front="archive: false\n"))
    with transaction(database) as session:
        issue = store.find(session, "news")
        assert not issue.archive
        issue.published_at = NOW
    save(database, draft("Two.", front="archive: true\n"))
    with reading(database) as session:
        assert not store.find(session, "news").archive


def test_the_description_speaks_to_nobody_in_particular(database: Engine) -> None:
    front = 'preheader: For you,   {{ name | default("reader") }}{{ attributes.team }}\n'
    assert save(database, draft(front=front)).revision.description == "For you, reader"


def test_a_text_without_a_slug_keeps_the_one_it_was_stored_under(database: Engine) -> None:
    save(database, parse_issue("---\nsubject: x\n---\nHello\n", name="spring.md"))
    with reading(database) as session:
        latest = store.revision_of(session, store.find(session, "spring"))
        assert store.draft_of(session, latest).slug == "spring"


@pytest.mark.parametrize("slug", ["nothing", "", "a\0b", "' OR 1=1 --", "x" * 5000])
def test_an_issue_that_is_not_there_is_said_so(database: Engine, slug: str) -> None:
    with reading(database) as session, pytest.raises(IssueError, match="no such issue"):
        store.find(session, slug)


@pytest.mark.parametrize("number", [0, -1, 2, 2**31, 2**63, 10**30])
def test_a_revision_that_is_not_there_is_said_so(database: Engine, number: int) -> None:
    save(database, draft())
    with reading(database) as session, pytest.raises(IssueError, match="no revision"):
        store.revision_of(session, store.find(session, "news"), number)


def test_issues_are_listed_by_state_series_and_words(database: Engine) -> None:
    save(database, draft(slug="alpha", front="title: Fünf 100% safe_bets\n"))
    save(database, draft(slug="beta", front="series: weekly\n"), later=1)
    save(database, draft(slug="gamma", front="series: weekly\n"), later=2)
    with transaction(database) as session:
        store.find(session, "beta").state = IssueState.REVIEW

    def slugs(**wanted: object) -> list[str]:
        with reading(database) as session:
            return [one.slug for one in store.listed(session, **wanted)]  # type: ignore[arg-type]

    assert slugs() == ["gamma", "beta", "alpha"]
    assert slugs(series="weekly") == ["gamma", "beta"]
    assert slugs(state=IssueState.REVIEW) == ["beta"]
    assert slugs(words="safe") == slugs(words="ALPH") == slugs(words="100% SAFE_") == ["alpha"]
    # What means something to LIKE is searched for as it stands.
    assert slugs(words="100_") == slugs(words="%%") == slugs(words="\\") == []
    assert slugs(words="our zz bet") == []
    assert slugs(words="our bet") == ["beta"]
    assert slugs(words="\0") == []
    assert slugs(limit=1, offset=1) == ["beta"]
    with reading(database) as session:
        assert store.series(session) == ["letter", "weekly"]


def test_no_row_is_left_of_a_refused_issue(database: Engine) -> None:
    with pytest.raises(StaleRevisionError):
        save(database, draft(), base=3)
    with reading(database) as session:
        for model in (Issue, Revision):
            assert session.scalar(select(func.count()).select_from(table_of(model))) == 0
