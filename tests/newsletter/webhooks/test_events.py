"""Each event is queued by the operation that causes it, in its transaction, and only if wanted."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.engine import transaction
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.sending.ledger import sends
from newsletter.sending.operations import lifecycle
from newsletter.sending.reasons import PauseCause
from tests.conftest import NOW
from tests.newsletter.sending.conftest import FakeGateway, five, make_plan, make_send
from tests.newsletter.sending.delivery.test_dispatcher import dispatcher
from tests.newsletter.webhooks.conftest import BY, Hooks, Receiver

__all__ = ["five"]
pytestmark = pytest.mark.both_databases


def test_a_send_is_scheduled_started_paused_and_finished(
    database: Engine, five: list[int], hooks: Hooks, receiver: Receiver
) -> None:
    _, secret = hooks.add(receiver.url)
    now = datetime.now(UTC)
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    with transaction(database) as session:
        lifecycle.pause(session, send, by=BY, now=now, reason="a mistake")
    with transaction(database) as session:
        lifecycle.resume(session, send, by=BY, now=now)
    work = dispatcher(database, FakeGateway())
    while work.send_next():
        pass
    with transaction(database) as session:
        sends.finish(session, now=now)
    hooks.send()
    found = [post.type for post in receiver.posts]
    assert found == [
        "issue.approved",
        "send.scheduled",
        "send.started",
        "send.paused",
        "send.resumed",
        "send.finished",
    ]
    assert [post.data["sequence"] for post in receiver.posts] == [1, 2, 3, 4, 5, 6]
    assert all(post.verified(secret) for post in receiver.posts)
    sent = {post.type: post.data for post in receiver.posts}
    assert sent["send.started"]["send"] == {
        "id": send,
        "issue": "first",
        "title": sent["send.started"]["send"]["title"],
        "state": "sending",
        "scheduled_for": "2026-03-27T07:00:00+00:00",
        "recipients": 5,
        "accepted": None,
    }
    assert sent["send.paused"]["cause"] == "operator"
    assert sent["send.paused"]["reason"] == "a mistake"
    assert sent["send.finished"]["send"]["accepted"] == 5


def test_a_send_that_cannot_go_on_is_paused_and_failed_and_operators_are_told(
    database: Engine, five: list[int], hooks: Hooks, receiver: Receiver
) -> None:
    hooks.add(
        receiver.url,
        WebhookEvent.SEND_FAILED,
        WebhookEvent.SEND_PAUSED,
        WebhookEvent.OPERATOR_MESSAGE,
    )
    send = make_send(database)
    with transaction(database) as session:
        sends.pause_scheduled(session, send, PauseCause.START, reason="no segment", now=NOW)
    hooks.send()
    assert [post.type for post in receiver.posts] == [
        "operator.message",
        "send.paused",
        "send.failed",
    ]
    assert receiver.posts[0].data["message"]["kind"] == "send_paused"
    assert receiver.posts[0].data["message"]["subject"] == str(send)
    assert receiver.posts[2].data["cause"] == "start"


def test_a_cancelled_send_is_reported(database: Engine, five: list[int], hooks: Hooks) -> None:
    hooks.add("https://public.example/", WebhookEvent.SEND_CANCELLED)
    send = make_send(database)
    with transaction(database) as session:
        lifecycle.cancel(session, send, by=BY, now=NOW)
    (row,) = hooks.rows()
    assert (row.event, row.data["send"]["state"]) == ("send.cancelled", "cancelled")


def test_a_message_that_was_written_before_is_reported_once(hooks: Hooks) -> None:
    hooks.add("https://public.example/", WebhookEvent.OPERATOR_MESSAGE)
    for _ in range(2):
        with transaction(hooks.database) as session:
            operator_messages.post(session, MessageKind.DISK_LOW, "the database", now=NOW)
    assert [row.event for row in hooks.rows()] == ["operator.message"]


def test_what_no_enabled_endpoint_wants_is_not_queued(
    database: Engine, five: list[int], hooks: Hooks
) -> None:
    hooks.add("https://public.example/", WebhookEvent.SEND_FINISHED)
    make_send(database)
    assert hooks.rows() == []


def test_an_event_of_a_rolled_back_transaction_is_not_queued(
    database: Engine, five: list[int], hooks: Hooks
) -> None:
    hooks.add("https://public.example/")
    send = make_send(database)
    before = len(hooks.rows())
    with pytest.raises(ZeroDivisionError), transaction(database) as session:
        lifecycle.pause(session, send, by=BY, now=NOW)
        raise ZeroDivisionError
    assert len(hooks.rows()) == before
