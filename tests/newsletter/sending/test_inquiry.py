"""What SendGrid's own record settles of doubts, and what it does not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update

from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.provider.events import made_mark
from newsletter.provider.sendgrid import SendGridGateway
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.scheduling import tasks
from newsletter.sending.inquiry import Inquiry
from newsletter.sending.models import Batch
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.recovery.uncertain_batches import listed
from newsletter.sending.states import BatchState
from newsletter.settings.load import load
from subscribers.models import Subscriber
from tests.conftest import NOW as MADE_AT
from tests.newsletter.sending.conftest import batches, dispatcher, planned, send_state, states
from tests.newsletter.tracking.events.test_ingest import hash_of

NOW = datetime.now(UTC)
#: Later than the tests take, from the moment that they are read.
LATER = NOW + timedelta(hours=3)


@pytest.fixture(scope="module")
def _running() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig()) as running:
        yield running


@pytest.fixture
def sandbox(_running: RunningSandbox) -> Iterator[RunningSandbox]:
    yield _running
    _running.account = {}
    _running.faults.switch({})
    _running.store.reset()


@pytest.fixture
def gateway(sandbox: RunningSandbox) -> SendGridGateway:
    return SendGridGateway(api_key="SG.sandbox", host=sandbox.url, timeout=timedelta(seconds=5))


@pytest.fixture
def inquiry(database: Engine, gateway: SendGridGateway) -> Inquiry:
    return Inquiry(database, gateway.ask, hash_of)


def doubted(
    database: Engine, sandbox: RunningSandbox, gateway: SendGridGateway, *, taken: bool
) -> int:
    """A send of one batch whose answer never came; its number."""
    send = planned(database, size=5)
    fault = "accept_then_lose" if taken else "server_error"
    sandbox.faults.switch({fault: {"times": 1}})
    assert dispatcher(database, gateway).send_next()  # type: ignore[arg-type]
    assert [one.state for one in batches(database, send)] == ["uncertain"]
    return send


def test_a_mail_of_the_batch_proves_that_all_of_it_was_taken(
    database: Engine, five: list[int], sandbox: RunningSandbox, gateway: Any, inquiry: Inquiry
) -> None:
    send = doubted(database, sandbox, gateway, taken=True)
    assert inquiry.run(now=LATER) == (send, 1)
    [batch] = batches(database, send)
    assert (batch.state, batch.detail) == (
        "accepted",
        "proved by a mail in SendGrid's Email Activity",
    )
    assert {state for state, _ in states(database, send).values()} == {"accepted"}
    assert send_state(database, send) == "sent"
    assert inquiry.run(now=LATER + timedelta(days=1)) is None


def test_nothing_found_proves_nothing_and_is_said(
    database: Engine, five: list[int], sandbox: RunningSandbox, gateway: Any, inquiry: Inquiry
) -> None:
    send = doubted(database, sandbox, gateway, taken=False)
    [before] = batches(database, send)
    for minutes in (0, 11):
        now = LATER + timedelta(minutes=minutes)
        assert inquiry.run(now=now) is None
        with transaction(database) as session:
            [doubt] = listed(session, send)
        at = f"{now:%H:%M} UTC"
        assert doubt.why.startswith(f"{before.detail} · SendGrid's Email Activity showed none")
        assert at in doubt.why
        assert doubt.why.count("·") == 1
    assert {state for state, _ in states(database, send).values()} == {"planned"}


def test_a_mail_of_another_program_with_the_same_numbers_proves_nothing(
    database: Engine, five: list[int], sandbox: RunningSandbox, gateway: Any, inquiry: Inquiry
) -> None:
    send = doubted(database, sandbox, gateway, taken=True)
    person = table_of(Subscriber)
    with transaction(database) as session:
        for number in five:
            other = hash_of(f"other{number}@example.org")
            session.execute(update(person).where(person.c.id == number).values(address_hash=other))
    assert inquiry.run(now=LATER) is None
    assert [one.state for one in batches(database, send)] == ["uncertain"]


def test_each_doubt_is_asked_about_in_turn_and_not_too_often(
    database: Engine, five: list[int]
) -> None:
    asked: list[str] = []

    def ask(method: str, path: str, *, query: Any = None, body: object = None) -> Any:
        asked.append(query["query"])
        return {"messages": []}

    send, made = planned(database, size=2), made_mark(MADE_AT)
    batch = table_of(Batch)
    with transaction(database) as session:
        for state in (BatchState.CLAIMED, BatchState.IN_FLIGHT, BatchState.UNCERTAIN):
            session.execute(update(batch).values(state=state, departed_at=NOW))
    inquiry = Inquiry(database, ask, hash_of)
    inquiry.run(now=NOW + timedelta(minutes=1))
    assert asked == []
    for second in range(0, 120, 15):
        inquiry.run(now=LATER + timedelta(seconds=second))
    assert asked == [
        f"unique_args['nl_send']=\"{send}\" AND unique_args['nl_batch']=\"{number}\""
        f" AND unique_args['nl_made']=\"{made}\""
        for number in (1, 2, 3)
    ]
    inquiry.run(now=LATER + timedelta(minutes=10))
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("status", "pause"), [(429, timedelta(minutes=1)), (403, timedelta(hours=1))]
)
def test_a_refusal_is_respected(
    database: Engine,
    five: list[int],
    sandbox: RunningSandbox,
    gateway: Any,
    inquiry: Inquiry,
    status: int,
    pause: timedelta,
) -> None:
    send = doubted(database, sandbox, gateway, taken=True)
    sandbox.account = {"messages": status}
    assert inquiry.run(now=LATER) is None
    sandbox.account = {}
    assert inquiry.run(now=LATER + pause - timedelta(seconds=1)) is None
    assert inquiry.run(now=LATER + pause) == (send, 1)


def test_an_answer_without_messages_is_no_answer(
    database: Engine, five: list[int], sandbox: RunningSandbox, gateway: Any, inquiry: Inquiry
) -> None:
    send = doubted(database, sandbox, gateway, taken=True)
    for answer in ({"messages": "?"}, [], {"messages": [7, {"to_email": None}]}):
        sandbox.account = {"messages": answer}
        assert Inquiry(database, gateway.ask, hash_of).run(now=LATER) is None
    assert [one.state for one in batches(database, send)] == ["uncertain"]


def test_what_the_operator_settled_meanwhile_stays_settled(
    database: Engine, five: list[int], sandbox: RunningSandbox, gateway: Any
) -> None:
    send = doubted(database, sandbox, gateway, taken=True)

    def ask(method: str, path: str, *, query: Any = None, body: object = None) -> Any:
        with transaction(database) as session:
            send_lifecycle.cancel(session, send, now=NOW)
        return gateway.ask(method, path, query=query, body=body)

    assert Inquiry(database, ask, hash_of).run(now=LATER) == (send, 1)
    assert send_state(database, send) == "cancelled"
    assert {state for state, _ in states(database, send).values()} == {"accepted"}


def test_the_clocks_job_asks_only_where_it_is_switched_on(
    environment: dict[str, str], five: list[int], sandbox: RunningSandbox, gateway: Any
) -> None:
    environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
    environment["NEWSLETTER_SENDGRID__API_KEY"] = "SG.sandbox"
    parts = Container(load(environment))
    send = doubted(parts.database, sandbox, gateway, taken=True)
    assert parts.desk.inquiry is None
    tasks.configure_tasks(parts.desk)
    tasks.ask_about_doubt()
    assert [one.state for one in batches(parts.database, send)] == ["uncertain"]
    parts.database.dispose()
    parts = Container(load(environment | {"NEWSLETTER_SENDGRID__ACTIVITY": "true"}))
    assert parts.desk.inquiry is not None
    parts.database.dispose()
