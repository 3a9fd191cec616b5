"""`newsletter webhooks`, as an operator and as a script use it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from newsletter.container import Container
from newsletter.db.webhook_queue import WebhookEvent
from tests.forking import command

URL = "https://hooks.example.com/newsletter"
Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(container: Container, environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*words: str, **more: str) -> "CompletedProcess[str]":
        return command(
            ["webhooks", *words],
            environment={"PATH": "/usr/bin:/bin", **environment, **more},
            folder=tmp_path,
        )

    return run


def records(done: "CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_script_gets_the_secret_alone(run: Run) -> None:
    made = run("create", URL, "--event", "send.finished", "--description", "Chat")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("whsec_")
    assert len(made.stdout.split()) == 1
    assert "Endpoint 1 is told about: send.finished." in made.stderr
    rotated = run("rotate", "1")
    assert rotated.stdout.startswith("whsec_")
    assert rotated.stdout != made.stdout
    (one,) = records(run("list", "--json"))
    assert (one["url"], one["events"], one["state"]) == (URL, ["send.finished"], "enabled")
    assert "whsec_" not in json.dumps(one)


def test_an_endpoint_is_changed_in_part(run: Run) -> None:
    run("create", URL, "--event", "send.finished", "--description", "Chat")
    assert run("change", "1", "--event", "*").returncode == 0
    (one,) = records(run("list", "--json"))
    assert (one["description"], one["events"]) == ("Chat", [event.value for event in WebhookEvent])


def test_deliveries_are_listed_with_what_they_say(run: Run) -> None:
    run("create", URL, "--event", "send.finished")
    assert "Delivery 1 is queued." in run("test", "1").stdout
    (one,) = records(run("deliveries", "1", "--json"))
    assert (one["event"], one["state"], one["requests"]) == ("webhook.test", "pending", 0)
    assert one["id"].startswith("msg_")
    assert records(run("deliveries", "1", "--state", "failed", "--json")) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "http://hooks.example.com/", "--event", "*"), 2, "needs https"),
        (("create", "https://127.0.0.1/", "--event", "*"), 2, "webhooks.allow_hosts"),
        (("create", URL), 2, "choose at least one event"),
        (("create", URL, "--event", "send.lost"), 2, "there is no such event"),
        (("test", "7"), 2, "there is no such endpoint"),
        (("deliveries", "7"), 2, "there is no such endpoint"),
        (("resend", "7"), 2, "there is no such delivery"),
        (("delete", "7"), 2, "there is no such endpoint"),
        (("enable", "1"), 3, "it is not disabled"),
    ],
)
def test_a_mistake_is_explained(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    run("create", URL, "--event", "*")
    done = run(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_of_the_own_network_is_allowed_by_name(run: Run) -> None:
    allowed = {"NEWSLETTER_WEBHOOKS__ALLOW_HOSTS": "hooks.internal, 10.0.0.5"}
    for url in ("http://hooks.internal:8080/x", "http://10.0.0.5/"):
        assert run("create", url, "--event", "*", **allowed).returncode == 0
