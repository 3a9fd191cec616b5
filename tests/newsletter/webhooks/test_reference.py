"""docs/reference/webhook-events.md shows each event as it is sent."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from newsletter.db.engine import transaction
from newsletter.db.webhook_queue import TEST_EVENT, WebhookEvent
from newsletter.sending.ledger import sends
from newsletter.sending.operations import lifecycle
from newsletter.sending.reasons import PauseCause, is_failure
from newsletter.tracking.people import privacy
from newsletter.webhooks import endpoints
from tests.conftest import NOW
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, five, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take
from tests.newsletter.webhooks.conftest import BY, Hooks, Receiver
from tests.subscribers.signup.test_double_opt_in import PLAIN, ask, confirm

__all__ = ["five"]
PAGE = Path(__file__).parents[3] / "docs/reference/webhook-events.md"
ALL = [event.value for event in WebhookEvent] + [TEST_EVENT]


def shape(value: Any) -> Any:
    """The value with types in the place of texts and numbers, as far as they are not null."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return None if value is None else type(value).__name__


def examples() -> dict[str, Any]:
    """The JSON of each section, by its heading."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]
    found = {}
    for section in sections:
        (block,) = re.findall(r"```json\n(.*?)```", section, re.S)
        found[section.splitlines()[0]] = json.loads(block)
    return found


def test_the_reference_has_every_event_and_no_other() -> None:
    assert list(examples()) == ALL
    assert [one["type"] for one in examples().values()] == ALL
    rows = PAGE.read_text().split("| event | when |")[1]
    table = re.findall(r"^\| `([a-z.]+)` \|", rows, re.M)
    assert table == ALL


def test_the_reference_names_every_cause_of_a_failure() -> None:
    failed = PAGE.read_text().split("## send.failed")[1].split("```")[0]
    named = set(re.findall(r"`(\w+)`", failed)) - {"cause"}
    assert named == {cause.value for cause in PauseCause if is_failure(cause)}


@pytest.mark.both_databases
def test_each_event_is_sent_as_the_reference_shows_it(
    database: Engine, five: list[int], hooks: Hooks, receiver: Receiver
) -> None:
    number, secret = hooks.add(receiver.url)
    now = datetime.now(UTC)
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    with transaction(database) as session:
        lifecycle.pause(session, send, by=BY, now=now)
        lifecycle.resume(session, send, by=BY, now=now)
    while (work := dispatcher(database, FakeGateway())).send_next():
        work.release()
    take(
        database,
        entry(send, five[0], "bounce", reason="550 no such user"),
        entry(send, five[1], "spamreport"),
        entry(send, five[2], "unsubscribe"),
    )
    confirm(database, ask(database, PLAIN))
    other = make_send(database, slug="second")
    with transaction(database) as session:
        sends.finish(session, now=now)
        sends.pause_scheduled(session, other, PauseCause.START, reason="no", now=now)
        lifecycle.cancel(session, other, by=BY, now=now)
        endpoints.send_test(session, number, by=BY, now=now)
    hooks.send()
    with transaction(database) as session:
        privacy.erase(session, five[2], now=NOW)
    hooks.send()
    sent = {post.type: post for post in receiver.posts}
    assert set(sent) == set(ALL)
    for event, example in examples().items():
        found = json.loads(sent[event].body)
        assert sent[event].verified(secret)
        assert shape(found) == shape(example), event
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["timestamp"])
