"""Jobs between processes: fed once, run as often as they like, and nothing is sent twice."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier, Event, Lock
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from newsletter.db.engine import open_database, transaction
from newsletter.provider.gateway import MailRequest, NotSent, Outcome
from newsletter.scheduling.due import next_due
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.outbox import OutgoingEmail
from newsletter.sending.ledger import provider_backoff, sends
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.states import SendState
from newsletter.sending.workers import procrastinate_queue
from newsletter.sending.workers.procrastinate_queue import (
    DistributedWorkers,
    delete_old_jobs,
    install,
    queue_due,
)
from newsletter.wakeups import Wakeups
from tests.conftest import NOW
from tests.newsletter.sending.conftest import FakeGateway, batches, dispatcher, planned

#: procrastinate's triggers look for its tables where the session looks.
LOOK_THERE = "SET LOCAL search_path TO procrastinate"
GRACE = timedelta(hours=1)
pytestmark = [
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
    pytest.mark.both_databases,
]


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """With procrastinate's tables."""
    engine = open_database(database_url)
    install(engine)
    yield engine
    engine.dispose()


def jobs(database: Engine) -> list[tuple[str, str, dict[str, int]]]:
    with database.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT queueing_lock, status, args"
                " FROM procrastinate.procrastinate_jobs ORDER BY id"
            )
        )
        return [tuple(row) for row in rows]


def fed(database: Engine, *, now: datetime = NOW) -> int:
    with transaction(database) as session:
        return queue_due(session, now=now)


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.02)


def run(database: Engine, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(text(statement))


def all_settled(database: Engine, send: int) -> Callable[[], bool]:
    return lambda: {b.state for b in batches(database, send)} == {"accepted"}


@pytest.fixture
def crew(database: Engine) -> Iterator[Callable[..., DistributedWorkers]]:
    """Starts workers as a process has them, and stops what a test left running."""
    started: list[DistributedWorkers] = []

    def start(gateway: FakeGateway, concurrency: int = 2) -> DistributedWorkers:
        workers = DistributedWorkers(
            database,
            Wakeups(database, partial(next_due, grace=GRACE)),
            lambda: dispatcher(database, gateway),
            concurrency=concurrency,
        )
        workers.start()
        started.append(workers)
        return workers

    yield start
    for workers in started:
        workers.stop()


def test_two_that_install_at_once_install_once(database_url: str) -> None:
    engine = open_database(database_url)
    ready = Barrier(2)

    def both(_: int) -> bool:
        ready.wait()
        return install(engine)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(both, range(2))) == [False, True]
    assert not install(engine)
    assert jobs(engine) == []
    engine.dispose()


def test_tables_of_another_release_are_made_anew(database: Engine, five: list[int]) -> None:
    planned(database)
    assert fed(database) == 3
    run(database, "COMMENT ON SCHEMA procrastinate IS 'an older one'")
    assert install(database)
    assert jobs(database) == []
    assert fed(database) == 3


def test_a_socket_and_a_password_reach_procrastinate(database: Engine) -> None:
    url = "postgresql+psycopg://me:p%40s%20s@/news?host=/run/pg&options=-c%20a.b%3D1"
    told = procrastinate_queue.conninfo(create_engine(url))
    for part in ("user=me", "password='p@s s'", "dbname=news", "host=/run/pg", "-c a.b=1 -c sea"):
        assert part in told


def test_each_due_batch_is_fed_once(database: Engine, five: list[int]) -> None:
    send = planned(database)
    assert fed(database) == 3
    assert fed(database) == 0
    assert jobs(database) == [
        (f"{send}/{n}", "todo", {"send_id": send, "number": n}) for n in (1, 2, 3)
    ]


def test_two_holders_of_the_clock_feed_once(database: Engine, five: list[int]) -> None:
    planned(database)
    with transaction(database) as slow:
        assert queue_due(slow, now=NOW) == 3
        with ThreadPoolExecutor(1) as pool:
            # It waits for the first one's jobs and finds them there.
            late = pool.submit(fed, database)
            time.sleep(0.3)
            slow.commit()
            assert late.result(timeout=10) == 0
    assert len(jobs(database)) == 3


def test_only_what_may_leave_is_fed(database: Engine, five: list[int]) -> None:
    send = planned(database)
    with transaction(database) as session:
        provider_backoff.back_off(session, now=NOW, until=NOW + timedelta(minutes=1), reason="wait")
    assert fed(database) == 0
    with transaction(database) as session:
        provider_backoff.lift(session)
        sends.move_send(session, send, SendState.PAUSED)
    assert fed(database) == 0
    with transaction(database) as session:
        sends.move_send(session, send, SendState.SENDING)
    run(database, "UPDATE batch SET part = 'rest' WHERE number = 2")
    run(database, "UPDATE batch SET state = 'claimed' WHERE number = 3")
    assert fed(database) == 1


def test_a_batch_is_fed_once_it_is_due(database: Engine, five: list[int]) -> None:
    planned(database)
    later = NOW + timedelta(minutes=1)
    run(database, f"UPDATE batch SET not_before = '{later}' WHERE number > 1")
    assert [fed(database), fed(database)] == [1, 0]
    assert [fed(database, now=later), fed(database, now=later)] == [2, 0]


def test_not_more_is_fed_than_can_be_called_back(
    database: Engine, five: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(database, size=1)
    monkeypatch.setattr(procrastinate_queue, "_MAX_WAITING", 3)
    assert [fed(database), fed(database)] == [3, 0]
    run(database, "UPDATE batch SET state = 'claimed' WHERE number = 1")
    assert fed(database) == 0
    run(database, f"{LOOK_THERE}; DELETE FROM procrastinate_jobs WHERE queueing_lock LIKE '%/1'")
    assert fed(database) == 1


def test_a_send_whose_last_answer_came_is_called_sent(database: Engine, five: list[int]) -> None:
    send = planned(database)
    worker = dispatcher(database, FakeGateway())
    assert all(worker.send_batch(send, n) for n in (1, 2, 3))
    assert fed(database) == 0
    with database.connect() as connection:
        assert connection.execute(text("SELECT state FROM send")).scalar_one() == "sent"


def test_workers_send_what_is_fed_and_nothing_is_left(
    database: Engine, five: list[int], crew: Callable[..., DistributedWorkers]
) -> None:
    send, gateway = planned(database, size=1), FakeGateway()
    workers = crew(gateway)
    assert fed(database) == 5
    until(all_settled(database, send))
    # Those for batches that were sent on the way are looked at and found to be done.
    until(lambda: jobs(database) == [])
    workers.stop()
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    with database.connect() as connection:
        alive = text("SELECT count(*) FROM procrastinate.procrastinate_workers")
        assert connection.execute(alive).scalar_one() == 0


@pytest.mark.parametrize("delay", [0, 0.01, 0.02, 0.04, 0.08, 0.3])
def test_a_job_is_fetched_at_once_at_whatever_moment_it_comes(
    database: Engine,
    five: list[int],
    crew: Callable[..., DistributedWorkers],
    delay: float,
) -> None:
    """Also between a worker's look into the queue and its being ready for the next wakeup."""
    send = planned(database, size=5)
    crew(FakeGateway())
    time.sleep(delay)
    fed(database)
    until(all_settled(database, send), procrastinate_queue._POLL_INTERVAL / 4)


def test_a_job_that_runs_twice_sends_once(
    database: Engine, five: list[int], crew: Callable[..., DistributedWorkers]
) -> None:
    send, gateway = planned(database), FakeGateway()
    fed(database)
    double_the_jobs(database)
    double_the_jobs(database)
    for _ in range(2):
        crew(gateway)
    until(lambda: jobs(database) == [])
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    assert {b.attempt for b in batches(database, send)} == {1}


def double_the_jobs(database: Engine) -> None:
    run(
        database,
        f"{LOOK_THERE}; INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
        " SELECT queue_name, task_name, args FROM procrastinate_jobs",
    )


def test_a_batch_that_is_put_back_is_fed_again_when_it_is_due(
    database: Engine, five: list[int], crew: Callable[..., DistributedWorkers]
) -> None:
    send = planned(database, size=5)
    crew(FakeGateway(NotSent("no line")))
    fed(database)
    until(lambda: jobs(database) == [] and batches(database, send)[0].attempt == 1)
    later = datetime.now(UTC) + timedelta(hours=1)
    with transaction(database) as session:
        provider_backoff.lift(session)
    assert fed(database, now=later) == 1


def test_single_mails_are_fed_as_one_job(
    database: Engine, crew: Callable[..., DistributedWorkers]
) -> None:
    with transaction(database) as session:
        for name in ("a", "b", "c"):
            mail = OutgoingEmail(subject="Confirm", html="<p>yes</p>", text="yes")
            outbox.enqueue(session, kind="confirm", email=f"{name}@example.org", mail=mail, now=NOW)
    assert [fed(database), fed(database)] == [1, 0]
    gateway = FakeGateway()
    crew(gateway)
    until(lambda: len(gateway.mailed) == 3)
    until(lambda: jobs(database) == [])
    assert fed(database) == 0


class Slow(FakeGateway):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may, self._lock = Event(), Lock()

    def send(self, request: MailRequest) -> Outcome:
        with self._lock:
            outcome = super().send(request)
        assert self.may.wait(30)
        return outcome


def test_a_stop_lets_requests_under_way_end_and_begins_no_more(
    database: Engine, five: list[int], crew: Callable[..., DistributedWorkers]
) -> None:
    send, gateway = planned(database, size=1), Slow()
    workers = crew(gateway, concurrency=2)
    fed(database)
    until(lambda: len(gateway.requests) == 2)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(workers.stop)
        time.sleep(0.3)
        assert not stopped.done()
        gateway.may.set()
        stopped.result(timeout=20)
    states = sorted(b.state for b in batches(database, send))
    assert states == ["accepted"] * 2 + ["pending"] * 3
    # What waits stays for the others.
    assert [status for _, status, _ in jobs(database)] == ["todo"] * 3


@pytest.mark.slow
def test_answers_that_come_while_the_database_is_away_are_written_down_later(
    database: Engine,
    five: list[int],
    crew: Callable[..., DistributedWorkers],
    caplog: pytest.LogCaptureFixture,
) -> None:
    send, gateway = planned(database, size=1), Slow()
    crew(gateway, concurrency=2)
    fed(database)
    until(lambda: len(gateway.requests) == 2)
    server = create_engine(database.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    run(server, "ALTER DATABASE test ALLOW_CONNECTIONS false")
    run(
        server,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test'",
    )
    gateway.may.set()
    until(lambda: "could not send or settle a batch; trying again" in caplog.text)
    time.sleep(2.5)
    run(server, "ALTER DATABASE test ALLOW_CONNECTIONS true")
    server.dispose()
    until(all_settled(database, send), seconds=40)
    assert len(gateway.mailed) == len(set(gateway.mailed)) == 5
    assert {b.attempt for b in batches(database, send)} == {1}


@pytest.mark.slow
def test_an_answer_that_could_not_be_written_down_is_kept_whatever_the_reason(
    database: Engine,
    five: list[int],
    crew: Callable[..., DistributedWorkers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: list[bool] = []
    settle = BatchStore.settle

    def once(*args: Any, **named: Any) -> None:
        if not failed:
            failed.append(True)
            raise RuntimeError("nobody expected that")
        settle(*args, **named)

    monkeypatch.setattr(BatchStore, "settle", once)
    send, gateway = planned(database, size=5), FakeGateway()
    crew(gateway)
    fed(database)
    until(all_settled(database, send))
    assert (len(gateway.requests), failed) == (1, [True])


def test_what_a_killed_process_left_behind_is_swept(database: Engine, five: list[int]) -> None:
    send = planned(database)
    fed(database)
    run(
        database,
        f"{LOOK_THERE}; INSERT INTO procrastinate_workers (last_heartbeat)"
        " VALUES (now() - interval '4 hours'), (now());"
        "UPDATE procrastinate_jobs"
        " SET status = 'doing', worker_id = substring(queueing_lock, 3)::int"
        " WHERE NOT queueing_lock LIKE '%/3'",
    )
    with transaction(database) as session:
        assert delete_old_jobs(session) == 1
    assert [(name, status) for name, status, _ in jobs(database)] == [
        (f"{send}/2", "doing"),
        (f"{send}/3", "todo"),
    ]
