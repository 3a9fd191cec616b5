"""A schedule's walk: from its time to inboxes, with two machines that both run the clock."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.scheduling.models import ScheduleRun
from newsletter.sending.models import Send
from newsletter.settings.load import load
from subscribers.segments import store as segment_store
from tests.conftest import add_person
from tests.newsletter.scheduling.conftest import approve, make_schedule, rows

PEOPLE = 25


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        yield running


@pytest.fixture
def machines(environment: dict[str, str], sandbox: RunningSandbox) -> Iterator[list[Container]]:
    """The parts of two services on one database; nothing runs yet."""
    settings = load(
        environment
        | {"NEWSLETTER_SENDGRID__HOST": sandbox.url, "NEWSLETTER_SENDING__BATCH_SIZE": "10"}
    )
    made = [Container(settings), Container(settings)]
    yield made
    for parts in made:
        parts.database.dispose()


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_time_that_comes_sends_the_next_issue_to_everybody_once(
    machines: list[Container], sandbox: RunningSandbox
) -> None:
    database, now = machines[0].database, datetime.now(UTC)
    with transaction(database) as session:
        for n in range(PEOPLE):
            add_person(session, f"reader{n}@example.org", name=f"Reader {n}")
        segment_store.save(session, "everybody", "", now=now)
    for slug in ("first", "second"):
        approve(database, slug, now=now)
    # Rules know minutes: this one came two minutes ago, while nothing ran.
    due = (now - timedelta(minutes=2)).replace(second=0, microsecond=0)
    schedule = make_schedule(database, rule=f"{due:%Y-%m-%d %H:%M}", now=now - timedelta(hours=1))

    def is_over() -> bool:
        with reading(database) as session:
            return session.scalars(select(table_of(Send).c.state)).all() == ["sent"]

    with ExitStack() as ends:
        for parts in machines:
            workers, clock = parts.workers(), parts.clock()
            workers.start()
            ends.callback(workers.stop)
            clock.start()
            ends.callback(clock.stop)
        until(is_over)
        time.sleep(2.5)  # the clock ticks on, and finds nothing more
    [(came, outcome, _, send)] = rows(database, schedule)
    assert (came, outcome) == (due, "sent")
    with reading(database) as session:
        assert session.scalars(select(table_of(ScheduleRun).c.send_id)).all() == [send]
    accepted = httpx.get(f"{sandbox.url}/sandbox/accepted").text.splitlines()
    assert len(accepted) == PEOPLE
    assert sandbox.store.summary()["recipients"] == PEOPLE
