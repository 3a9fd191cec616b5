"""/healthz and /readyz: what they ask, what they answer, and what they cost."""

import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text, update
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import check_version, transaction
from newsletter.db.orm import table_of
from newsletter.doctor.account import Verdict
from newsletter.doctor.service import low_space, of_disk_space, of_sending
from newsletter.monitoring import process_monitor
from newsletter.monitoring.cached_reading import CachedReading
from newsletter.scheduling.leadership import is_held, leadership
from newsletter.sending import heartbeat
from newsletter.sending.models import Batch
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.newsletter.sending.conftest import five, planned

__all__ = ["five"]


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    clock = leadership(container.database)
    assert clock.hold()
    with TestClient(create_app(container, background=False)) as client:
        yield client
    clock.release()


def checks(client: TestClient, status: int) -> dict[str, bool]:
    """The checks, once the service answers with this status; an answer is kept for a second."""
    deadline = time.monotonic() + 20
    while (answer := client.get("/readyz")).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    return {one["name"]: one["ok"] for one in answer.json()["checks"]}


@pytest.mark.both_databases
def test_a_service_whose_database_and_clock_work_is_ready(
    client: TestClient, container: Container, tmp_path: Path
) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    found = {one["name"]: one["ok"] for one in answer.json()["checks"]}
    assert found == dict.fromkeys(found, True)
    assert {"database", "the database's address key", "clock", "workers"} <= set(found)
    assert "disk space of the departure log" in found
    for path in ("/readyz", "/healthz"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    for secret in (ADDRESS_KEY, LINK_KEY, "SG.test", str(tmp_path), "@"):
        assert secret not in answer.text


@pytest.mark.slow
@pytest.mark.both_databases
def test_a_service_is_not_ready_while_nobody_runs_the_clock(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(container, background=False)) as client:
        # A new process waits for the one before it.
        assert checks(client, 200)["clock"]
        monkeypatch.setattr(process_monitor, "_TAKE_OVER", 0)
        assert not checks(client, 503)["clock"]
        clock = leadership(container.database)
        assert clock.hold()
        assert checks(client, 200)["clock"]
        clock.release()


@pytest.mark.both_databases
def test_whether_the_clock_is_held_can_be_asked_without_taking_it(database: Engine) -> None:
    first, second = leadership(database), leadership(database)
    assert not is_held(database)
    assert first.hold()
    assert is_held(database)
    assert not second.hold()
    first.release()
    assert not is_held(database)
    assert second.hold()
    second.release()


@pytest.mark.slow
@pytest.mark.both_databases
def test_a_service_with_another_key_or_schema_is_not_ready(
    client: TestClient, container: Container
) -> None:
    with transaction(container.database) as session:
        session.execute(text("UPDATE identity SET value = 'x' WHERE name = 'address_key'"))
    found = checks(client, 503)
    assert (found["the database's address key"], found["database"]) == (False, True)
    version = check_version(container.database)
    with transaction(container.database) as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    time.sleep(1.1)
    assert not checks(client, 503)["database"]
    with transaction(container.database) as session:  # the next test gets this database
        session.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))


@pytest.mark.slow
def test_a_service_without_its_database_is_alive_and_not_ready(
    environment: dict[str, str], tmp_path: Path
) -> None:
    if "postgresql" in environment["NEWSLETTER_DATABASE_URL"]:
        pytest.skip("the server of the tests has to go on running")
    folder = tmp_path / "data"
    folder.mkdir()
    environment["NEWSLETTER_DATABASE_URL"] = f"sqlite:///{folder}/newsletter.db"
    container = Container(load(environment))
    with TestClient(create_app(container, background=False)) as client:
        assert checks(client, 200)["database"]
        container.database.dispose()
        shutil.move(folder, tmp_path / "away")
        assert not checks(client, 503)["database"]
        assert client.get("/healthz").json() == {"status": "ok"}
        shutil.move(tmp_path / "away", folder)
        assert checks(client, 200)["database"]
    container.database.dispose()


@pytest.mark.slow
@pytest.mark.both_databases
def test_a_database_that_hangs_delays_no_answer_for_long(
    client: TestClient, container: Container
) -> None:
    if container.database.dialect.name == "sqlite":
        pytest.skip("readers of SQLite wait for nobody")
    with container.database.connect() as other, other.begin():
        other.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        answers = []
        asking = [
            threading.Thread(target=lambda: answers.append(client.get("/readyz")))
            for _ in range(20)
        ]
        for thread in asking:
            thread.start()
        assert client.get("/healthz").status_code == 200
        for thread in asking:
            thread.join(10)
        assert [one.status_code for one in answers] == [503] * 20
        assert answers[0].json()["checks"][0]["text"] == "no answer within 3 seconds"
        assert container.database.pool.checkedout() == 2  # type: ignore[attr-defined]
    assert checks(client, 200)["database"]


@pytest.mark.both_databases
def test_many_who_ask_cost_one_look(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_monitor, "_KEEP", 600)
    client = TestClient(create_app(container, background=False))
    statements: list[str] = []
    event.listen(
        container.database,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    client.get("/healthz")
    assert statements == []
    client.get("/readyz")
    first = len(statements)
    assert 0 < first < 40
    for _ in range(20):
        client.get("/readyz")
    assert len(statements) == first


@pytest.mark.both_databases
def test_a_due_batch_that_nobody_sends_is_a_problem(database: Engine, five) -> None:
    send = planned(database)
    now = datetime.now(UTC)
    # Long due, and no process has ever sent.
    assert of_sending(database, now=now).verdict is Verdict.PROBLEM
    with transaction(database) as session:
        heartbeat.beat(session, "host:1:a", now=now)
    assert of_sending(database, now=now).verdict is Verdict.OK
    later = now + timedelta(minutes=5)
    assert of_sending(database, now=later).verdict is Verdict.PROBLEM
    batch = table_of(Batch)
    with transaction(database) as session:
        session.execute(update(batch).where(batch.c.send_id == send).values(not_before=later))
    assert of_sending(database, now=later).verdict is Verdict.OK


def test_little_disk_space_is_told_once_a_week_and_when_it_gets_worse(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    monday = datetime(2026, 3, 30, tzinfo=UTC)

    def keys(days: int, **limits: int) -> list[str]:
        now = monday + timedelta(days=days)
        return [one.key for one in low_space([("the database", tmp_path)], now=now, **limits)]

    assert keys(0, too_little=0, little=0) == []
    (first,) = keys(0, too_little=0, little=2 * free)
    assert keys(6, too_little=0, little=2 * free) == [first]
    assert keys(7, too_little=0, little=2 * free) != [first]
    assert keys(6, too_little=2 * free, little=2 * free) != [first]


def test_little_disk_space_is_a_warning_and_less_is_a_problem(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    folder = tmp_path / "not" / "yet"
    assert of_disk_space("x", folder).verdict in {Verdict.OK, Verdict.WARNING}
    assert of_disk_space("x", folder, too_little=0, little=2 * free).verdict is Verdict.WARNING
    finding = of_disk_space("x", folder, too_little=2 * free, little=2 * free)
    assert (finding.verdict, finding.subject) == (Verdict.PROBLEM, "disk space of x")


def test_a_reading_that_fails_or_hangs_is_none_and_is_tried_again() -> None:
    ready, calls = threading.Event(), []

    def read() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError
        ready.wait(10)
        return 7

    reading = CachedReading(read, keep=0, wait=0.2)
    assert reading.get() is None
    assert [reading.get(), reading.get()] == [None, None]
    assert len(calls) == 2  # the second one goes on
    ready.set()
    deadline = time.monotonic() + 5
    while reading.get() != 7:
        assert time.monotonic() < deadline
