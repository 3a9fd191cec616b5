"""A provider that fails: what was under way is in doubt, and one probe at a time finds its end."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import Engine, select, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Outcome, Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.ledger.batches import mark_accepted
from newsletter.sending.models import Batch, ProviderBackoff
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_plan,
    make_send,
    planned,
    send_state,
)

pytestmark = pytest.mark.both_databases

_batch, _hold = table_of(Batch), table_of(ProviderBackoff)
LOST = Unknown("SendGrid answered 503: away")
REFUSED = NotSent("cannot reach SendGrid: refused")
PEOPLE = 90
MINUTE = timedelta(minutes=1)


@pytest.fixture
def many(database: Engine) -> list[int]:
    """More people than a few."""
    with transaction(database) as session:
        return [add_person(session, f"p{n}@example.org") for n in range(PEOPLE)]


@pytest.fixture
def now() -> Iterator[Callable[[float], None]]:
    """The clock, which goes on when it is told by how many seconds."""
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        yield clock.shift


def row(database: Engine) -> Any:
    with reading(database) as session:
        return session.execute(select(_hold)).one_or_none()


def uncertain(database: Engine, send: int) -> list[Any]:
    return [batch for batch in batches(database, send) if batch.state == "uncertain"]


def until_the_next_probe(database: Engine) -> float:
    """Seconds, and a little more."""
    left: timedelta = row(database).until - datetime.now(UTC)
    return left.total_seconds() + 0.001


class Outage(FakeGateway):
    """Answers like this until it is over."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome: Outcome | None = outcome

    def send(self, request: MailRequest) -> Outcome:
        answer = super().send(request)
        return answer if self.outcome is None else self.outcome


@pytest.mark.parametrize("outcome", [LOST, REFUSED])
def test_the_first_failure_stops_every_worker_and_every_send(
    database: Engine, many: list[int], outcome: Outcome
) -> None:
    send = planned(database, size=10)
    gateway, other = FakeGateway(outcome), FakeGateway()
    drain(database, gateway)
    drain(database, other)
    assert (len(gateway.requests), len(other.requests)) == (1, 0)
    assert len(uncertain(database, send)) == (outcome is LOST)
    assert row(database).failures == 1


def test_a_batch_in_hand_stays_here_with_its_time(database: Engine, many: list[int]) -> None:
    send = planned(database, size=10)
    before = {batch.number: batch.not_before for batch in batches(database, send)}
    gateway = FakeGateway()
    holds_the_next = dispatcher(database, gateway)
    assert holds_the_next.send_next(more=lambda: True)
    drain(database, FakeGateway(LOST))
    assert holds_the_next.send_next()  # it was in hand, and is given back
    assert not holds_the_next.send_next()
    assert len(gateway.requests) == 1
    after = {batch.number: batch for batch in batches(database, send)}
    assert Counter(batch.state for batch in after.values()) == {
        "pending": 7, "accepted": 1, "uncertain": 1,
    }  # fmt: skip
    assert {number: batch.not_before for number, batch in after.items()} == before


@contextmanager
def crew(database: Engine, gateway: FakeGateway, hands: int) -> Iterator[None]:
    """Threads that work like those of a process, until the end of the block."""
    over = threading.Event()

    def work() -> None:
        worker = dispatcher(database, gateway)
        while not over.is_set():
            if not worker.send_next(more=lambda: not over.is_set()):
                over.wait(0.02)
        worker.release()

    threads = [threading.Thread(target=work) for _ in range(hands)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait_for(done: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not done():
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.01)


class AllAtOnce(FakeGateway):
    """Answers nobody before so many requests are under way."""

    def __init__(self, hands: int) -> None:
        super().__init__()
        self.together = threading.Barrier(hands)

    def send(self, request: MailRequest) -> Outcome:
        super().send(request)
        self.together.wait(timeout=30)
        return LOST


def test_what_was_under_way_is_all_that_is_in_doubt(database: Engine, many: list[int]) -> None:
    send, hands = planned(database, size=5), 4
    gateway = AllAtOnce(hands)
    with crew(database, gateway, hands):
        wait_for(lambda: len(uncertain(database, send)) == hands)
        assert row(database).failures == 1
    assert len(gateway.requests) == len(uncertain(database, send)) == hands
    # What was under way when sending stopped makes no wait longer.
    assert row(database).until - datetime.now(UTC) < timedelta(seconds=2)


class Slow(FakeGateway):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.lock = threading.Lock()

    def send(self, request: MailRequest) -> Outcome:
        with self.lock:
            answer = super().send(request)
        self.let.wait(timeout=30)
        return answer


def test_of_all_workers_one_sends_a_probe_of_a_few_people(
    database: Engine, many: list[int]
) -> None:
    send, gateway = planned(database, size=30), Slow()
    drain(database, FakeGateway(LOST))
    with transaction(database) as session:
        session.execute(update(_hold).values(until=datetime.now(UTC)))
    with crew(database, gateway, 5):
        wait_for(lambda: gateway.requests)
        time.sleep(0.3)
        (probe,) = gateway.requests
        gateway.let.set()
        wait_for(lambda: not not_in_doubt(database, send))
    assert len(probe.recipients) == provider_backoff.PROBE_SIZE
    assert row(database).failures == 0
    mailed = Counter(gateway.mailed)
    assert len(mailed) == PEOPLE - 30
    assert set(mailed.values()) == {1}


def not_in_doubt(database: Engine, send: int) -> int:
    return sum(batch.state in {"pending", "claimed", "in_flight"}
               for batch in batches(database, send))  # fmt: skip


def test_a_small_probe_then_a_batch_as_planned_and_then_everybody(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    send, gateway = planned(database, size=30), FakeGateway(LOST)
    due = {batch.not_before for batch in batches(database, send)}
    drain(database, gateway)
    now(until_the_next_probe(database))
    one, other = dispatcher(database, gateway), dispatcher(database, gateway)
    assert one.send_next()
    assert row(database).failures == 1
    assert other.send_next()
    assert row(database).failures == 0
    drain(database, gateway)
    assert [len(request.recipients) for request in gateway.requests] == [30, 10, 20, 30]
    found = batches(database, send)
    assert [batch.size for batch in found] == [30, 20, 30, 10]
    assert {batch.not_before for batch in found} == due
    assert sum(batch.size for batch in found) == PEOPLE
    with transaction(database) as session:
        mark_accepted(session, [(send, 1)], now=NOW, detail="an event")
    assert send_state(database, send) == "sent"
    assert set(Counter(gateway.mailed).values()) == {1}
    with reading(database) as session:
        assert send_status.get_status(session, send).adds_up


@pytest.mark.parametrize("outcome", [LOST, REFUSED])
def test_each_failed_probe_makes_the_wait_longer_up_to_five_minutes(
    database: Engine,
    many: list[int],
    now: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
) -> None:
    monkeypatch.setattr(provider_backoff, "PROBE_SIZE", 3)
    send, gateway = planned(database, size=45), Outage(outcome)
    for number in range(12):
        drain(database, gateway)
        assert len(gateway.requests) == number + 1
        wait, longest = until_the_next_probe(database), min(2 * 2**number, 300)
        assert longest / 2 <= wait <= longest + 0.01
        now(wait / 2)
        drain(database, gateway)  # too early
        assert len(gateway.requests) == number + 1
        now(until_the_next_probe(database))
    assert [len(request.recipients) for request in gateway.requests] == [45, *[3] * 11]
    gateway.outcome = None
    drain(database, gateway)
    assert row(database).failures == 0
    in_doubt = uncertain(database, send)
    assert sum(batch.size for batch in in_doubt) == (45 + 11 * 3 if outcome is LOST else 0)
    with transaction(database) as session:
        mark_accepted(session, [(send, b.number) for b in in_doubt], now=NOW, detail="an event")
    assert send_state(database, send) == "sent"
    assert len(set(gateway.mailed)) == PEOPLE
    if outcome is LOST:
        assert len(gateway.mailed) == PEOPLE


class Chokes(FakeGateway):
    """Takes small requests, and loses the answer to every larger one."""

    def send(self, request: MailRequest) -> Outcome:
        answer = super().send(request)
        return LOST if len(request.recipients) > provider_backoff.PROBE_SIZE else answer


def test_a_provider_that_chokes_on_large_requests_puts_few_in_doubt(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    send, gateway = planned(database, size=30), Chokes()
    whole = []
    for _ in range(2):
        drain(database, gateway)
        whole.append(len(uncertain(database, send)))
        now(until_the_next_probe(database))
    # Each time one small probe, and one batch alone: never all of them at once.
    assert whole == [1, 2]
    assert row(database).failures == 2


def test_a_send_pauses_itself_when_it_lasts_and_a_resume_begins_with_a_probe(
    database: Engine,
    many: list[int],
    now: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_backoff, "PROBE_SIZE", 2)
    send, gateway = planned(database, size=30), Outage(LOST)
    for _ in range(30):
        drain(database, gateway)
        now(until_the_next_probe(database))
    assert send_state(database, send) == "paused"
    with reading(database) as session:
        reason = send_status.find(session, send).reason
    assert "minutes: SendGrid answered 503: away" in reason
    lost = len(gateway.requests)
    assert lost < 30
    gateway.outcome = None
    now(3600)
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    drain(database, gateway)
    assert len(gateway.requests[lost].recipients) <= provider_backoff.PROBE_SIZE
    assert not not_in_doubt(database, send)


@pytest.mark.slow
def test_a_paced_send_keeps_its_pace_after_an_outage(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    send = make_send(database, at=datetime.now(UTC), timetable=Timetable(per_second=1))
    make_plan(database, send, batch_size=30, now=datetime.now(UTC))
    gateway, left = Outage(LOST), list[datetime]()
    gateway.during = lambda: left.append(datetime.now(UTC))
    for second in range(400):
        if second == 200:
            gateway.outcome = None
        drain(database, gateway)
        now(1)
    assert not not_in_doubt(database, send)
    assert set(Counter(gateway.mailed).values()) == {1}
    assert len(gateway.mailed) == PEOPLE
    people = [len(request.recipients) for request in gateway.requests]
    for moment in left:
        within = [n for at, n in zip(left, people, strict=True) if moment <= at < moment + MINUTE]
        assert sum(within) <= 60 + max(people)


def test_trouble_of_yesterday_does_not_count_as_lasting_till_today(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    with transaction(database) as session:
        provider_backoff.fail(
            session, now=datetime.now(UTC), reason="x", wait=lambda _: timedelta(0)
        )
    now(86_400)
    send = make_send(database, at=datetime.now(UTC))
    make_plan(database, send, batch_size=30, now=datetime.now(UTC))
    drain(database, Outage(LOST))
    assert send_state(database, send) == "sending"
    found = row(database)
    assert (found.since, found.failures) == (datetime.now(UTC), 2)
    assert [batch.size for batch in uncertain(database, send)] == [provider_backoff.PROBE_SIZE]


def test_a_probe_that_died_makes_room_for_another(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    send, gateway = planned(database, size=30), FakeGateway(LOST)
    drain(database, gateway)
    for departed in (False, True):
        now(until_the_next_probe(database))
        moment = datetime.now(UTC)
        with transaction(database) as session:
            dead = BatchStore("dead", lease=timedelta(minutes=1)).claim(session, now=moment)
            assert dead is not None
            if departed:
                assert BatchStore("w", lease=timedelta(minutes=1)).depart(
                    session, dead, [], now=moment
                )
        drain(database, gateway)
        assert len(gateway.requests) == 1  # it may be at work
        with transaction(database) as session:
            swept = uncertain_batches.recover(
                session, now=moment, grace=timedelta(hours=1), policy="hold"
            )
        assert (swept.requeued, swept.uncertain) == ((0, 1) if departed else (1, 0))
    drain(database, gateway)
    assert row(database).failures == 0
    assert not not_in_doubt(database, send)
    assert set(Counter(gateway.mailed).values()) == {1}


@pytest.mark.parametrize(
    "given_back", ["its send is paused", "its worker ends", "nobody may be mailed"]
)
def test_a_probe_that_never_left_makes_room_for_another(
    database: Engine, many: list[int], now: Callable[[float], None], given_back: str
) -> None:
    send = planned(database, size=30)
    drain(database, FakeGateway(LOST))
    now(until_the_next_probe(database))
    moment = datetime.now(UTC)
    with transaction(database) as session:
        worker, other = (BatchStore(name, lease=timedelta(minutes=1)) for name in ("w", "v"))
        claimed = worker.claim(session, now=moment)
        assert claimed is not None
        assert other.claim(session, now=moment) is None
        match given_back:
            case "its send is paused":
                by = Actor(None, "operator")
                send_lifecycle.pause(session, send, by=by, reason="", now=moment)
                assert not worker.depart(session, claimed, [], now=moment)
                send_lifecycle.resume(session, send, by=by, now=moment)
            case "its worker ends":
                worker.release(session, claimed, now=moment)
            case _:
                worker.skip(session, claimed, [], now=moment)
        assert other.claim(session, now=moment) is not None


@pytest.mark.parametrize(
    "answer", [NotSent("429", timedelta(seconds=40)), Refused(400, "bad", recipient=0)]
)
def test_only_a_probe_that_was_taken_ends_the_trouble(
    database: Engine, many: list[int], now: Callable[[float], None], answer: Outcome
) -> None:
    send, gateway = planned(database, size=30), FakeGateway(LOST, answer)
    drain(database, gateway)
    now(until_the_next_probe(database))
    worker = dispatcher(database, gateway)
    assert worker.send_next()
    assert row(database).failures == 1
    if isinstance(answer, NotSent):
        assert not worker.send_next()
        now(40)
    assert worker.send_next()
    assert len(gateway.requests[2].recipients) <= provider_backoff.PROBE_SIZE
    drain(database, gateway)
    assert not not_in_doubt(database, send)


def test_a_batch_that_may_have_been_taken_is_not_cut_in_two(
    database: Engine, many: list[int], now: Callable[[float], None]
) -> None:
    """Evidence of its first copy names its number: whoever was cut off would get a second."""
    send, gateway = planned(database, size=45), FakeGateway(LOST)
    drain(database, gateway)
    with transaction(database) as session:
        uncertain_batches.resolve(
            session, send, 1, by=Actor(None, "operator"), sent=False, now=datetime.now(UTC)
        )
    now(until_the_next_probe(database))
    drain(database, gateway)
    sizes = [len(request.recipients) for request in gateway.requests]
    assert sizes == [45, 10, 35, 45]
    assert {batch.number: batch.size for batch in batches(database, send)} == {1: 45, 2: 35, 3: 10}


def test_a_late_probe_changes_nothing(database: Engine, many: list[int]) -> None:
    planned(database, size=30)
    moment = datetime.now(UTC)
    with transaction(database) as session:
        provider_backoff.fail(session, now=moment, reason="x", wait=lambda _: timedelta(0))
        late = provider_backoff.due_probe(session, now=moment)
        assert late is not None
        named = {"send_id": 1, "batch": 1, "now": moment}
        assert provider_backoff.start_probe(session, late, attempt=1, **named)
        assert not provider_backoff.start_probe(session, late, attempt=1, **named)
        latest = provider_backoff.due_probe(session, now=moment)
        assert latest is not None
        assert provider_backoff.start_probe(session, latest, attempt=2, **named)
        provider_backoff.record_success(session, late)
        assert not session.execute(select(_hold.c.passed)).scalar_one()
        # Nor does its failure make the wait longer.
        provider_backoff.fail(
            session, now=moment, reason="x", wait=lambda n: timedelta(n), probe=late
        )
        assert session.execute(select(_hold.c.failures)).scalar_one() == 1


def test_an_answer_to_what_left_before_does_not_end_the_trouble(
    database: Engine, many: list[int]
) -> None:
    planned(database, size=30)
    gateway = FakeGateway(Accepted("slow"))
    gateway.during = lambda: drain(database, FakeGateway(LOST)) and None
    dispatcher(database, gateway).send_next()
    assert row(database).failures == 1
