"""A backup that knows nothing of a send is put back: nobody gets its issue twice or misses it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text, update

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import NothingToDoError, SendError
from newsletter.issues.models import Issue
from newsletter.provider.events import made_mark
from newsletter.provider.gateway import Accepted, NotSent, Unknown
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.ledger.forgotten_sends import HAD_BEFORE, MAY_HAVE_HAD
from newsletter.sending.ledger.restore_gate import NotComparedError
from newsletter.sending.models import DepartureLog
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import known_logs
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.sending.states import LogState
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.scheduling.conftest import approve, make_schedule, rows, tick
from tests.newsletter.sending.conftest import (
    FakeGateway,
    dispatcher,
    drain,
    make_plan,
    make_send,
    send_state,
    states,
)
from tests.newsletter.tracking.events.test_ingest import entry, take
from tests.restoring import Backup

pytestmark = pytest.mark.both_databases

ADA = Actor(None, "Ada")
ALL = [f"p{n}@example.org" for n in range(1, 6)]


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[DepartureLogFile]:
    made = DepartureLogFile(tmp_path / "departures")
    yield made
    made.close()


def look(
    database: Engine, log_file: DepartureLogFile | None, *, now: datetime | None = None
) -> None:
    """What a process does before it sends."""
    known_logs.compare_logs(database, log_file, now=now or datetime.now(UTC))


def log_states(database: Engine) -> list[str]:
    with reading(database) as session:
        return sorted(session.scalars(select(table_of(DepartureLog).c.state)))


@pytest.fixture
def known(database: Engine, five: list[int], log_file: DepartureLogFile) -> list[int]:
    """Five people, and a log that the database has compared."""
    look(database, log_file)
    return five


def sent(
    database: Engine, log_file: DepartureLogFile, *outcomes: object, size: int = 2, **more: str
) -> FakeGateway:
    """A send to everybody goes out, in batches of this size."""
    send = make_send(database, **more)
    make_plan(database, send, batch_size=size)
    return drain(database, FakeGateway(*outcomes), log_file)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["first", "renamed"])
def test_an_issue_that_left_after_the_backup_goes_to_nobody_twice(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path, again: str
) -> None:
    kept = Backup(database, tmp_path)
    gateway = sent(database, log_file)
    kept.put_back()
    look(database, log_file)
    with pytest.raises(NothingToDoError, match="nobody would get") as caught:
        make_send(database, slug=again)
    assert f"5 {HAD_BEFORE}" in str(caught.value.hint)
    assert sorted(gateway.mailed) == ALL


def test_whoever_was_in_no_request_gets_it_and_nobody_else(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    make_plan(database, make_send(database))
    dispatcher(database, gateway, log_file).send_next()
    kept.put_back()
    look(database, log_file)
    send = make_send(database)
    assert make_plan(database, send) == 3
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL
    with reading(database) as session:
        assert send_status.find(session, send).excluded_counts == {HAD_BEFORE: 2}
        assert send_status.get_status(session, send).adds_up


def test_numbers_that_others_have_by_now_tell_nothing(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    with transaction(database) as session:
        before = add_person(session, "new@example.org")
    gateway = sent(database, log_file)
    assert "new@example.org" in gateway.mailed
    kept.put_back()
    with transaction(database) as session:
        # The number that the one who signed up then had.
        assert add_person(session, "other@example.org") == before
        add_person(session, "new@example.org")
    look(database, log_file)
    make_plan(database, make_send(database))
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == sorted([*ALL, "new@example.org", "other@example.org"])


def test_a_known_send_that_was_planned_after_the_backup_knows_people_by_their_address(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    send = make_send(database)
    kept = Backup(database, tmp_path)
    with transaction(database) as session:
        before = add_person(session, "new@example.org")
    gateway = FakeGateway()
    make_plan(database, send)
    drain(database, gateway, log_file)
    kept.put_back()
    with transaction(database) as session:
        assert add_person(session, "other@example.org") == before
    look(database, log_file)
    make_plan(database, send)
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == sorted([*ALL, "new@example.org", "other@example.org"])
    with transaction(database) as session:
        add_person(session, "new@example.org")
    with pytest.raises(NothingToDoError):
        make_send(database)


def test_what_was_surely_not_taken_is_sent(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    make_plan(database, make_send(database))
    gateway = FakeGateway(NotSent("refused"))
    dispatcher(database, gateway, log_file).send_next()
    kept.put_back()
    look(database, log_file)
    gateway.requests.clear()
    make_plan(database, make_send(database))
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL


def unanswered_before(database: Engine, log_file: DepartureLogFile, tmp_path: Path) -> FakeGateway:
    """One batch was taken, the answer to the next never came, and the database forgot it all."""
    kept = Backup(database, tmp_path)
    gateway = FakeGateway(Accepted("one"), Unknown("lost"))
    make_plan(database, make_send(database))
    worker = dispatcher(database, gateway, log_file)
    worker.send_next()
    worker.send_next()
    kept.put_back()
    look(database, log_file)
    return gateway


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_request_without_an_answer_is_in_doubt_until_the_operator_says(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path, was_sent: bool
) -> None:
    gateway = unanswered_before(database, log_file, tmp_path)
    send = make_send(database)
    assert make_plan(database, send) == 1
    drain(database, gateway, log_file)
    with reading(database) as session:
        assert send_status.find(session, send).excluded_counts == {HAD_BEFORE: 2, MAY_HAVE_HAD: 2}
        (one,) = forgotten_sends.unanswered(session)
    assert (one.slug, one.batch, one.people) == ("first", 2, 2)
    with transaction(database) as session:
        forgotten_sends.resolve(session, "first", 2, sent=was_sent, by=ADA, now=NOW)
        assert forgotten_sends.unanswered(session) == []
        assert audit.entries(session)[0].subject == "first"
    with pytest.raises(SendError, match="not uncertain"), transaction(database) as session:
        forgotten_sends.resolve(session, "first", 2, sent=was_sent, by=ADA, now=NOW)
    if was_sent:
        with pytest.raises(NothingToDoError):
            make_send(database)
    else:
        assert make_plan(database, make_send(database)) == 2


@pytest.mark.parametrize("word", ["cancelled", "paused"])
def test_a_send_that_was_stopped_does_not_come_back_to_life(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path, word: str
) -> None:
    send = make_send(database)
    make_plan(database, send)
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    log_file.follow(database)
    with transaction(database) as session:
        if word == "paused":
            send_lifecycle.pause(
                session, send, by=Actor(None, "operator"), reason="wait", now=datetime.now(UTC)
            )
        else:
            send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    log_file.unfollow()
    kept.put_back()
    look(database, log_file)
    drain(database, gateway, log_file)
    assert len(gateway.mailed) == 2
    with reading(database) as session:
        found = send_status.find(session, send)
        assert (found.state, f"it was {word} at" in found.reason) == ("paused", True)
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
        session.execute(update(table_of(DepartureLog)).values(read={}))
    look(database, log_file)  # what was answered once is not asked again
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL


def test_a_send_that_went_on_goes_on_after_a_restore(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """Also where the word to pause stands in the log of one machine, and to go on in no log yet."""
    send = make_send(database)
    make_plan(database, send)
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    now = datetime.now(UTC)
    log_file.follow(database)
    with transaction(database) as session:
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=now)
    log_file.unfollow()
    with transaction(database) as session:  # by another machine, whose clock is late
        send_lifecycle.resume(
            session, send, by=Actor(None, "operator"), now=now - timedelta(seconds=5)
        )
    look(database, log_file)
    assert send_state(database, send) == "sending"
    log_file.follow(database)
    with transaction(database) as session:
        send_lifecycle.pause(
            session, send, by=Actor(None, "operator"), reason="wait", now=datetime.now(UTC)
        )
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    log_file.unfollow()
    kept.put_back()
    look(database, log_file)
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL


def test_one_word_settles_one_request_of_several_forgotten_sends(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """Two restores, before each of which batch 1 of the same issue had left without an answer."""
    kept = Backup(database, tmp_path)
    gateway = FakeGateway(Unknown("lost"), Unknown("lost"))
    for minute in range(2):
        make_plan(database, make_send(database, now=NOW + timedelta(minutes=minute)))
        dispatcher(database, gateway, log_file).send_next()
        kept.put_back()
        look(database, log_file)
    with reading(database) as session:
        one, other = forgotten_sends.unanswered(session)
    assert (one.batch, other.batch) == (1, 1)
    with (
        pytest.raises(SendError, match="choose one with") as caught,
        transaction(database) as session,
    ):
        forgotten_sends.resolve(session, "first", 1, sent=False, by=ADA, now=NOW)
    for of in (one, other):
        assert f"send {of.send}, made {of.made}" in str(caught.value.hint)
    with pytest.raises(SendError, match="not uncertain"), transaction(database) as session:
        forgotten_sends.resolve(session, "first", 1, send=9, sent=False, by=ADA, now=NOW)
    with transaction(database) as session:
        people = forgotten_sends.resolve(
            session, "first", 1, send=one.send, sent=False, by=ADA, now=NOW
        )
        assert people == one.people
        assert forgotten_sends.unanswered(session) == [other]
    with transaction(database) as session:
        forgotten_sends.resolve(session, "first", 1, sent=True, by=ADA, now=NOW)
    drain(database, gateway, log_file)
    send = make_send(database)
    make_plan(database, send)
    with reading(database) as session:
        assert send_status.find(session, send).excluded_counts == {HAD_BEFORE: other.people}


def test_an_event_proves_a_request_that_the_database_has_forgotten(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    gateway = unanswered_before(database, log_file, tmp_path)
    carried = gateway.requests[1].custom_args
    assert carried["nl_made"] == str(made_mark(NOW))
    wrong = carried | {"nl_made": str(made_mark(NOW) + 1)}
    take(database, entry(int(carried["nl_send"]), known[2], "open", **wrong))
    with reading(database) as session:
        assert len(forgotten_sends.unanswered(session)) == 1
    take(database, entry(int(carried["nl_send"]), known[2], "delivered", **carried))
    with reading(database) as session:
        assert forgotten_sends.unanswered(session) == []


@pytest.mark.slow
def test_a_send_that_waits_loses_those_whom_a_forgotten_one_reached(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """Planned in the backup; cancelled after it; another send took its people over."""
    first = make_send(database)
    make_plan(database, first)
    kept = Backup(database, tmp_path)
    with transaction(database) as session:
        send_lifecycle.cancel(session, first, by=Actor(None, "operator"), now=datetime.now(UTC))
    gateway = sent(database, log_file)
    assert sorted(gateway.mailed) == ALL
    kept.put_back()
    look(database, log_file)
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL
    assert set(states(database, first).values()) == {("skipped", HAD_BEFORE)}
    assert send_state(database, first) == "sent"
    with pytest.raises(NothingToDoError), transaction(database) as session:
        send_lifecycle.retry(
            session, first, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=5
        )


def test_a_backup_that_is_put_back_again_and_again_sends_nothing_twice(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    for _ in range(3):
        make_plan(database, make_send(database))
        dispatcher(database, gateway, log_file).send_next()
        kept.put_back()
        look(database, log_file)
    assert sorted(gateway.mailed) == ALL
    with pytest.raises(NothingToDoError):
        make_send(database)


# Schedules


def due(day: int) -> datetime:
    return datetime(2026, 4, day, 7, 0, 1, tzinfo=UTC)


def fire(database: Engine, log_file: DepartureLogFile, day: int, gateway: FakeGateway) -> None:
    """The clock of that day: schedules fire, what is due goes out."""
    tick(database, due(day))
    with reading(database) as session:
        ready = send_lifecycle.due(session, now=due(day))
    for send, _ in ready:
        make_plan(database, send, now=due(day))
    drain(database, gateway, log_file)


@pytest.fixture
def weekly(database: Engine, known: list[int]) -> int:
    """A schedule of each day with three issues that wait."""
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
    number = make_schedule(database, now=datetime(2026, 4, 1, tzinfo=UTC))
    for n, slug in enumerate(("a", "b", "c")):
        approve(database, slug, now=NOW + timedelta(minutes=n))
    return number


def subjects(gateway: FakeGateway) -> list[str]:
    return [request.subject for request in gateway.requests for _ in request.recipients]


def test_a_schedule_does_not_send_once_more_what_it_has_forgotten(
    database: Engine, weekly: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    fire(database, log_file, 1, gateway)
    assert subjects(gateway) == ["Number a"] * 5
    kept.put_back()
    look(database, log_file)
    fire(database, log_file, 1, gateway)
    assert subjects(gateway) == ["Number a"] * 5
    ((_, outcome, reason, _),) = rows(database, weekly)
    assert (outcome, "before the database was restored" in reason) == ("nothing", True)
    # The next day has its own issue, as it would have had.
    fire(database, log_file, 2, gateway)
    assert subjects(gateway) == ["Number a"] * 5 + ["Number b"] * 5


@pytest.mark.slow
def test_days_that_passed_before_the_restore_cost_no_issue_its_day(
    database: Engine, weekly: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    fire(database, log_file, 1, gateway)
    fire(database, log_file, 2, gateway)
    kept.put_back()
    look(database, log_file)
    # The second day comes once more, as the last of two.
    fire(database, log_file, 2, gateway)
    fire(database, log_file, 3, gateway)
    assert subjects(gateway) == [f"Number {slug}" for slug in "abc" for _ in range(5)]


def test_an_issue_of_which_a_part_had_left_goes_to_the_rest_on_its_day(
    database: Engine, weekly: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    tick(database, due(1))
    with reading(database) as session:
        ((send, _),) = send_lifecycle.due(session, now=due(1))
    make_plan(database, send, now=due(1))
    dispatcher(database, gateway, log_file).send_next()
    kept.put_back()
    look(database, log_file)
    fire(database, log_file, 1, gateway)
    assert sorted(gateway.mailed) == ALL
    fire(database, log_file, 2, gateway)
    assert subjects(gateway) == ["Number a"] * 5 + ["Number b"] * 5


def test_a_day_that_was_used_is_not_given_to_another_issue(
    database: Engine, weekly: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """The issue that went out was approved after the backup."""
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    with transaction(database) as session:
        session.execute(update(table_of(Issue)).values(state="draft"))
    approve(database, "later")
    fire(database, log_file, 1, gateway)
    assert set(subjects(gateway)) == {"Number later"}
    kept.put_back()
    look(database, log_file)
    fire(database, log_file, 1, gateway)
    assert set(subjects(gateway)) == {"Number later"}
    fire(database, log_file, 2, gateway)
    assert subjects(gateway)[5:] == ["Number a"] * 5


# Logs that everything waits for


def waits(database: Engine, state: LogState) -> None:
    """Nothing is made, planned, retried or claimed, and a log is in this state."""
    assert state in log_states(database)
    with pytest.raises(NotComparedError):
        make_send(database, slug="waiting")
    gateway = FakeGateway()
    assert not dispatcher(database, gateway).send_next()
    assert gateway.requests == []


def the_log(database: Engine, state: LogState) -> str:
    with reading(database) as session:
        log = table_of(DepartureLog)
        return str(session.execute(select(log.c.id).where(log.c.state == state)).scalar_one())


def say(database: Engine, state: LogState, *, compare: bool = False) -> None:
    """The operator's word on the log in this state."""
    act = known_logs.compare_again if compare else known_logs.set_aside
    with transaction(database) as session:
        act(session, the_log(database, state), reason="I know it", by=ADA, now=NOW)
        assert audit.entries(session)[0].detail["was"] == state


@pytest.fixture
def planned_send(database: Engine, known: list[int]) -> int:
    send = make_send(database)
    make_plan(database, send)
    return send


def test_a_log_that_is_damaged_stops_everything_until_the_operator_says(
    database: Engine, planned_send: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    worker = dispatcher(database, gateway, log_file)
    worker.send_next()
    worker.send_next()
    (file,) = log_file.folder.glob("*.jsonl")
    whole = file.read_bytes()
    # One digit of the first departure, as a failing disk has it.
    file.write_bytes(whole.replace(b'"attempt":1', b'"attempt":7', 1))
    kept.put_back()
    look(database, log_file)
    waits(database, LogState.UNREADABLE)
    # What could be read was compared all the same, and stays so while the file is mended.
    look(database, log_file)
    waits(database, LogState.UNREADABLE)
    file.write_bytes(whole)
    say(database, LogState.UNREADABLE, compare=True)
    look(database, log_file)
    assert log_states(database) == ["current"]
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL


def test_a_log_that_was_cut_short_stops_everything(
    database: Engine, planned_send: int, log_file: DepartureLogFile
) -> None:
    drain(database, FakeGateway(), log_file)
    look(database, log_file)
    (file,) = log_file.folder.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:40])
    look(database, log_file)
    waits(database, LogState.UNREADABLE)
    say(database, LogState.UNREADABLE)
    look(database, log_file)
    assert sorted(log_states(database)) == ["current", "set aside"]
    assert list(log_file.folder.glob("aside-*/*.jsonl"))
    make_send(database, slug="second")


def test_the_last_line_may_be_torn(
    database: Engine, planned_send: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    (file,) = log_file.folder.glob("*.jsonl")
    whole = file.read_bytes()
    for cut in (1, 2, 40, len(whole) // 3):
        # A power cut while the next departure was written: it had not left.
        file.write_bytes(whole + whole[: len(whole) // 2][:-cut])
        kept.put_back()
        look(database, log_file)
        assert log_states(database) == ["current"]
        with reading(database) as session:
            assert send_status.recipients_by_batch_state(session, planned_send) == {
                "accepted": 2,
                "pending": 3,
            }


def test_a_log_of_another_database_stops_everything_until_the_operator_says(
    database: Engine, known: list[int], log_file: DepartureLogFile
) -> None:
    log_file.write_identity("another", 7)
    with transaction(database) as session:
        session.execute(text("DELETE FROM departure_log"))
    look(database, log_file)
    waits(database, LogState.FOREIGN)
    look(database, log_file)
    waits(database, LogState.FOREIGN)
    say(database, LogState.FOREIGN)
    look(database, log_file)
    assert sorted(log_states(database)) == ["current", "set aside"]


def test_a_log_of_the_databases_own_past_is_compared_by_the_operators_word(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """The backup is from before the database was given its name."""
    log_file.write_identity("", 0)
    with transaction(database) as session:
        session.execute(text("DELETE FROM departure_log"))
        session.execute(text("DELETE FROM identity"))
    kept = Backup(database, tmp_path)
    look(database, log_file)
    sent(database, log_file)
    kept.put_back()
    look(database, log_file)
    waits(database, LogState.FOREIGN)
    say(database, LogState.FOREIGN, compare=True)
    look(database, log_file)
    assert log_states(database) == ["current"]
    with pytest.raises(NothingToDoError):
        make_send(database)


def test_a_log_that_does_not_keep_enough_stops_everything(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    with transaction(database) as session:
        old = datetime.now(UTC) - timedelta(days=40)
        session.execute(update(table_of(DepartureLog)).values(seen_at=old))
    kept = Backup(database, tmp_path)
    look(database, log_file)
    assert log_states(database) == ["current"]  # it was not restored, only idle
    kept.put_back()
    look(database, log_file)
    waits(database, LogState.SHORT)
    look(database, log_file)
    waits(database, LogState.SHORT)


def test_what_an_older_version_wrote_of_an_unknown_send_stops_everything(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    (file,) = log_file.folder.glob("*.jsonl")
    file.write_text(
        '{"send":7,"made":"2026-03-27T07:00:00+00:00","batch":1,"attempt":1,'
        '"at":"2026-03-27T07:00:01+00:00","what":"left","variant":7,"people":[1,2],"skip":[]}\n'
    )
    look(database, log_file)
    waits(database, LogState.UNNAMED)


def test_a_retry_and_a_plan_wait_too(
    database: Engine, known: list[int], log_file: DepartureLogFile
) -> None:
    waiting = make_send(database)
    first = make_send(database, slug="second")
    make_plan(database, first)
    with transaction(database) as session:
        send_lifecycle.cancel(session, first, by=Actor(None, "operator"), now=datetime.now(UTC))
        session.execute(update(table_of(DepartureLog)).values(state=LogState.WAITING))
    with pytest.raises(NotComparedError):
        make_plan(database, waiting)
    with pytest.raises(NotComparedError), transaction(database) as session:
        send_lifecycle.retry(
            session, first, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=5
        )
    look(database, log_file)
    assert make_plan(database, waiting) == 5


def test_on_one_machine_a_log_that_is_gone_stops_everything(
    database: Engine, planned_send: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("on PostgreSQL it may be on another machine")
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    kept.put_back()
    other = DepartureLogFile(tmp_path / "other")
    look(database, other)
    assert set(log_states(database)) == {"current"}  # it is found where it was
    with reading(database) as session:
        assert send_status.recipients_by_batch_state(session, planned_send) == {
            "accepted": 2,
            "pending": 3,
        }
    kept.put_back()
    hidden = tmp_path / "hidden"
    log_file.folder.rename(hidden)
    third = DepartureLogFile(tmp_path / "third")
    for journal_now in (third, None):
        look(database, journal_now)
        waits(database, LogState.MISSING)
    hidden.rename(log_file.folder)
    look(database, third)
    assert set(log_states(database)) == {"current"}
    drain(database, gateway, third)
    assert sorted(gateway.mailed) == ALL
    other.close()
    third.close()


def test_every_machine_compares_before_anything_leaves(
    database: Engine, planned_send: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """Two machines; the one that starts first knows of nothing."""
    if database.dialect.name != "postgresql":
        pytest.skip("SQLite is on one machine")
    idle = DepartureLogFile(tmp_path / "idle")
    look(database, idle)
    kept = Backup(database, tmp_path)
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    kept.put_back()
    away = tmp_path / "away"
    log_file.folder.rename(away)  # another machine's disk
    for one in (idle, None):
        look(database, one)
        waits(database, LogState.WAITING)
    new = DepartureLogFile(tmp_path / "new")
    look(database, new)
    waits(database, LogState.WAITING)
    away.rename(log_file.folder)
    look(database, log_file)
    assert set(log_states(database)) == {"current"}
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == ALL
    idle.close()
    new.close()


def test_a_machine_that_is_gone_is_let_go_by_the_operator(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    if database.dialect.name != "postgresql":
        pytest.skip("SQLite is on one machine")
    lost = DepartureLogFile(tmp_path / "lost")
    look(database, lost)
    kept = Backup(database, tmp_path)
    kept.put_back()
    lost.folder.rename(tmp_path / "gone")
    look(database, log_file)
    waits(database, LogState.WAITING)
    with pytest.raises(SendError, match="a reason"), transaction(database) as session:
        known_logs.set_aside(session, lost.id, reason=" ", by=ADA, now=NOW)
    say(database, LogState.WAITING)
    make_send(database)
    with (
        pytest.raises(SendError, match="does not wait for this"),
        transaction(database) as session,
    ):
        known_logs.set_aside(session, lost.id, reason="x", by=ADA, now=NOW)
    lost.close()


def test_a_restore_shows_by_a_log_that_was_compared_more_often(
    database: Engine, known: list[int], log_file: DepartureLogFile, tmp_path: Path
) -> None:
    """As when the disk of a PostgreSQL server is set back, where nothing else changes."""
    if database.dialect.name != "postgresql":
        pytest.skip("SQLite is on one machine")
    lost = DepartureLogFile(tmp_path / "lost")
    look(database, lost)
    lost.folder.rename(tmp_path / "gone")
    look(database, log_file)
    assert set(log_states(database)) == {"current"}
    with transaction(database) as session:
        mine = table_of(DepartureLog).c.id == log_file.id
        session.execute(update(table_of(DepartureLog)).where(mine).values(compared=0))
    look(database, log_file)
    waits(database, LogState.WAITING)
    lost.close()


def test_an_orderly_restart_compares_nothing_and_waits_for_nobody(
    database: Engine, planned_send: int, log_file: DepartureLogFile, tmp_path: Path
) -> None:
    drain(database, FakeGateway(), log_file)
    look(database, log_file)
    again = DepartureLogFile(log_file.folder)
    look(database, again)
    assert (again.id, log_states(database)) == (log_file.id, ["current"])
    again.close()
