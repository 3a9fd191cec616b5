"""Threads of a process that sends outlive whatever happens to them."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.provider.gateway import Gateway, MailRequest, Outcome
from newsletter.provider.sendgrid import SendGridGateway
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.models import Worker
from newsletter.sending.recovery import uncertain_batches
from newsletter.sending.workers.thread_pool import ThreadPool
from tests.newsletter.scheduling.test_leader_clock import until, wakeups
from tests.newsletter.sending.conftest import FakeGateway, batches, dispatcher, planned, send_state

pytestmark = pytest.mark.both_databases


@pytest.fixture
def threads(database: Engine) -> Iterator[Callable[[Gateway], ThreadPool]]:
    """Starts two threads that send, and stops them."""
    started: list[ThreadPool] = []

    def start(gateway: Gateway) -> ThreadPool:
        begun = ThreadPool(wakeups(database), lambda: dispatcher(database, gateway), concurrency=2)
        begun.start()
        started.append(begun)
        return begun

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Takes from this process, or gives back to it, the files by which SQLite's writers queue."""
    real, none_left = os.open, [False]

    def opened(path: str, *args: int, **named: int) -> int:
        if none_left[0] and str(path).endswith("-turn"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *args, **named)

    monkeypatch.setattr(os, "open", opened)

    def take(taken: bool) -> None:
        none_left[0] = taken

    yield take
    none_left[0] = False


only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.slow
@only_sqlite
def test_a_moment_without_files_ends_no_worker(
    database: Engine, five: list[int], threads, no_files
) -> None:
    send, gateway = planned(database), FakeGateway()
    no_files(True)
    threads(gateway)
    time.sleep(0.5)
    no_files(False)
    assert until(lambda: send_state(database, send) == "sent")
    assert len(gateway.mailed) == len(set(gateway.mailed)) == 5


@only_sqlite
def test_a_moment_without_files_ends_no_heartbeat(
    database: Engine, no_files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsletter.sending.heartbeat._INTERVAL", 0.05)

    def alive_until() -> datetime:
        with reading(database) as session:
            return session.execute(select(table_of(Worker).c.alive_until)).scalar_one()

    heartbeat = Heartbeat(database)
    heartbeat.start()
    heartbeat.add_holder("a batch")
    try:
        no_files(True)
        time.sleep(0.3)
        no_files(False)
        before = alive_until()
        assert until(lambda: alive_until() > before, seconds=5)
    finally:
        heartbeat.stop()


class Startled(FakeGateway):
    """Ends with an error that nobody expects after its first request has left."""

    def send(self, request: MailRequest) -> Outcome:
        answer = super().send(request)
        if len(self.requests) == 1:
            raise RuntimeError("nobody expected that")
        return answer


@pytest.mark.slow
def test_an_error_that_nobody_expected_costs_one_batch_its_certainty_and_nothing_else(
    database: Engine, five: list[int], threads
) -> None:
    send, gateway = planned(database), Startled()
    threads(gateway)
    settled = ["accepted", "accepted", "in_flight"]
    assert until(lambda: sorted(b.state for b in batches(database, send)) == settled)
    with transaction(database) as session:
        later = datetime.now(UTC) + timedelta(hours=1)
        uncertain_batches.recover(session, now=later, grace=timedelta(minutes=30), policy="hold")
    time.sleep(0.5)
    assert sorted(b.state for b in batches(database, send)) == [*settled[:2], "uncertain"]
    assert len(gateway.mailed) == len(set(gateway.mailed)) == 5


def test_a_key_that_no_request_can_carry_pauses_the_send(
    database: Engine, five: list[int], threads
) -> None:
    send = planned(database)
    threads(
        SendGridGateway(api_key="SG.abc\n", host="http://127.0.0.1:9", timeout=timedelta(seconds=5))
    )
    assert until(lambda: send_state(database, send) == "paused")
    assert until(lambda: {b.state for b in batches(database, send)} == {"pending"})
