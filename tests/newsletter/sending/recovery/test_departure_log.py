"""A database restored from a backup forgets; the log beside it does not."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Engine, delete, select, text, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import MachineError, NothingToDoError
from newsletter.provider.gateway import Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.sending.recovery.restore_replay import ReplayReport, replay
from subscribers.consent import suppression
from subscribers.consent.records import Act, record
from subscribers.models import Subscriber, Suppression, SuppressionReason
from tests.conftest import NOW
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_plan,
    make_send,
    send_state,
    states,
)
from tests.newsletter.tracking.events.test_ingest import entry, take

#: Children last: the order in which rows can be written back.
_TABLES = ("send", "variant", "batch", "delivery")


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[DepartureLogFile]:
    made = DepartureLogFile(tmp_path / "departures")
    yield made
    made.close()


def backup(database: Engine) -> dict[str, list[dict[str, object]]]:
    """The rows of the ledger as they stand."""
    with database.connect() as connection:
        return {
            name: [
                dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]
            for name in _TABLES
        }


def restore(database: Engine, rows: dict[str, list[dict[str, object]]]) -> None:
    with database.begin() as connection:
        for name in reversed(_TABLES):
            connection.execute(text(f"DELETE FROM {name}"))
        for name in _TABLES:
            for row in rows[name]:
                values = {
                    key: orjson.dumps(value).decode() if isinstance(value, dict | list) else value
                    for key, value in row.items()
                }
                names = ", ".join(values)
                marks = ", ".join(f":{key}" for key in values)
                connection.execute(text(f"INSERT INTO {name} ({names}) VALUES ({marks})"), values)


def compared(database: Engine, log_file: DepartureLogFile) -> ReplayReport:
    with transaction(database) as session:
        return replay(session, log_file, now=datetime.now(UTC))


def taken(gateway: FakeGateway) -> list[str]:
    """Who is in the requests after the first, which was refused."""
    return sorted(r.email for request in gateway.requests[1:] for r in request.recipients)


def test_what_left_after_the_backup_is_not_sent_again(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send)
    before = backup(database)
    gateway = FakeGateway()
    worker = dispatcher(database, gateway, log_file)
    worker.send_next()
    with transaction(database) as session:
        suppression.add(session, [five[2]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="")
    worker.send_next()
    restore(database, before)
    assert [batch.state for batch in batches(database, send)] == ["pending"] * 3
    assert compared(database, log_file) == ReplayReport(accepted=2)
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in (1, 2, 4, 5)]
    # Whoever was left out of a request is not said to have it.
    assert states(database, send)[five[2]][0] == "skipped"
    with reading(database) as session:
        assert send_status.find(session, send).state == "sent"


def test_what_left_without_an_answer_is_in_doubt(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    before = backup(database)
    dispatcher(database, FakeGateway(Unknown("lost")), log_file).send_next()
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(uncertain=1)
    assert batches(database, send)[0].state == "uncertain"
    assert not dispatcher(database, FakeGateway(), log_file).send_next()


def test_an_answer_that_was_not_written_down_settles_its_batch(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway(), log_file).send_next()
    with database.begin() as connection:  # a crash between the answer and its commit
        connection.execute(text("DELETE FROM batch"))
        connection.execute(text("UPDATE delivery SET state = 'dropped'"))
        connection.execute(text("UPDATE delivery SET state = 'planned'"))
    rows = backup(database)
    # The same batch as it stood when its request left.
    made = dict(before_batch(send))
    rows["batch"] = [made | {"variant_id": rows["variant"][0]["id"]}]
    rows["send"] = [row | {"state": "sending", "finished_at": None} for row in rows["send"]]
    restore(database, rows)
    assert compared(database, log_file) == ReplayReport(accepted=1)
    assert batches(database, send)[0].state == "accepted"


def before_batch(send: int) -> dict[str, object]:
    moment = NOW.replace(tzinfo=None).isoformat(" ")
    return {
        "send_id": send,
        "number": 1,
        "part": "whole",
        "zone": "",
        "state": "in_flight",
        "size": 5,
        "resent": False,
        "not_before": moment,
        "attempt": 1,
        "detail": "",
    }


def test_a_refusal_may_be_tried_again(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    before = backup(database)
    dispatcher(database, FakeGateway(Refused(401, "no")), log_file).send_next()
    restore(database, before)
    assert compared(database, log_file) == ReplayReport()
    assert batches(database, send)[0].state == "pending"


def test_a_plan_that_was_lost_is_made_anew_around_those_who_have_the_issue(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    before = backup(database)
    make_plan(database, send)
    gateway = FakeGateway()
    worker = dispatcher(database, gateway, log_file)
    worker.send_next()
    gateway.outcomes.append(Unknown("lost"))
    worker.send_next()
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(accepted=1, uncertain=1)
    assert compared(database, log_file) == ReplayReport()
    make_plan(database, send)
    with transaction(database) as session:
        provider_backoff.lift(session)
    drain(database, gateway, log_file)
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    assert [b.state for b in batches(database, send)] == ["accepted", "uncertain", "accepted"]
    with transaction(database) as session:
        assert send_status.get_status(session, send).adds_up
        uncertain_batches.resolve(session, send, 2, by=Actor(None, "operator"), sent=True, now=NOW)
        assert send_status.find(session, send).state == "sent"


def test_what_was_split_since_the_backup_is_put_together_from_its_parts(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    before = backup(database)
    gateway = FakeGateway(Refused(400, "bad"))
    worker = dispatcher(database, gateway, log_file)
    worker.send_next()  # refused as a whole, and halved
    worker.send_next()  # one half
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(accepted=1)
    drain(database, gateway, log_file)
    assert taken(gateway) == [f"p{n}@example.org" for n in range(1, 6)]
    with reading(database) as session:
        assert send_status.get_status(session, send).adds_up


def test_both_halves_of_a_split_that_left_since_the_backup_are_known(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    before = backup(database)
    gateway = FakeGateway(Refused(400, "bad"))
    drain(database, gateway, log_file)
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(accepted=2)
    drain(database, gateway, log_file)
    assert taken(gateway) == [f"p{n}@example.org" for n in range(1, 6)]
    assert send_state(database, send) == "sent"
    with reading(database) as session:
        assert send_status.get_status(session, send).adds_up


@pytest.mark.parametrize("ended", ["sent", "cancelled"])
def test_a_retry_that_left_after_the_backup_is_not_sent_again(
    database: Engine, five: list[int], log_file: DepartureLogFile, ended: str
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=4)
    gateway = FakeGateway(Refused(400, "bad", recipient=0))
    worker = dispatcher(database, gateway, log_file)
    for _ in range(2 if ended == "cancelled" else 4):
        worker.send_next()
    if ended == "cancelled":
        with transaction(database) as session:
            send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    assert send_state(database, send) == ended
    before = backup(database)
    with transaction(database) as session:
        missed = send_lifecycle.retry(
            session, send, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=5
        )
    drain(database, gateway, log_file)
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(accepted=1)
    assert compared(database, log_file) == ReplayReport()
    with pytest.raises(NothingToDoError), transaction(database) as session:
        send_lifecycle.retry(
            session, send, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=5
        )
    drain(database, gateway, log_file)
    assert taken(gateway) == [f"p{n}@example.org" for n in range(1, 6)]
    assert missed == (1 if ended == "sent" else 2)
    assert send_state(database, send) == ended
    with reading(database) as session:
        assert send_status.get_status(session, send).adds_up


def test_a_retry_without_an_answer_keeps_its_send_from_being_sent(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    gateway = FakeGateway(Refused(400, "bad", recipient=0))
    dispatcher(database, gateway, log_file).send_next()
    backups = [backup(database)]
    drain(database, gateway, log_file)
    backups.append(backup(database))
    with transaction(database) as session:
        assert (
            send_lifecycle.retry(
                session, send, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=5
            )
            == 1
        )
    gateway.outcomes.append(Unknown("lost"))
    drain(database, gateway, log_file)
    for before in backups:
        restore(database, before)
        compared(database, log_file)
        drain(database, gateway, log_file)
        assert [b.state for b in batches(database, send)] == ["accepted", "uncertain"]
        assert send_state(database, send) == "sending"
        with reading(database) as session:
            assert send_status.get_status(session, send).adds_up


def test_the_operators_word_is_not_taken_back(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway(Unknown("lost")), log_file).send_next()
    with transaction(database) as session:
        uncertain_batches.resolve(
            session, send, 1, by=Actor(None, "operator"), sent=False, now=datetime.now(UTC)
        )
    assert compared(database, log_file) == ReplayReport()
    assert batches(database, send)[0].state == "pending"


def test_another_send_of_the_same_number_is_another_send(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send)
    dispatcher(database, FakeGateway(), log_file).send_next()
    with database.begin() as connection:
        connection.execute(text("UPDATE send SET created_at = '2026-01-01 00:00:00+00:00'"))
        connection.execute(text("UPDATE delivery SET state = 'dropped' WHERE state <> 'planned'"))
    assert compared(database, log_file) == ReplayReport(unknown_sends=1, forgotten=2)


def test_the_mails_of_a_lost_send_prove_nothing_of_the_next_one_of_its_number(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    before = backup(database)
    lost = make_send(database)
    earlier = NOW - timedelta(hours=1)
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(created_at=earlier))
    make_plan(database, lost, batch_size=5)
    mail = drain(database, FakeGateway(), log_file).requests[0]
    restore(database, before)
    if database.dialect.name == "postgresql":  # a dump brings its sequences
        with database.begin() as connection:
            connection.execute(text("ALTER SEQUENCE send_id_seq RESTART"))
    # The log is lost as well: else whoever had the issue would get it from no other send.
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    assert send == lost
    take(database, entry(lost, five[0], "open", **mail.custom_args))
    assert len(drain(database, FakeGateway(), log_file).mailed) == 5


def leave(database: Engine, person: int, at: datetime = NOW) -> None:
    with transaction(database) as session:
        suppression.add(session, [person], SuppressionReason.UNSUBSCRIBED, at=at, evidence="link")


def forget_who_left(database: Engine) -> None:
    """As a database does that was restored from a backup."""
    with transaction(database) as session:
        session.execute(delete(table_of(Suppression)))


@pytest.fixture
def following(database: Engine, log_file: DepartureLogFile) -> Iterator[DepartureLogFile]:
    log_file.follow(database)
    yield log_file
    log_file.unfollow()


def test_who_left_after_the_backup_is_not_mailed_again(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    send = make_send(database)
    leave(database, five[2])
    forget_who_left(database)
    assert compared(database, following) == ReplayReport(suppressed=1)
    assert compared(database, following) == ReplayReport()
    assert make_plan(database, send) == 4
    assert five[2] not in states(database, send)
    with reading(database) as session:
        row = session.execute(select(table_of(Suppression))).one()
    assert (row.reason, row.at) == ("unsubscribed", NOW)
    assert "departure log" in row.evidence
    # The file tells nobody who it was.
    for file in following.folder.iterdir():
        assert b"example.org" not in file.read_bytes()


def test_the_stronger_reason_holds(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    leave(database, five[0])
    with transaction(database) as session:
        suppression.add(session, five[:1], SuppressionReason.COMPLAINED, at=NOW, evidence="")
    forget_who_left(database)
    following.unfollow()
    leave(database, five[0])
    assert compared(database, following) == ReplayReport(suppressed=1)
    with reading(database) as session:
        assert session.scalar(select(table_of(Suppression).c.reason)) == "complained"


def test_who_came_back_is_left_in_peace(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    leave(database, five[0])
    leave(database, five[1], at=NOW + timedelta(days=2))
    forget_who_left(database)
    with transaction(database) as session:
        for person in five[:2]:
            record(session, person, [Act(NOW + timedelta(days=1), "confirmed", "form:site")])
    assert compared(database, following) == ReplayReport(suppressed=1)
    assert make_plan(database, make_send(database)) == 4


@pytest.mark.parametrize("source", ["preferences", "import:list"])
def test_only_a_signup_is_coming_back(
    database: Engine, five: list[int], following: DepartureLogFile, source: str
) -> None:
    leave(database, five[0])
    forget_who_left(database)
    with transaction(database) as session:
        record(session, five[0], [Act(NOW + timedelta(days=1), "confirmed", source)])
    assert compared(database, following) == ReplayReport(suppressed=1)


def bar(database: Engine, person: int) -> None:
    with transaction(database) as session:
        suppression.add(session, [person], SuppressionReason.MANUAL, at=NOW, evidence="by Ada")


def lift(database: Engine, person: int) -> str | None:
    with transaction(database) as session:
        hashed = session.get_one(Subscriber, person).address_hash
        return suppression.lift_manual(session, hashed, evidence="lifted by Ada")


def test_what_was_lifted_stays_lifted(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    bar(database, five[0])
    assert lift(database, five[0]) is None
    assert compared(database, following) == ReplayReport()
    with reading(database) as session:
        assert session.execute(select(table_of(Suppression))).all() == []
    leave(database, five[0])
    forget_who_left(database)
    assert compared(database, following) == ReplayReport(suppressed=1)


@pytest.mark.parametrize("left_first", [True, False])
@pytest.mark.parametrize("lifted", [True, False])
def test_whom_an_operators_word_hid_is_not_revived(
    database: Engine, five: list[int], following: DepartureLogFile, left_first: bool, lifted: bool
) -> None:
    does = [leave, bar] if left_first else [bar, leave]
    for one in does:
        one(database, five[0])
    if lifted:
        assert lift(database, five[0]) == "unsubscribed"
    forget_who_left(database)
    assert compared(database, following) == ReplayReport(suppressed=1)
    assert compared(database, following) == ReplayReport()
    with reading(database) as session:
        row = session.execute(select(table_of(Suppression))).one()
    found = (row.reason, row.underlying_reason, row.underlying_at)
    assert found == (("unsubscribed", None, None) if lifted else ("manual", "unsubscribed", NOW))
    assert make_plan(database, make_send(database)) == 4


def test_what_the_backup_knows_of_an_operators_word_gets_the_rest_beneath(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    bar(database, five[0])
    leave(database, five[0])
    with transaction(database) as session:
        forgotten = {"underlying_reason": None, "underlying_at": None}
        session.execute(update(table_of(Suppression)).values(**forgotten))
    assert compared(database, following) == ReplayReport(suppressed=1)
    assert lift(database, five[0]) == "unsubscribed"


def test_what_was_not_committed_did_not_happen(
    database: Engine, five: list[int], following: DepartureLogFile
) -> None:
    def broken() -> None:
        with transaction(database) as session:
            suppression.add(session, five, SuppressionReason.BOUNCED, at=NOW, evidence="")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert following.read().suppressions == {}
    following.unfollow()
    leave(database, five[0])
    assert following.read().suppressions == {}


def test_torn_lines_and_old_files_do_no_harm(
    database: Engine, five: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "2026-01-01.jsonl").write_text("torn li\n")
    torn = folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    torn.write_bytes(b'{"send": 1, "ma')
    log_file = DepartureLogFile(folder)
    make_plan(database, make_send(database))
    dispatcher(database, FakeGateway(), log_file).send_next()
    told = log_file.read()
    assert [len(departures) for departures in told.departures.values()] == [1]
    assert told.damage == []
    # What the database surely knows goes, and nothing else.
    log_file.forget_old({}, now=datetime.now(UTC))
    assert (folder / "2026-01-01.jsonl").exists()
    log_file.forget_old({"2026-01-01.jsonl": 8}, now=datetime.now(UTC))
    assert sorted(path.name for path in folder.iterdir()) == [torn.name, "log.json"]
    log_file.close()


def test_a_journal_that_cannot_be_written_stops_the_send_before_anything_leaves(
    database: Engine, five: list[int], log_file: DepartureLogFile
) -> None:
    send = make_send(database)
    make_plan(database, send)
    log_file.close()  # every write fails from now on
    gateway = FakeGateway()
    dispatcher(database, gateway, log_file).send_next()
    assert gateway.requests == []
    with reading(database) as session:
        found = send_status.find(session, send)
    assert (found.state, "the departure log cannot be written" in found.reason) == ("paused", True)
    assert batches(database, send)[0].state == "pending"
    log_file._open(datetime.now(UTC))


def test_a_disk_that_has_no_room_for_the_whole_line_stops_the_send_and_spoils_no_other(
    database: Engine, five: list[int], log_file: DepartureLogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, whole = make_send(database), os.write
    make_plan(database, send, batch_size=5)
    before = backup(database)
    gateway = FakeGateway()
    # No error: a shorter write.
    monkeypatch.setattr(
        "newsletter.sending.recovery.departure_log.os.write",
        lambda file, line: whole(file, line[:20]),
    )
    dispatcher(database, gateway, log_file).send_next()
    assert gateway.requests == []
    with reading(database) as session:
        found = send_status.find(session, send)
    assert (found.state, "No space left" in found.reason) == ("paused", True)
    assert batches(database, send)[0].state == "pending"
    # There is room again: what is written now can be read.
    monkeypatch.undo()
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=NOW)
    drain(database, gateway, log_file)
    restore(database, before)
    assert compared(database, log_file) == ReplayReport(accepted=1)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written to") as caught:
        DepartureLogFile(tmp_path / "file" / "departures")
    assert "sending.departure_log" in str(caught.value.place)
