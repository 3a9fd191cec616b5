"""Review and approval: what may be sent is what somebody read and approved, word for word."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import IssueError
from newsletter.issues import approval, store
from newsletter.issues.models import Issue
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.states import ISSUE_NEXT, IssueState, Step
from newsletter.issues.store import COMMAND_LINE, StaleRevisionError
from tests.conftest import NOW

ALICE, BOB = Actor(1, "alice@example.org"), Actor(2, "bob@example.org")


def write(
    database: Engine,
    words: str = "Good day.",
    *,
    by: Actor = ALICE,
    base: int | None = None,
    slug: str = "news",
) -> int:
    """Store a text of the issue; returns its number."""
    text = f"---\nsubject: Our news\nslug: {slug}\n---\n\n{words}\n"
    with transaction(database) as session:
        made = parse_issue(text, name="any.md")
        return store.save(session, made, by=by, now=NOW, base=base).revision.number


def ask(database: Engine, *, by: Actor = ALICE, slug: str = "news", note: str = "") -> None:
    with transaction(database) as session:
        approval.request(session, slug, by=by, now=NOW, note=note)


def approve(
    database: Engine,
    revision: int = 1,
    *,
    by: Actor = BOB,
    second_person: bool = False,
    slug: str = "news",
    later: int = 0,
) -> None:
    with transaction(database) as session:
        approval.approve(
            session,
            slug,
            revision=revision,
            by=by,
            now=NOW + timedelta(minutes=later),
            second_person=second_person,
        )


def return_to_draft(database: Engine, *, by: Actor = BOB, note: str = "Shorter, please.") -> None:
    with transaction(database) as session:
        approval.return_to_draft(session, "news", by=by, now=NOW, note=note)


def state(database: Engine, slug: str = "news") -> str:
    with reading(database) as session:
        return store.find(session, slug).state


def steps(database: Engine) -> list[tuple[str, str, int, str]]:
    """Step, who took it, of which revision, and the note."""
    with reading(database) as session:
        issue = store.find(session, "news")
        found = approval.history(session, issue)
        return [(one.step, one.actor, number, one.note) for one, number in found]


def test_from_draft_through_review_to_approved_with_every_step_kept(database: Engine) -> None:
    write(database)
    ask(database, note="By Friday?")
    assert state(database) == IssueState.REVIEW
    return_to_draft(database)
    assert state(database) == IssueState.DRAFT
    write(database, "Shorter.")
    ask(database)
    approve(database, 2)
    assert state(database) == IssueState.APPROVED
    assert steps(database) == [
        ("requested", "alice@example.org", 1, "By Friday?"),
        ("returned", "bob@example.org", 1, "Shorter, please."),
        ("requested", "alice@example.org", 2, ""),
        ("approved", "bob@example.org", 2, ""),
    ]


def test_every_step_from_every_state_is_taken_or_refused_as_the_table_says(
    database: Engine,
) -> None:
    write(database)
    take = {Step.REQUESTED: ask, Step.APPROVED: approve, Step.RETURNED: return_to_draft}
    target = {
        Step.REQUESTED: IssueState.REVIEW,
        Step.APPROVED: IssueState.APPROVED,
        Step.RETURNED: IssueState.DRAFT,
    }
    for begin in IssueState:
        for step, act in take.items():
            with transaction(database) as session:
                store.find(session, "news").state = begin
            before = len(steps(database))
            if target[step] in ISSUE_NEXT[begin]:
                act(database)
                assert (state(database), len(steps(database))) == (target[step], before + 1)
            else:
                with pytest.raises(IssueError, match="cannot become"):
                    act(database)
                assert (state(database), len(steps(database))) == (begin, before)


def test_an_approval_can_be_taken_back(database: Engine) -> None:
    write(database)
    ask(database)
    approve(database)
    return_to_draft(database, note="A mistake in the second link.")
    assert state(database) == IssueState.DRAFT


def test_nobody_approves_words_that_they_have_not_seen(database: Engine) -> None:
    write(database, "One.")
    ask(database)
    write(database, "Two.", by=Actor(3, "carol@example.org"))
    ask(database)
    with pytest.raises(IssueError) as refused:
        approve(database, 1)
    assert refused.value.message == (
        "revision 1 is not the latest: carol@example.org saved revision 2 at 2026-03-27 07:00 UTC"
    )
    assert refused.value.hint == "Read revision 2, then approve that one."
    assert state(database) == IssueState.REVIEW


def test_an_edit_while_somebody_approves_is_never_approved_by_that(database: Engine) -> None:
    write(database, "One.")
    ask(database)
    with ThreadPoolExecutor(1) as other:
        with transaction(database) as session:
            text = "---\nsubject: Our news\nslug: news\n---\n\nTwo.\n"
            draft = parse_issue(text, name="any.md")
            store.save(session, draft, by=ALICE, now=NOW, base=1)
            waits = other.submit(approve, database, 1)
        with pytest.raises(IssueError, match="revision 1 is not the latest"):
            waits.result(timeout=30)
        assert state(database) == IssueState.DRAFT
        # The other way round: the edit comes after the approval, and undoes it.
        ask(database)
        with transaction(database) as session:
            approval.approve(session, "news", revision=2, by=BOB, now=NOW)
            waits_too = other.submit(write, database, "Three.", base=2)
        assert waits_too.result(timeout=30) == 3
    assert state(database) == IssueState.DRAFT


def test_of_two_who_approve_at_the_same_time_one_is_told_that_it_is_done(database: Engine) -> None:
    write(database)
    ask(database)
    with ThreadPoolExecutor(1) as other:
        with transaction(database) as session:
            approval.approve(session, "news", revision=1, by=BOB, now=NOW)
            waits = other.submit(approve, database, by=Actor(3, "carol@example.org"))
        with pytest.raises(IssueError, match="it is approved and cannot become approved"):
            waits.result(timeout=30)
    assert [(step, who) for step, who, *_ in steps(database)][1:] == [
        ("approved", "bob@example.org")
    ]


def test_a_second_person_is_neither_who_wrote_it_nor_who_asked(database: Engine) -> None:
    write(database, by=ALICE)
    ask(database, by=BOB)
    for who, why in (ALICE, "wrote this revision"), (BOB, "asked for the review"):
        with pytest.raises(IssueError, match=f"{who.name} {why}, so another user has to"):
            approve(database, by=who, second_person=True)
    assert state(database) == IssueState.REVIEW
    approve(database, by=Actor(3, "carol@example.org"), second_person=True)
    assert state(database) == IssueState.APPROVED


def test_somebody_is_the_same_person_under_a_new_address_and_another_under_a_reused_one(
    database: Engine,
) -> None:
    write(database, by=ALICE)
    ask(database, by=COMMAND_LINE)
    with pytest.raises(IssueError, match="wrote this revision"):
        approve(database, by=Actor(ALICE.user_id, "married@example.org"), second_person=True)
    with pytest.raises(IssueError, match="asked for the review"):
        approve(database, by=COMMAND_LINE, second_person=True)
    approve(database, by=Actor(9, ALICE.name), second_person=True)
    assert state(database) == IssueState.APPROVED


def test_who_asked_for_an_earlier_review_may_approve_a_later_one(database: Engine) -> None:
    write(database, by=ALICE)
    ask(database, by=BOB)
    return_to_draft(database, by=ALICE)
    ask(database, by=ALICE)
    approve(database, by=BOB, second_person=True)
    assert state(database) == IssueState.APPROVED


def test_whoever_sends_a_text_approves_it_by_that(database: Engine) -> None:
    text = "---\nsubject: Our news\nslug: news\n---\n\nSent.\n"
    for _ in range(2):
        with transaction(database) as session:
            draft = parse_issue(text, name="any.md")
            saved = store.save(session, draft, by=COMMAND_LINE, now=NOW)
            approval.approve_by_sending(session, saved, by=COMMAND_LINE, now=NOW)
    assert steps(database) == [
        ("requested", "command line", 1, ""),
        ("approved", "command line", 1, "by sending it"),
    ]


def test_only_the_very_text_that_was_approved_passes(database: Engine) -> None:
    write(database, "One.")
    ask(database)
    approve(database)
    with transaction(database) as session:
        latest = store.revision_of(session, store.find(session, "news"))
        again = store.save(session, store.draft_of(session, latest), by=ALICE, now=NOW)
        approval.require_approved(again)
    with transaction(database) as session:
        draft = parse_issue("---\nsubject: x\nslug: news\n---\n\nOther.\n", name="any.md")
        saved = store.save(session, draft, by=ALICE, now=NOW)
        with pytest.raises(IssueError, match="nobody approved it") as refused:
            approval.require_approved(saved)
    assert "approves revision 2" in (refused.value.hint or "")


def test_the_next_of_a_series_is_the_one_that_was_approved_first_with_its_latest_text(
    database: Engine,
) -> None:
    for number, slug in enumerate(("first", "second", "draft"), 1):
        write(database, "Old words.", slug=slug)
        write(database, f"Words of {slug}.", slug=slug)
        if slug != "draft":
            ask(database, slug=slug)
            approve(database, 2, slug=slug, later=-number)
    issue = table_of(Issue)
    with reading(database) as session:
        found = approval.next_approved(session, "letter")
        assert found is not None
        assert (found.slug, found.number) == ("second", 2)
        assert found.draft.body.strip() == "Words of second."
        taken = select(issue.c.id).where(issue.c.slug == "second")
        other = approval.next_approved(session, "letter", taken=taken)
        assert other is not None
        assert other.slug == "first"
        assert approval.next_approved(session, "weekly") is None


def test_a_note_without_end_is_cut_and_a_stranger_is_refused(database: Engine) -> None:
    write(database)
    ask(database, note="x" * 5000)
    assert len(steps(database)[0][3]) == 2000
    with pytest.raises(IssueError, match="no such issue"):
        ask(database, slug="other")


def test_a_stale_save_leaves_a_review_as_it_was(database: Engine) -> None:
    write(database, "One.")
    ask(database)
    with pytest.raises(StaleRevisionError):
        write(database, "Two.", base=0)
    assert state(database) == IssueState.REVIEW
