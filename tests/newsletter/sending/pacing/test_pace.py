"""When batches leave: shared waits, pauses that shift, changes of pace, warm-ups, tests."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import Engine, select

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SendError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.provider.gateway import NotSent, Unknown
from newsletter.rendering.render import render
from newsletter.sending import heartbeat
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.ledger import provider_backoff, reschedule
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.ledger.batches import recover_abandoned
from newsletter.sending.models import Batch, Variant
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.sending_windows import Hours
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.planning.planner import plan
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from newsletter.settings.load import resource
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import (
    PUBLICATION,
    TEXT,
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_plan,
    make_send,
    states,
)

_SECOND, _HOUR = timedelta(seconds=1), timedelta(hours=1)


def leaves(database: Engine, send: int) -> list[timedelta]:
    return [batch.not_before - NOW for batch in batches(database, send)]


def found(database: Engine, send: int) -> object:
    with reading(database) as session:
        return send_status.find(session, send)


def test_a_rate_limit_holds_every_worker(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=1)
    first, second = FakeGateway(NotSent("429", timedelta(seconds=40))), FakeGateway()
    dispatcher(database, first).send_next()
    assert not dispatcher(database, second).send_next()
    with reading(database) as session:
        waits = provider_backoff.in_force(session, now=datetime.now(UTC))
        assert waits is not None
        assert 30 < (waits.until - datetime.now(UTC)).total_seconds() < 41
        assert provider_backoff.in_force(session, now=datetime.now(UTC) + 41 * _SECOND) is None
    assert found(database, send).state == "sending"  # type: ignore[attr-defined]


def test_a_shorter_wait_does_not_end_a_longer_one(database: Engine) -> None:
    with transaction(database) as session:
        provider_backoff.back_off(session, now=NOW, until=NOW + _HOUR, reason="long")
        provider_backoff.back_off(session, now=NOW, until=NOW + _SECOND, reason="short")
        waits = provider_backoff.in_force(session, now=NOW + 2 * _SECOND)
        assert waits is not None
        assert waits.until == NOW + _HOUR


def test_trouble_that_lasts_pauses_the_send_and_a_resume_begins_anew(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    with transaction(database) as session:
        began = datetime.now(UTC) - 2 * _HOUR
        for minutes in range(0, 120, 5):
            at = began + timedelta(minutes=minutes)
            provider_backoff.back_off(session, now=at, until=at + 5 * _SECOND, reason="refused")
    gateway = FakeGateway(NotSent("refused"), NotSent("refused"))
    worker = dispatcher(database, gateway)
    worker.send_next()
    assert found(database, send).state == "paused"  # type: ignore[attr-defined]
    assert "for 120 minutes: refused" in found(database, send).reason  # type: ignore[attr-defined]
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
        session.execute(table_of_hold().update().values(until=NOW))
    worker.send_next()
    assert found(database, send).state == "sending"  # type: ignore[attr-defined]


def table_of_hold():  # type: ignore[no-untyped-def]
    from newsletter.sending.models import ProviderBackoff

    return table_of(ProviderBackoff)


def test_a_pause_shifts_the_timetable(database: Engine, five: list[int]) -> None:
    send = make_send(database, timetable=Timetable(per_second=0.1))
    make_plan(database, send, batch_size=1)
    assert leaves(database, send) == [n * 10 * _SECOND for n in range(5)]
    with transaction(database) as session:
        send_lifecycle.pause(
            session, send, by=Actor(None, "operator"), reason="wait", now=NOW + 5 * _SECOND
        )
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=NOW + _HOUR)
    assert leaves(database, send) == [_HOUR + n * 10 * _SECOND for n in range(5)]


def test_a_rate_is_not_saved_up_while_nothing_runs(database: Engine, five: list[int]) -> None:
    now = datetime.now(UTC)
    send = make_send(database, timetable=Timetable(per_hour=1), at=now - 5 * _HOUR)
    make_plan(database, send, now=now - 5 * _HOUR, batch_size=1)
    assert len(drain(database, FakeGateway()).mailed) == 1
    hours = [batch.not_before.replace(minute=0, second=0) for batch in batches(database, send)]
    assert len(set(hours)) == 5


def test_nothing_leaves_in_quiet_hours_however_late_the_worker_comes(
    database: Engine, five: list[int]
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    quiet = Hours((now - _HOUR).time(), (now + _HOUR).time())
    send = make_send(database, timetable=Timetable(quiet=quiet), at=now - 3 * _HOUR)
    make_plan(database, send, now=now - 3 * _HOUR)
    assert drain(database, FakeGateway()).mailed == []
    assert {batch.not_before for batch in batches(database, send)} == {now + _HOUR}
    assert {batch.state for batch in batches(database, send)} == {"pending"}


@pytest.mark.parametrize("by", ["policy", "operator"])
def test_doubt_that_is_sent_again_keeps_quiet_hours(
    database: Engine, five: list[int], by: str
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    quiet = Hours((now + 2 * _HOUR).time(), (now + 4 * _HOUR).time())
    send = make_send(database, timetable=Timetable(quiet=quiet), at=now)
    make_plan(database, send, now=now, batch_size=5)
    drain(database, FakeGateway(Unknown("lost")))
    night = now + 3 * _HOUR
    with transaction(database) as session:
        if by == "policy":
            uncertain_batches.recover(session, now=night, grace=_HOUR, policy="resend")
        else:
            uncertain_batches.resolve(
                session, send, 1, by=Actor(None, "operator"), sent=False, now=night
            )
    (batch,) = batches(database, send)
    assert (batch.state, batch.not_before) == ("pending", now + 4 * _HOUR)


def test_a_send_that_cannot_go_on_when_the_worker_comes_late_is_paused(
    database: Engine, five: list[int]
) -> None:
    now = datetime.now(UTC)
    send = make_send(database, timetable=Timetable(per_hour=1), at=now - 5 * _HOUR)
    make_plan(database, send, now=now - 5 * _HOUR, batch_size=1)
    worker = dispatcher(
        database, FakeGateway(), warm_up=WarmUp(begins=now.date(), volumes=(0,) * 400)
    )
    while worker.send_next():
        pass
    stands = found(database, send)
    assert stands.state == "paused"  # type: ignore[attr-defined]
    assert "would take more than 366 days" in stands.reason  # type: ignore[attr-defined]


def test_what_has_no_timetable_leaves_however_late_it_is(
    database: Engine, five: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reschedule, "reschedule", lambda *_, **__: pytest.fail("slow"))
    send = make_send(database, timetable=Timetable(zone="Europe/Berlin"))
    make_plan(database, send)
    worker = dispatcher(
        database, FakeGateway(), warm_up=WarmUp(begins=date(2020, 1, 1), volumes=(1,))
    )
    while worker.send_next():
        pass
    assert {state for state, _ in states(database, send).values()} == {"accepted"}


def test_another_pace_moves_what_has_not_left(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=1)
    dispatcher(database, FakeGateway()).send_next()
    with transaction(database) as session:
        moved = send_lifecycle.change_pace(
            session, send, Timetable(per_hour=2), by=Actor(None, "operator"), now=NOW
        )
    assert moved == 4
    assert [at // _HOUR for at in leaves(database, send)[1:]] == [0, 0, 1, 1]
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    with (
        transaction(database) as session,
        pytest.raises(SendError, match="its pace cannot be changed"),
    ):
        send_lifecycle.change_pace(session, send, Timetable(), by=Actor(None, "operator"), now=NOW)


@pytest.mark.parametrize("paused", [False, True])
def test_a_pace_by_which_it_could_never_be_planned_is_refused(
    database: Engine, *, paused: bool
) -> None:
    with transaction(database) as session:
        for n in range(400):
            add_person(session, f"p{n}@example.org")
    send = make_send(database, at=NOW + _HOUR)
    slow = Timetable(per_day=1)
    if paused:
        with transaction(database) as session:
            send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=NOW)
    with (
        transaction(database) as session,
        pytest.raises(SendError, match="would take more than 366 days"),
    ):
        send_lifecycle.change_pace(session, send, slow, by=Actor(None, "operator"), now=NOW)
    with transaction(database) as session:
        assert send_status.find(session, send).timetable == {}
        assert (
            send_lifecycle.change_pace(
                session, send, Timetable(per_day=2), by=Actor(None, "operator"), now=NOW
            )
            == 0
        )


def test_each_person_gets_it_at_their_own_time(database: Engine) -> None:
    with transaction(database) as session:
        zones = ["Europe/Berlin", "America/New_York", "Europe/Berlin", None, "Nowhere/At_All"]
        people = [
            add_person(session, f"p{n}@example.org", timezone=zone) for n, zone in enumerate(zones)
        ]
    morning = Timetable(local_time=time(9), local_date=date(2026, 3, 29), zone="UTC")
    send = make_send(database, timetable=morning)
    assert make_plan(database, send) == 5
    at = {batch.number: batch.not_before.replace(tzinfo=UTC) for batch in batches(database, send)}
    with reading(database) as session:
        got = {row.id: at[row.batch] for row in send_status.stream_recipients(session, send)}
    day = datetime(2026, 3, 29, tzinfo=UTC)
    # Clocks went forward in Berlin that night; New York had changed before.
    assert [got[person] - day for person in people] == [n * _HOUR for n in (7, 13, 7, 9, 9)]


def test_a_retry_waits_for_each_persons_time_and_so_it_does_after_a_pause(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database, timetable=Timetable(local_time=time(9), per_second=100))
    make_plan(database, send, batch_size=5)
    night, nine = NOW.replace(hour=22), NOW.replace(hour=9) + timedelta(days=1)
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW + _HOUR)
        send_lifecycle.retry(session, send, by=Actor(None, "operator"), now=night, batch_size=5)
    assert batches(database, send)[-1].not_before == nine
    with transaction(database) as session:
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=night)
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=night)
    assert batches(database, send)[-1].not_before == nine
    with transaction(database) as session:
        send_lifecycle.change_pace(
            session, send, Timetable(local_time=time(9)), by=Actor(None, "operator"), now=night
        )
    assert batches(database, send)[-1].not_before == nine


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_a_warm_up_is_shared_by_all_sends(
    database: Engine, five: list[int], *, at_once: bool
) -> None:
    warm_up = WarmUp(begins=NOW.date(), volumes=(3, 4))
    first, second = make_send(database), make_send(database, slug="second")

    def plan_second() -> None:
        with transaction(database) as session:
            plan(session, second, now=NOW, batch_size=2, warm_up=warm_up)

    with ThreadPoolExecutor() as threads:
        with transaction(database) as session:
            plan(session, first, now=NOW, batch_size=2, warm_up=warm_up)
            waits = threads.submit(plan_second) if at_once else None
            if waits is not None:
                # It may not get through to the end before this transaction does.
                with pytest.raises(TimeoutError):
                    waits.result(timeout=0.5)
        waits = waits or threads.submit(plan_second)
        waits.result()
    days: dict[date, int] = {}
    for batch in [*batches(database, first), *batches(database, second)]:
        day = batch.not_before.date()
        days[day] = days.get(day, 0) + batch.size
    assert days == {
        NOW.date(): 3,
        NOW.date() + timedelta(days=1): 4,
        NOW.date() + timedelta(days=2): 3,
    }


def make_test(database: Engine, *, by: Measure = Measure.OPENS, share: float = 0.4) -> int:
    first, other = (
        parse_issue((TEXT % ("tested", "")).replace("Hello", words), name="t.md")
        for words in ("Hello", "Good morning")
    )
    templates = resource("templates/email")
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        options = SendOptions(
            others=[(other, render(other, PUBLICATION, templates=templates))],
            test=ABTest(share=share, by=by, wait=4 * _HOUR),
        )
        made = send_lifecycle.create(
            session,
            first,
            render(first, PUBLICATION, templates=templates),
            ["everybody"],
            by=Actor(None, "operator"),
            at=NOW,
            now=NOW,
            options=options,
            approved_by=COMMAND_LINE,
        )
    return made.id


def test_a_test_gives_the_sample_its_variants_and_the_rest_waits(database: Engine) -> None:
    with transaction(database) as session:
        for n in range(20):
            add_person(session, f"p{n}@example.org")
    send = make_test(database)
    make_plan(database, send, batch_size=3)
    rows = batches(database, send)
    with reading(database) as session:
        variant = table_of(Variant)
        labels = {row.id: row.label for row in session.execute(select(variant))}
    parts = [(b.part, labels[b.variant_id], b.size) for b in rows]
    assert parts[:4] == [
        ("sample", "A", 3),
        ("sample", "A", 1),
        ("sample", "B", 3),
        ("sample", "B", 1),
    ]
    assert {(part, label) for part, label, _ in parts[4:]} == {("rest", "A")}
    assert sum(size for _, _, size in parts[4:]) == 12
    gateway = drain(database, FakeGateway())
    assert len(gateway.mailed) == 8
    assert {request.subject[:4] for request in gateway.requests} == {"Hell", "Good"}
    with transaction(database) as session:
        assert (
            send_lifecycle.choose_winner(session, send, "B", by=Actor(None, "operator"), now=NOW)
            == 12
        )
        with pytest.raises(SendError, match="chosen already"):
            send_lifecycle.choose_winner(session, send, "A", by=Actor(None, "operator"), now=NOW)
    drain(database, gateway)
    assert len(set(gateway.mailed)) == len(gateway.mailed) == 20
    assert {request.subject[:4] for request in gateway.requests[4:]} == {"Good"}


@pytest.mark.slow
def test_the_sample_is_the_same_when_it_is_drawn_again(database: Engine) -> None:
    with transaction(database) as session:
        for n in range(200):
            add_person(session, f"p{n}@example.org")
    drawn = []
    for _ in range(2):
        send = make_test(database)
        make_plan(database, send, batch_size=50)
        with reading(database) as session:
            part = {b.number: (b.part, b.variant_id) for b in batches(database, send)}
            drawn.append(
                {r.id: part[r.batch][0] for r in send_status.stream_recipients(session, send)}
            )
        with transaction(database) as session:
            for table in ("delivery", "batch", "variant", "send", "segment"):
                session.connection().exec_driver_sql(f"DELETE FROM {table}")
    assert drawn[0] == drawn[1]
    sample = [person for person, part in drawn[0].items() if part == "sample"]
    # Scattered over the list, not its first or last people.
    assert min(sample) < 20
    assert max(sample) > 180


def test_a_worker_that_fell_silent_loses_its_batches_at_once(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    make_plan(database, send)
    lease = _HOUR
    with transaction(database) as session:
        heartbeat.beat(session, "alive", now=NOW)
        heartbeat.beat(session, "silent", now=NOW - timedelta(minutes=1))
        claimed = [
            BatchStore(who, lease=lease).claim(session, now=NOW)
            for who in ("alive", "silent", "silent")
        ]
        assert claimed[2] is not None
        assert BatchStore("w", lease=lease).depart(session, claimed[2], [], now=NOW)
    with transaction(database) as session:
        assert recover_abandoned(session, now=NOW) == (1, 1)
    assert [b.state for b in batches(database, send)] == ["claimed", "pending", "uncertain"]


def test_a_send_that_does_not_add_up_says_so(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send)
    batch = table_of(Batch)
    with transaction(database) as session:
        session.execute(batch.delete().where(batch.c.number == 2))
    drain(database, FakeGateway())
    stands = found(database, send)
    assert stands.state == "paused"  # type: ignore[attr-defined]
    assert "2 recipients are in no batch" in stands.reason  # type: ignore[attr-defined]
