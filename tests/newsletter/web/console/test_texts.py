"""What a text that cannot be worked on means in the console: nothing typed is lost by it."""

from collections.abc import Callable
from typing import Any

import pytest

from newsletter.accounts.models import Role
from newsletter.errors import BusyError, MachineError, UserError
from newsletter.issues.diff import compare
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.preview import preview
from newsletter.text_workers import TextWorkers, TooMuchWorkError
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.console.test_issues import edit, hidden, keep, revisions, text, typed

ISSUES = "/console/issues"
#: Pages begin with a capital where it is a sentence of its own, so these do already.
ERRORS = [
    TooMuchWorkError("This text takes more than 20 seconds of processor time"),
    BusyError("7 texts are being processed or waiting, which is the limit"),
    MachineError("The process that works on texts does not start"),
]

#: What fails for the functions of these names, and is done on the spot for all others.
Failing = Callable[..., None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    def fail(error: UserError, *functions: Callable[..., Any]) -> None:
        names = {one.__name__ for one in functions}

        def call(_workers: TextWorkers, function: Callable[..., Any], *args: Any, **named: Any):
            if not names or function.__name__ in names:
                raise error
            return function(*args, **named)

        monkeypatch.setattr(TextWorkers, "__call__", call)

    return fail


@pytest.mark.parametrize("error", ERRORS, ids=["limit", "busy", "machine"])
def test_whatever_was_typed_comes_back_with_the_reason(
    office: Office, failing: Failing, error: UserError
) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text("Before."))
    failing(error)
    stored = edit(editor, "Long words.", base=1)
    assert stored.status_code == 400
    assert error.message in stored.text
    assert typed(stored.text) == text("Long words.")
    pasted = editor.post(f"{ISSUES}/_new", pasted="Words of a digest.")
    assert error.message in pasted.text
    assert typed(pasted.text, "pasted") == "Words of a digest."
    assert revisions(office) == [text("Before.")]


@pytest.mark.parametrize("error", ERRORS[:2], ids=["limit", "busy"])
def test_checks_and_previews_say_the_reason(
    office: Office, failing: Failing, error: UserError
) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text("Before."))
    said = error.message
    failing(error)
    checked = edit(editor, "Long words.", base=1, do="check")
    assert said in checked.text
    assert typed(checked.text) == text("Long words.")
    for answer in (
        editor.post(f"{ISSUES}/_check", text=text()),
        editor.post(f"{ISSUES}/_mail", text=text()),
        editor.get(f"{ISSUES}/news/preview"),
        editor.post(f"{ISSUES}/news/preview", to="ada@example.org"),
    ):
        assert answer.status_code in {200, 400}
        assert said in answer.text
    failing(error, preview)
    for answer in (
        editor.post(f"{ISSUES}/_mail", text=text()),
        editor.get(f"{ISSUES}/news/preview"),
    ):
        assert said in answer.text


def test_a_text_that_somebody_else_was_faster_than_comes_back_without_what_differs(
    office: Office, failing: Failing
) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text("First."))
    keep(office, text("Second."), by="bob@example.org", later=1)
    failing(ERRORS[0], compare)
    slower = edit(editor, "Third.", base=1)
    assert slower.status_code == 409
    assert "bob@example.org saved revision 2" in slower.text
    assert "The comparison cannot be shown: This text takes more than 20 seconds" in slower.text
    assert typed(slower.text) == text("Third.")
    assert hidden(slower.text, "base") == "2"


def test_what_cannot_be_rendered_is_not_approved(office: Office, failing: Failing) -> None:
    approver = office.signed_in(Role.APPROVER)
    digest = text("No digest at all.", template="digest")
    assert parse_issue(digest, name="a.md").template == "digest"
    keep(office, digest)
    approver.post(f"{ISSUES}/news/review")
    refused = approver.post(f"{ISSUES}/news/approve", revision="1", note="Well done.")
    assert refused.status_code == 409
    assert typed(refused.text, "note") == "Well done."
    assert "In review" in approver.get(f"{ISSUES}/news").text
    for error in ERRORS:
        failing(error)
        again = approver.post(f"{ISSUES}/news/approve", revision="1")
        assert again.status_code == 409
        assert error.message in again.text
