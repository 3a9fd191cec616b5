"""The clock: one process holds it, sends start when due, late ones by the stated rule."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text, update
from sqlalchemy.exc import OperationalError

from newsletter.accounts.audit import Actor
from newsletter.db.engine import open_database, reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.scheduling import leadership
from newsletter.scheduling.due import next_due
from newsletter.scheduling.leader_clock import Clock
from newsletter.scheduling.prepared_issue import IssueRenderer
from newsletter.scheduling.tasks import TaskContext, start_due
from newsletter.sending.ledger import sends
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.planner import plan
from newsletter.sending.queries import send_status
from newsletter.sending.states import SendState
from newsletter.wakeups import Wakeups
from newsletter.web.console.dashboard import attention
from tests.conftest import add_person
from tests.newsletter.sending.conftest import five, make_send, states

__all__ = ["five"]


def task_context(database: Engine, renderer: IssueRenderer | None = None) -> TaskContext:
    return TaskContext(
        database,
        batch_size=2,
        late_limit=timedelta(hours=6),
        uncertain_grace=timedelta(minutes=30),
        uncertain_policy="hold",
        keep_network_data=timedelta(days=365),
        make_issue_renderer=(lambda: renderer) if renderer else None,
    )


def wakeups(database: Engine) -> Wakeups:
    return Wakeups(database, partial(next_due, grace=timedelta(minutes=30)))


def state(database: Engine, send: int) -> str:
    with reading(database) as session:
        return send_status.find(session, send).state


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def clocks(database: Engine) -> Iterator[Callable[[], Clock]]:
    """Starts clocks as processes of their own would, and stops what is left."""
    started: list[tuple[Clock, Engine]] = []

    def start() -> Clock:
        engine = open_database(database.url.render_as_string(hide_password=False))
        clock = Clock(engine, task_context(engine), wakeups(engine))
        clock.start()
        started.append((clock, engine))
        return clock

    yield start
    for clock, engine in started:
        clock.stop()
        engine.dispose()


@pytest.mark.slow
def test_a_send_starts_when_it_is_due_and_not_before(database: Engine, five, clocks) -> None:
    due = datetime.now(UTC) + timedelta(seconds=3)
    send = make_send(database, at=due)
    clocks()
    while datetime.now(UTC) < due:
        now_is = state(database, send)
        assert now_is == "scheduled" or datetime.now(UTC) >= due
        time.sleep(0.05)
    assert until(lambda: state(database, send) == "sending")
    assert len(states(database, send)) == 5


@pytest.mark.slow
def test_a_send_scheduled_before_a_restart_starts_after_it(database: Engine, five, clocks) -> None:
    send = make_send(database, at=datetime.now(UTC) + timedelta(seconds=1))
    clocks().stop()
    time.sleep(1.1)
    clocks()
    assert until(lambda: state(database, send) == "sending")


@pytest.mark.parametrize(("hours", "expected"), [(5.9, "sending"), (6.1, "paused")])
def test_a_late_send_starts_within_the_limit_and_else_waits_with_the_reason(
    database: Engine, five, hours: float, expected: str
) -> None:
    send = make_send(database, at=datetime.now(UTC) - timedelta(hours=hours))
    start_due(task_context(database))
    assert state(database, send) == expected
    if expected == "paused":
        with transaction(database) as session:
            assert "while the service did not run" in send_status.find(session, send).reason
            send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
        start_due(task_context(database))
        assert state(database, send) == "sending"


def outgrown(database: Engine) -> int:
    """A due send of one a day to five people, who became four hundred before it began."""
    due = datetime.now(UTC) - timedelta(minutes=2)
    send = make_send(database, at=due, timetable=Timetable(per_day=1))
    with transaction(database) as session:
        for number in range(395):
            add_person(session, f"new{number}@example.org")
    return send


def test_a_send_that_cannot_be_planned_waits_for_the_operator_with_the_reason(
    database: Engine, five
) -> None:
    send = outgrown(database)
    start_due(task_context(database))
    with reading(database) as session:
        found = send_status.find(session, send)
        [waiting] = attention.items(session, event_silence=timedelta(0), now=datetime.now(UTC))
    assert (found.state, found.started_at) == ("paused", None)
    assert "the send would take more than 366 days. Raise its limits" in found.reason
    assert (waiting.what, waiting.why) == ("Paused: Hello reader", found.reason)


def test_a_send_that_could_not_be_planned_is_planned_anew_once_it_is_resumed(
    database: Engine, five
) -> None:
    send = outgrown(database)
    start_due(task_context(database))
    # Nothing has changed: nobody may be told that it is sent.
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    start_due(task_context(database))
    assert (state(database, send), states(database, send)) == ("paused", {})
    with transaction(database) as session:
        send_lifecycle.change_pace(
            session, send, Timetable(), by=Actor(None, "operator"), now=datetime.now(UTC)
        )
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    start_due(task_context(database))
    assert state(database, send) == "sending"
    assert len(states(database, send)) == 400


def test_a_send_that_cannot_be_planned_keeps_no_other_from_starting(database: Engine, five) -> None:
    due = datetime.now(UTC) - timedelta(minutes=2)
    strange = make_send(database, slug="first", at=due)
    sound = make_send(database, slug="second", at=due + timedelta(minutes=1))
    with transaction(database) as session:
        rule = [{"name": "everybody", "expression": "no_such_function(1)"}]
        session.execute(
            update(table_of(Send)).where(table_of(Send).c.id == strange).values(segments=rule)
        )
    start_due(task_context(database))
    assert (state(database, strange), state(database, sound)) == ("paused", "sending")


def test_a_send_that_trouble_keeps_from_starting_is_due_still_and_the_others_start(
    database: Engine, five, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = datetime.now(UTC) - timedelta(minutes=2)
    first = make_send(database, slug="first", at=due)
    second = make_send(database, slug="second", at=due + timedelta(minutes=1))
    usual = sends.move_send

    def fail(session: Session, send_id: int, target: SendState, **more: Any) -> bool:
        if (send_id, target) == (first, SendState.SENDING):
            raise RuntimeError("the disk is full")
        return usual(session, send_id, target, **more)

    monkeypatch.setattr(sends, "move_send", fail)
    assert start_due(task_context(database)) == [first]
    assert (state(database, first), state(database, second)) == ("scheduled", "sending")
    assert states(database, first) == {}
    assert "the disk is full" in caplog.text
    monkeypatch.undo()
    assert start_due(task_context(database)) == []
    assert (state(database, first), len(states(database, first))) == ("sending", 5)


@pytest.mark.slow
def test_of_two_that_start_a_send_at_once_one_does_and_the_other_goes_on(
    database: Engine, five
) -> None:
    now = datetime.now(UTC)
    send, other = make_send(database, at=now), make_send(database, slug="other", at=now)
    with ThreadPoolExecutor(1) as pool:
        with transaction(database, snapshot=True) as session:
            plan(session, send, now=now, batch_size=2)
            second = pool.submit(start_due, task_context(database))
            time.sleep(1)  # it waits for the first
        second.result(timeout=20)
    assert (state(database, send), state(database, other)) == ("sending", "sending")
    assert len(states(database, send)) == 5


@pytest.mark.slow
def test_only_one_process_holds_the_clock_and_another_takes_over(
    database: Engine, five, clocks
) -> None:
    first, second = clocks(), clocks()
    assert until(lambda: first.is_leader != second.is_leader)
    holder, waiting = (first, second) if first.is_leader else (second, first)
    holder.stop()
    assert until(lambda: waiting.is_leader)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.slow
def test_a_holder_that_is_not_heard_of_loses_the_clock(
    database: Engine, clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "_SESSION_TIMEOUT", "1s")
    hangs = leadership.leadership(database)
    assert hangs.hold()
    monkeypatch.undo()
    clock = clocks()
    time.sleep(0.5)
    assert not clock.is_leader
    assert until(lambda: clock.is_leader, seconds=6)
    # Once it wakes up it notices.
    with pytest.raises(psycopg.OperationalError):
        hangs.hold()
    assert not hangs.hold()
    hangs.release()


def test_a_database_that_is_away_for_a_moment_costs_the_clock_a_renewal(
    database: Engine, five, clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsletter.scheduling.leader_clock.RENEW", 0.2)
    failed = list[bool]()
    kind = leadership._FileLock if database.dialect.name == "sqlite" else leadership._SessionLock
    hold = kind.hold

    def once(self: Any) -> bool:
        if not failed:
            failed.append(True)
            raise OperationalError("x", {}, Exception("away"))
        return hold(self)

    monkeypatch.setattr(kind, "hold", once)
    send = make_send(database, at=datetime.now(UTC))
    clocks()
    assert until(lambda: state(database, send) == "sending")
    assert failed


@pytest.mark.slow
def test_a_job_that_runs_while_something_comes_due_runs_again(
    database: Engine, five, clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = send_lifecycle.due

    def slow(session: Session, *, now: datetime) -> list[tuple[int, datetime]]:
        found = real(session, now=now)
        if not begun.is_set():
            begun.set()
            go_on.wait(20)
        return found

    monkeypatch.setattr(send_lifecycle, "due", slow)
    monkeypatch.setattr("newsletter.scheduling.tasks.transaction", reading)
    clocks()
    assert begun.wait(20)
    monkeypatch.undo()
    send = make_send(database, at=datetime.now(UTC))
    time.sleep(1.5)  # the job is told to run, and runs still
    go_on.set()
    assert until(lambda: state(database, send) == "sending", seconds=5)


@pytest.mark.slow
def test_an_end_while_a_job_takes_long_reports_no_errors(database: Engine, clocks, caplog) -> None:
    clock = clocks()
    assert until(lambda: clock.is_leader)
    ending = threading.Thread(target=clock.stop)
    with transaction(database) as session:
        if database.dialect.name == "postgresql":
            session.execute(text("LOCK TABLE send"))
        # A job waits for the table; meanwhile others come due, and the clock is told to stop.
        time.sleep(1.5)
        ending.start()
        time.sleep(1.5)
    ending.join()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_clock_that_was_ahead_and_is_put_right_goes_on_ticking(
    database: Engine, five, clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = timedelta(hours=2)

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + ahead

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Moved)
    monkeypatch.setattr("newsletter.scheduling.leader_clock.datetime", Moved)
    clock = clocks()
    assert until(lambda: clock.is_leader)
    ahead = timedelta()
    send = make_send(database, at=datetime.now(UTC) + timedelta(seconds=1))
    assert until(lambda: state(database, send) == "sending")
