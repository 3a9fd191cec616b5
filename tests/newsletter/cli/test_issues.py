"""Stored issues from the command line: revised, reviewed, approved and sent."""

import json
from pathlib import Path

import pytest

from tests.newsletter.cli.test_commands import Run, add_readers, complaint, run

__all__ = ["run"]
TEXT = "---\nsubject: Spring\nslug: spring\n---\n\n{words}\n"


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """The file of an issue; tests write other words into it."""
    path = tmp_path / "spring.md"
    path.write_text(TEXT.format(words="Hello."))
    return path


def done(run: Run, *words: str, by: str = "ada", **settings: str) -> str:
    """Runs a command of this user of the machine, and returns what it says."""
    ran = run(*words, LOGNAME=by, **settings)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def refused(run: Run, *words: str, by: str = "ada", **settings: str) -> str:
    return complaint(run(*words, LOGNAME=by, **settings), 2)


@pytest.mark.slow
def test_an_issue_is_stored_reviewed_approved_and_sent_by_its_slug(
    run: Run, write: Path, tmp_path: Path
) -> None:
    add_readers(tmp_path, run, 2)
    send = ("send", "spring", "--segment", "all", "--at", "2099-01-01T07:00+00:00")
    assert "there is no such issue" in refused(run, *send)
    assert "Saved revision 1 of spring" in done(run, "issue", "save", "spring.md")
    said = refused(run, *send)
    assert "revision 1 is not approved" in said
    assert "Request a review of spring" in said
    assert "approve spring --revision 1" in done(run, "issue", "review", "spring")
    approve = ("issue", "approve", "spring", "--revision", "1")
    assert "newsletter send spring" in done(run, *approve)
    assert "is scheduled for" in done(run, *send)
    assert "spring" in done(run, "sends")
    log = done(run, "user", "log")
    assert "command line (ada)\tissue approved\tspring" in log
    assert "command line (ada)\treview requested\tspring" in log
    # An edit is a new revision, which nobody has approved yet.
    write.write_text(TEXT.format(words="Hello again."))
    done(run, "issue", "save", "spring.md")
    assert "revision 2 is not approved" in refused(run, *send)
    assert "no such file" in refused(run, "send", "winter.md", "--segment", "all")


@pytest.mark.slow
def test_what_cannot_be_rendered_is_not_approved(run: Run, write: Path) -> None:
    write.write_text("---\nsubject: Spring\ntemplate: digest\n---\n\nNo digest at all.\n")
    done(run, "issue", "save", "spring.md")
    done(run, "issue", "review", "spring")
    assert "spring.md:" in refused(run, "issue", "approve", "spring", "--revision", "1")
    assert "The issue is in review." in run("issue", "show", "spring").stderr


@pytest.mark.slow
def test_a_text_goes_out_and_comes_back_the_same(run: Run, write: Path) -> None:
    done(run, "issue", "save", "spring.md", "--base", "0")
    write.write_text(TEXT.format(words="Two."))
    done(run, "issue", "save", "spring.md", "--base", "1", by="bob")
    latest = run("issue", "show", "spring")
    assert latest.stdout == TEXT.format(words="Two.")
    assert "revision 2 by command line (bob)" in latest.stderr
    assert "The issue is a draft." in latest.stderr
    first = run("issue", "show", "spring", "--revision", "1")
    assert first.stdout == TEXT.format(words="Hello.")
    assert "revision 1 of 2" in first.stderr
    assert "no revision 3" in refused(run, "issue", "show", "spring", "--revision", "3")
    assert "already, as revision 2" in done(run, "issue", "save", "spring.md")
    write.write_text(TEXT.format(words="Three."))
    said = refused(run, "issue", "save", "spring.md", "--base", "1")
    assert "command line (bob) saved revision 2 meanwhile" in said


@pytest.mark.slow
def test_a_second_person_is_another_user_of_the_machine(run: Run, write: Path) -> None:
    second = {"NEWSLETTER_REVIEW__SECOND_PERSON": "true"}
    done(run, "issue", "save", "spring.md")
    done(run, "issue", "review", "spring", "--note", "Please.")
    approve = ("issue", "approve", "spring", "--revision", "1")
    assert "wrote this revision" in refused(run, *approve, **second)
    assert "is approved" in done(run, *approve, by="bob", **second)
    assert "draft again" in done(run, "issue", "return", "spring", "--note", "Shorter!", by="bob")
    lines = run("issue", "history", "spring", "--json").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [(one["step"], one["by"], one["note"]) for one in told] == [
        ("stored", "command line (ada)", ""),
        ("requested", "command line (ada)", "Please."),
        ("approved", "command line (bob)", ""),
        ("returned", "command line (bob)", "Shorter!"),
    ]


@pytest.mark.slow
def test_issues_are_listed_by_state_and_series(run: Run, write: Path) -> None:
    assert "newsletter issue save FILE" in done(run, "issue", "list")
    done(run, "issue", "save", "spring.md")
    done(run, "issue", "review", "spring")
    found = json.loads(run("issue", "list", "--state", "review", "--json").stdout)
    assert (found["issue"], found["title"], found["series"]) == ("spring", "Spring", "letter")
    assert run("issue", "list", "--series", "weekly").stdout == ""
    assert run("issue", "list", "--state", "approved").stdout == ""


@pytest.mark.slow
def test_what_is_not_there_or_no_issue_is_said_so(run: Run, tmp_path: Path) -> None:
    for command in ("show", "history", "review"):
        assert "has to be saved first" in refused(run, "issue", command, "winter")
    (tmp_path / "bad.md").write_text("---\nsubject: x\n---\n\n{{ nmae }}\n")
    assert "bad.md:5" in refused(run, "issue", "save", "bad.md")
    assert run("issue", "list").stdout == ""
