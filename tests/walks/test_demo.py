"""The whole way of an issue, as `make demo ONCE=1` goes it, and what a kill leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2 as httpx
import pytest

from newsletter.accounts.audit import Actor
from newsletter.cli.content.issues import read_and_render
from newsletter.cli.demo.environment import demo_environment, owner, people
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.issues.store import COMMAND_LINE
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.settings.load import load, resource

NEWSLETTER = Path(sys.executable).with_name("newsletter")


@pytest.mark.slow
def test_the_demo_adds_up() -> None:
    done = subprocess.run(
        [NEWSLETTER, "demo", "--once"], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything adds up" in done.stdout
    assert re.search(r"console .*/console/\n.*owner@example\.com\n.*[a-z2-9-]{23}\n", done.stdout)
    rows = {
        line.rsplit(maxsplit=2)[0].strip(): line.split()[-2:]
        for line in done.stdout.splitlines()
        if len(line.split()) >= 3
    }
    assert rows["subscribers in the segments"] == ["2,500", "4,000"]
    assert rows["planned"][0] == "2,500"


@pytest.mark.slow
def test_the_demo_lets_its_owner_in() -> None:
    with demo_environment(fixed_ports=False) as on:
        password = owner(on.container, "owner@example.com")
        with httpx.Client(base_url=on.service_url, headers={"accept": "text/html"}) as browser:
            form = browser.get("/console/sign-in").text
            csrf = form.split('name="csrf" value="')[1].split('"')[0]
            given = {"csrf": csrf, "email": "owner@example.com", "password": password}
            answer = browser.post("/console/sign-in", data=given)
            assert answer.headers["location"] == "/console/"
            assert "/console/users" in browser.get("/console/").text


@contextmanager
def service(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`newsletter serve` as a process of its own."""
    process = subprocess.Popen(
        [NEWSLETTER, "serve", "--port", "0"],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "newsletter is at" in process.stderr.readline()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
        process.stderr.close()


def settled(parts: Container, send_id: int, states: set[str], seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with reading(parts.database) as session:
            state = send_status.find(session, send_id).state
        if state in states:
            return state
        time.sleep(0.05)
    return state


def taken(sandbox: RunningSandbox) -> Counter[str]:
    lines = httpx.get(f"{sandbox.url}/sandbox/accepted").text.splitlines()
    return Counter(json.loads(line)["email"] for line in lines)


def scheduled(parts: Container, seconds: float) -> int:
    people(parts, engineers=300, leaders=100)
    draft, rendered = read_and_render(
        parts, resource("issues") / "engineering-at-scale-2026-03-27.md"
    )
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        return send_lifecycle.create(
            session,
            draft,
            rendered,
            ["engineers"],
            by=Actor(None, "operator"),
            at=now + timedelta(seconds=seconds),
            now=now,
            approved_by=COMMAND_LINE,
        ).id


@pytest.mark.slow
def test_a_send_scheduled_before_a_kill_goes_out_once_after_the_restart(
    environment: dict[str, str],
) -> None:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as sandbox:
        environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
        parts = Container(load(environment))
        with service(environment) as first:
            send = scheduled(parts, 2)
            first.send_signal(signal.SIGKILL)
            first.wait()
        with service(environment):
            assert settled(parts, send, {"sent"}) == "sent"
        parts.database.dispose()
        assert len(taken(sandbox)) == 300
        assert set(taken(sandbox).values()) == {1}


def test_a_kill_in_the_middle_sends_nobody_a_second_copy(environment: dict[str, str]) -> None:
    environment |= {
        "NEWSLETTER_SENDING__BATCH_SIZE": "10",
        "NEWSLETTER_SENDING__CONCURRENCY": "2",
        "NEWSLETTER_SENDGRID__TIMEOUT": "1s",
    }
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as sandbox:
        environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
        sandbox.set_faults(slow={"probability": 1, "seconds": 0.15})
        parts = Container(load(environment))
        with service(environment) as first:
            send = scheduled(parts, 0)
            while len(taken(sandbox)) < 60:
                time.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            first.wait()
        sandbox.set_faults()
        with service(environment):
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline:
                with reading(parts.database) as session:
                    batches = send_status.recipients_by_batch_state(session, send)
                if not batches.get("pending"):
                    break
                time.sleep(0.1)
        # The second service has ended what it had begun: what is open is the first one's.
        with reading(parts.database) as session:
            batches = send_status.recipients_by_batch_state(session, send)
        got = taken(sandbox)
        assert set(got.values()) == {1}
        # What was claimed or in flight when it was killed is in the list, not lost.
        held = sum(batches.get(state, 0) for state in ("claimed", "in_flight", "uncertain"))
        assert batches["accepted"] + held == 300
        assert len(got) >= batches["accepted"]
        assert held <= 20
        parts.database.dispose()
