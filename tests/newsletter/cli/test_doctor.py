"""`newsletter doctor` and `newsletter reconcile` as an operator meets them."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsletter.cli.service.doctor import examine
from newsletter.doctor.account import Verdict
from newsletter.provider.dns_lookups import UnaskedError
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import load
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.forking import command

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    url = "http://127.0.0.1:8000/webhooks/sendgrid/events"
    with start_sandbox(SandboxConfig(webhook_url=url)) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, sandbox: RunningSandbox) -> Run:
    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "NEWSLETTER_LINKS__KEYS": LINK_KEY,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.sandbox",
            "NEWSLETTER_SENDGRID__HOST": sandbox.url,
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
            **settings,
        }
        return command(words, environment=environment, folder=tmp_path)

    return run


def test_against_a_healthy_sandbox_everything_is_ok_and_nothing_is_touched(
    run: Run, tmp_path: Path
) -> None:
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["verdict"] for one in found} == {"ok"}
    assert any("sandbox" in one["message"] for one in found)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_database_in_use_is_checked_for_disk_space_clock_and_workers(
    run: Run, tmp_path: Path
) -> None:
    """Also while it has no tables, and while no service runs."""
    file = tmp_path / "newsletter.db"
    file.touch()
    url = {"NEWSLETTER_DATABASE_URL": f"sqlite:///{file}"}
    for words in (("sends",), None):
        done = run("doctor", "--json", **url)
        assert done.returncode == 0, done.stdout + done.stderr
        found = {one["subject"]: one for one in map(json.loads, done.stdout.splitlines())}
        assert found["clock"]["verdict"] == "warning"
        assert "serve" in found["clock"]["remedy"]
        assert found["workers"]["verdict"] == "ok"
        assert {"disk space of the database", "disk space of the departure log"} <= set(found)
        if words:
            run(*words, **url)  # makes the tables


def test_a_problem_ends_in_an_exit_code_and_no_traceback(run: Run) -> None:
    done = run("doctor", "--json", NEWSLETTER_SENDGRID__API_KEY="")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    problems = [json.loads(line) for line in done.stdout.splitlines() if '"problem"' in line]
    assert [one["subject"] for one in problems] == ["API key"]
    assert problems[0]["remedy"]
    done = run("doctor", NEWSLETTER_DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    assert done.returncode == 1
    assert "cannot open the database" in done.stdout
    assert "Traceback" not in done.stderr


def test_before_mail_leaves_the_example_s_postal_address_is_a_problem() -> None:
    def unasked(name: str, kind: str) -> list[str]:
        raise UnaskedError(f"{kind} of {name}")

    own = {"NEWSLETTER_SITE__POSTAL_ADDRESS": "Main Street 7, 10115 Berlin"}
    for more, verdict in (({}, Verdict.PROBLEM), (own, Verdict.OK)):
        found = examine(
            load({"NEWSLETTER_SENDGRID__HOST": "https://127.0.0.2.invalid", **more}),
            unasked,
            lambda _url, _headers: "9.9.9.9",
        )
        (one,) = (one for one in found if one.subject == "site.postal_address")
        assert one.verdict is verdict


@pytest.mark.slow
def test_lists_are_compared_from_the_command_line(run: Run, sandbox: RunningSandbox) -> None:
    sandbox.store.suppress("bounces", "gone@example.org", "550 no such user", 1.0e9)
    words = ("reconcile", "--json")
    for more, new, known in ((("--dry-run",), 1, 0), ((), 1, 0), (("--whole",), 0, 1)):
        done = run(*words, *more)
        assert done.returncode == 0, done.stderr
        found = {one["list"]: one for one in map(json.loads, done.stdout.splitlines())}
        assert (found["bounces"]["new_here"], found["bounces"]["known"]) == (new, known)
    done = run("reconcile", NEWSLETTER_SENDGRID__API_KEY="SG.wrong")
    assert done.returncode == 4
    assert done.stderr.startswith("error: suppression/bounces: SendGrid answered 401")
