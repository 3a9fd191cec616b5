"""Two `newsletter worker` processes share a send; one is killed, or all are told to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import Engine, text

from newsletter.accounts.audit import Actor
from newsletter.cli.content.issues import read_and_render
from newsletter.cli.demo.environment import people
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.issues.store import COMMAND_LINE
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.recovery import uncertain_batches
from newsletter.settings.load import load, resource

NEWSLETTER = Path(sys.executable).with_name("newsletter")
#: Batches enough that some are left when a test on a busy machine comes to its signal.
PEOPLE, BATCH_SIZE = 1000, 10


@pytest.fixture
def sandbox(environment: dict[str, str]) -> Iterator[RunningSandbox]:
    """Takes its time, so that there is a middle to stop in."""
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        running.set_faults(slow={"probability": 1, "seconds": 0.4})
        environment |= {
            "NEWSLETTER_SENDGRID__HOST": running.url,
            "NEWSLETTER_SENDGRID__TIMEOUT": "2s",
            "NEWSLETTER_SENDING__BATCH_SIZE": str(BATCH_SIZE),
            "NEWSLETTER_SENDING__CONCURRENCY": "2",
        }
        yield running


@pytest.fixture
def parts(environment: dict[str, str], sandbox: RunningSandbox) -> Iterator[Container]:
    """What the test looks into the database with."""
    container = Container(load(environment))
    yield container
    container.database.dispose()


class Worker:
    """`newsletter worker` as a process of its own."""

    def __init__(self, environment: dict[str, str], folder: Path, name: str) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [NEWSLETTER, "worker"],
                env={"PATH": os.environ["PATH"], **environment},
                stderr=log,
                cwd=folder,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def name(self) -> str:
        """By which the ledger knows it."""
        return self.said.partition("worker ")[2].split()[0]

    def has_begun(self) -> bool:
        return "Ctrl-C stops it" in self.said

    def kill(self) -> None:
        """Whatever happens, it ends with the test."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextmanager
def workers(environment: dict[str, str], folder: Path, *names: str) -> Iterator[list[Worker]]:
    with ExitStack() as ends:
        started = [Worker(environment, folder, name) for name in names]
        for one in started:
            ends.callback(one.kill)
        for one in started:
            until(one.has_begun, one)
        yield started


def until(done: Callable[[], bool], *running: Worker, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        said = "\n\n".join(one.said for one in running)
        assert time.monotonic() < deadline, f"it does not come to pass\n{said}"
        time.sleep(0.05)


def send_now(parts: Container) -> int:
    people(parts, engineers=PEOPLE, leaders=10)
    issue = resource("issues") / "engineering-at-scale-2026-03-27.md"
    draft, rendered = read_and_render(parts, issue)
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        return send_lifecycle.create(
            session,
            draft,
            rendered,
            ["engineers"],
            by=Actor(None, "operator"),
            at=now,
            now=now,
            approved_by=COMMAND_LINE,
        ).id


def batches(database: Engine) -> list[tuple[int, str, str | None]]:
    """(number, state, worker) of each."""
    with database.connect() as connection:
        rows = connection.execute(text("SELECT number, state, worker FROM batch ORDER BY number"))
        return [tuple(row) for row in rows]


def in_states(database: Engine, *states: str) -> list[int]:
    return [number for number, state, _ in batches(database) if state in states]


def have_sent(database: Engine) -> set[str | None]:
    """The workers whose batches were accepted."""
    return {worker for _, state, worker in batches(database) if state == "accepted"}


def is_sent(database: Engine) -> bool:
    with database.connect() as connection:
        return bool(connection.execute(text("SELECT state = 'sent' FROM send")).scalar_one())


def taken(sandbox: RunningSandbox) -> list[dict[str, str]]:
    """The custom args of every mail that the sandbox took."""
    lines = httpx.get(f"{sandbox.url}/sandbox/accepted").text.splitlines()
    return [json.loads(line)["custom_args"] for line in lines]


def copies(sandbox: RunningSandbox) -> set[int]:
    """How many times people were mailed."""
    return set(Counter(mail["nl_subscriber"] for mail in taken(sandbox)).values())


@pytest.mark.slow
def test_one_of_two_is_killed_and_the_other_finishes(
    environment: dict[str, str], sandbox: RunningSandbox, parts: Container, tmp_path: Path
) -> None:
    with workers(environment, tmp_path, "first", "second") as (first, second):
        send = send_now(parts)
        until(lambda: len(taken(sandbox)) >= 300, first, second)
        first.end(signal.SIGKILL)
        # The dead one's batches come back within half a minute, the clock within a quarter.
        unsettled = ("pending", "claimed", "in_flight")
        until(lambda: not in_states(parts.database, *unsettled), first, second, seconds=240)

        doubtful = in_states(parts.database, "uncertain")
        accepted = in_states(parts.database, "accepted")
        assert len(accepted) + len(doubtful) == PEOPLE / BATCH_SIZE
        # Two requests were under way at most.
        assert len(doubtful) <= 2
        assert {worker for _, _, worker in batches(parts.database)} == {first.name, second.name}
        assert copies(sandbox) == {1}
        has = {int(mail["nl_batch"]) for mail in taken(sandbox)}
        assert set(accepted) <= has

        with transaction(parts.database) as session:
            for number in doubtful:
                uncertain_batches.resolve(
                    session,
                    send,
                    number,
                    by=Actor(None, "operator"),
                    sent=number in has,
                    now=datetime.now(UTC),
                )
        until(lambda: is_sent(parts.database), second)
        assert second.end(signal.SIGTERM) == 0
    assert len(taken(sandbox)) == PEOPLE
    assert copies(sandbox) == {1}


@pytest.mark.slow
def test_a_stop_leaves_nothing_in_doubt_and_others_go_on(
    environment: dict[str, str], sandbox: RunningSandbox, parts: Container, tmp_path: Path
) -> None:
    with workers(environment, tmp_path, "first", "second") as both:
        send_now(parts)
        until(lambda: have_sent(parts.database) == {one.name for one in both}, *both)
        for one in both:
            one.process.send_signal(signal.SIGTERM)
        for one in both:
            assert one.process.wait(timeout=30) == 0
            assert "Traceback" not in one.said
        done = [int(one.said.partition("stopped · ")[2].split()[0]) for one in both]
    states = Counter(state for _, state, _ in batches(parts.database))
    assert set(states) == {"accepted", "pending"}
    assert states["accepted"] == sum(done)
    assert min(done) > 0
    assert len(taken(sandbox)) == states["accepted"] * BATCH_SIZE

    sandbox.set_faults()
    with workers(environment, tmp_path, "third") as (third,):
        until(lambda: is_sent(parts.database), third)
        assert third.end(signal.SIGINT) == 0
    assert len(taken(sandbox)) == PEOPLE
    assert copies(sandbox) == {1}
