"""Sending from the command line: to whom, how fast, in which words, and once more."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from tests.newsletter.cli.test_commands import ISSUE, Run, add_readers, complaint, run

__all__ = ["run"]
KEY = "SG.test"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({KEY}))) as running:
        yield running


@pytest.fixture
def readers(run: Run, tmp_path: Path) -> Run:
    """Six readers in the segment ``all``, and an issue."""
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 6)
    return run


def send(run: Run, *words: str, host: str = "http://127.0.0.1:9") -> tuple[str, ...]:
    done = run("send", "issue.md", "--segment", "all", *words, NEWSLETTER_SENDGRID__HOST=host)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def people(run: Run, *words: str) -> list[dict[str, object]]:
    done = run("sends", "show", "1", "--recipients", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_people_are_listed_and_can_be_picked(readers: Run, sandbox: RunningSandbox) -> None:
    send(readers, host=sandbox.url)
    everybody = people(readers)
    assert len(everybody) == 6
    assert {row["state"] for row in everybody} == {"accepted"}
    address = str(everybody[2]["email"])
    assert [row["email"] for row in people(readers, "--email", address.upper())] == [address]
    assert people(readers, "--state", "rejected") == []
    lines = readers("sends", "show", "1", "--recipients").stdout.splitlines()
    assert lines[0].split("\t") == ["subscriber", "email", "state", "reason", "batch"]


@pytest.mark.slow
def test_a_segment_is_left_out_and_gets_it_by_another_send(
    readers: Run, sandbox: RunningSandbox
) -> None:
    address = "ok+1@example.org"
    done = readers("segment", "create", "one", f'email == "{address}"')
    if done.returncode != 0:
        pytest.fail(done.stderr)
    send(readers, "--except", "one", host=sandbox.url)
    assert len(people(readers)) == 5
    assert "not one" in readers("sends", "show", "1").stdout
    send(readers, host=sandbox.url)
    assert sandbox.store.summary()["recipients"] == 6
    assert "had this issue" in readers("sends", "show", "2").stdout


@pytest.mark.slow
def test_whoever_missed_it_gets_it_by_a_retry(readers: Run, sandbox: RunningSandbox) -> None:
    send(readers, "--at", "2099-01-01T07:00Z")
    assert "scheduled and cannot become" in complaint(readers("sends", "retry", "1"), 2)
    assert readers("sends", "cancel", "1").returncode == 0
    # It was never planned: nobody missed it, and nobody has it.
    again = readers("sends", "retry", "1", NEWSLETTER_SENDGRID__HOST=sandbox.url)
    assert "no recipient who missed" in complaint(again, 3)


@pytest.mark.slow
def test_doubts_are_settled_together_or_one_by_one(readers: Run, sandbox: RunningSandbox) -> None:
    faults = json.dumps({"error_after_accepting": {"times": 1}, "server_error": {"times": 1}})
    with urllib.request.urlopen(f"{sandbox.url}/sandbox/faults", faults.encode()) as switched:
        assert switched.status == 200
    # Each failure is waited for by itself: the send goes on, as soon as a probe is taken.
    done = readers(
        "send", "issue.md", "--segment", "all",
        NEWSLETTER_SENDGRID__HOST=sandbox.url, NEWSLETTER_SENDING__BATCH_SIZE="2",
        NEWSLETTER_SENDING__CONCURRENCY="1",
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("Once it is sent, everybody can read it in the public archive.\n")
    assert "4 recipients are in uncertain batches" in done.stderr
    text = readers("sends", "show", "1").stdout
    assert re.search(r"in uncertain batches +4\n", text)
    (shown,) = map(json.loads, readers("sends", "show", "1", "--json").stdout.splitlines())
    assert shown["recipients_in_batches"] == {"accepted": 2, "uncertain": 4}
    assert "batch 1 is uncertain: 2 recipients" in text
    assert "No events of later batches have arrived either" in text
    assert "To resolve all 2: newsletter sends resolve 1 --all --sent|--resend" in text
    for words in ([], ["--all", "--batch", "1"]):
        said = complaint(readers("sends", "resolve", "1", *words, "--sent"), 2)
        assert "name one batch, or all" in said
    done = readers("sends", "resolve", "1", "--all", "--sent")
    assert (done.returncode, done.stdout) == (0, "2 batches of send 1: counted as sent.\n")
    assert "this send has no uncertain batch" in complaint(
        readers("sends", "resolve", "1", "--all", "--resend"), 2
    )
    assert {row["state"] for row in people(readers)} == {"accepted"}


@pytest.mark.slow
def test_the_pace_is_kept_shown_and_changed(readers: Run) -> None:
    said, told = send(
        readers, "--at", "2099-01-01T07:00Z", "--per-hour", "2", "--quiet", "22:00-07:00"
    )
    assert "scheduled for 2099-01-01" in said
    assert "6 people; by its timetable the last leave 2099-01-01" in told
    assert "at most 2 per hour; quiet hours 22:00-07:00" in readers("sends", "show", "1").stdout
    assert readers("sends", "pace", "1", "--rate", "5").returncode == 0
    assert "at most 5 recipients per second" in readers("sends", "show", "1").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--local-time", "7"), "--local-time"),
        (("--local-time", "07:00", "--at", "2099-01-01T07:00"), "With --local-time it is a day"),
        (("--local-time", "07:00", "--at", "2020-01-01"), "this time is past"),
        (("--local-time", "07:00", "--at", "0001-01-01"), "the year 1 is not supported"),
        (("--quiet", "22"), "--quiet"),
        (("--window", "someday 08:00-10:00"), "--window"),
        (("--quiet", "08:00-20:00", "--window", "09:00-10:00"), "leave no time"),
        (("--per-day", "1", "--window", "mon 08:00-08:01", "--at", "2099-01-01T00:00Z"), ""),
        (("--subject", "B", "--winner", "luck"), "opens, clicks or me"),
        (("--subject", "B", "--sample", "200%"), "not a share"),
        (("--subject", "B", "--after", "later"), "a length of time"),
        (("--except", "nobody"), "no segment of this name"),
    ],
)
def test_an_option_that_cannot_be_kept_is_named(
    readers: Run, words: tuple[str, ...], said: str
) -> None:
    done = readers("send", "issue.md", "--segment", "all", *words)
    if said:
        assert said in complaint(done, 2)
        assert readers("sends", "--json").stdout == ""
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_test_of_subjects_is_made_shown_and_decided(readers: Run) -> None:
    said, _ = send(readers, "--subject", "Good morning", "--sample", "50%", "--winner", "me")
    assert "Send 1 starts now" in said
    shown = readers("sends", "test", "1").stdout
    assert "A: Hello" in shown
    assert "B: Good morning" in shown
    assert "newsletter sends winner 1 LABEL" in shown
    assert "no variant C" in complaint(readers("sends", "winner", "1", "C"), 2)
    # Nothing has started, so there is nothing to decide yet.
    assert "has not started" in complaint(readers("sends", "winner", "1", "B"), 2)
    send(readers, "--at", "2099-01-01T07:00Z")
    assert "this send has no A/B test" in complaint(readers("sends", "test", "2"), 2)
    send(readers, "--subject", "Good morning", "--after", "4h")
    shown = readers("sends", "test", "3").stdout
    assert "The winner is chosen 4 hours after the whole sample was sent" in " ".join(shown.split())
    assert "not chosen yet" in readers("sends", "show", "3").stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", ["pause", "cancel"])
def test_a_send_is_stopped_also_where_the_departure_log_cannot_be_written(
    readers: Run, tmp_path: Path, words: str
) -> None:
    send(readers, "--at", "2099-01-01T07:00Z")
    (tmp_path / "file").write_text("in the way")
    log = str(tmp_path / "file" / "log")
    done = readers("sends", words, "1", NEWSLETTER_SENDING__DEPARTURE_LOG=log)
    assert done.returncode == 0, done.stderr
    assert readers("sends", "show", "1", "--json").stdout.count(f'"{words}') >= 1


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--segment", "--except"])
def test_a_segment_that_an_unfinished_send_needs_is_not_deleted(readers: Run, option: str) -> None:
    assert readers("segment", "create", "few", 'email != "ok+1@example.org"').returncode == 0
    send(readers, option, "few", "--at", "2099-01-01T07:00Z")
    said = complaint(readers("segment", "delete", "few"), 2)
    assert "send 1 uses it and is not finished" in said
    assert "cancel" in said
    assert readers("sends", "cancel", "1").returncode == 0
    assert readers("segment", "delete", "few").returncode == 0
    log = [json.loads(line) for line in readers("user", "log", "--json").stdout.splitlines()]
    assert ("segment deleted", "few") in [(row["what"], row["to"]) for row in log]
