"""Any order, repetition and splitting of events gives the same end, to the last figure."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import Event, parse
from newsletter.sending.models import Delivery
from newsletter.tracking.events.ingest import ingest
from newsletter.tracking.events.suppression_policy import Thresholds
from newsletter.tracking.models import (
    EventRow,
    RecipientCounter,
    SendCounter,
    SoftBounce,
    VariantCounter,
)
from newsletter.tracking.stats import verify as verify_counters
from newsletter.tracking.stats.counters import of_send
from subscribers.models import Subscriber, Suppression
from tests.conftest import NOW
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, hash_of, sent

pytestmark = pytest.mark.both_databases

__all__ = ["five", "sent"]

RULES = Thresholds(
    soft_bounces=3,
    soft_bounce_days=timedelta(seconds=20),
    scanner_links=3,
    scanner_seconds=timedelta(seconds=5),
)
LINKS = [f"https://x.example/{letter}" for letter in "abcd"]
REASONS = ["550 5.1.1 nobody", "550 5.1.1 gone", "mailbox full", ""]
DROPS = ["Bounced Address", "Invalid", "Unsubscribed Address", "Spam Content", "news"]


@st.composite
def happenings(draw: st.DrawFn, send: int) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(
            ["processed", "deferred", "delivered", "bounce", "soft", "blocked", "dropped", "open"]
            + ["click"] * 5
            + ["spamreport", "unsubscribe", "group_unsubscribe", "group_resubscribe", "news"]
        )
    )
    more: dict[str, Any] = {}
    match kind:
        case "deferred":
            more = {"attempt": str(draw(st.integers(1, 2)))}
        case "bounce" | "blocked":
            more = {"type": kind, "reason": draw(st.sampled_from(REASONS))}
        case "soft":
            more = {"status": "4.2.2", "reason": draw(st.sampled_from(REASONS))}
        case "dropped":
            more = {"reason": draw(st.sampled_from(DROPS))}
        case "open":
            more = {"sg_machine_open": draw(st.booleans())}
        case "click":
            more = {"url": draw(st.sampled_from(LINKS))}
            more["useragent"] = draw(st.sampled_from(["Mozilla/5.0", "Mozilla/5.0", "curl/8.0"]))
    name = "bounce" if kind in {"soft", "blocked"} else kind
    at = 1774594800 + draw(st.integers(0, 30))
    one = entry(send, draw(st.integers(1, 3)), name, at=at, **more)
    if draw(st.integers(0, 9)) == 0:
        one["email"] = one["email"].replace("org", "com")
    if draw(st.integers(0, 9)) == 0:  # a late bounce, or a mail outside any send
        one = {k: v for k, v in one.items() if not k.startswith(("nl_", "sg_message"))}
    return one


def posts(draw: st.DrawFn, stream: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The stream shuffled, some of it repeated under new ids, cut into posts."""
    again = [{**one, "sg_event_id": "again"} for one in draw(st.lists(st.sampled_from(stream)))]
    mixed = draw(st.permutations(stream + again))
    while mixed:
        cut = draw(st.integers(1, len(mixed)))
        yield mixed[:cut]
        mixed = mixed[cut:]


def apply(session: Session, post: list[dict[str, Any]]) -> None:
    events = [e for e in parse(json.dumps(post).encode()) if isinstance(e, Event)]
    assert len(events) == len(post)
    ingest(session, events, now=NOW, hash_of=hash_of, rules=RULES)


def end(session: Session) -> dict[str, Any]:
    """All that events change, but for when something was noticed."""
    person, barred, delivery = table_of(Subscriber), table_of(Suppression), table_of(Delivery)
    event, soft, kept = table_of(EventRow), table_of(SoftBounce), table_of(RecipientCounter)
    queries = {
        "events": select(event.c.key, event.c.by_machine),
        "deliveries": select(delivery.c.subscriber_id, delivery.c.state, delivery.c.reason),
        "suppressions": select(barred.c.address_hash, barred.c.reason),
        "readers": select(person.c.id, person.c.last_open_at, person.c.last_click_at),
        "soft": select(soft),
        # A scanner's row stays at nothing: it is a lock.
        "people": select(kept).where(kept.c.count != 0),
        "sends": select(table_of(SendCounter)).where(table_of(SendCounter).c.count != 0),
        "parts": select(table_of(VariantCounter)).where(table_of(VariantCounter).c.count != 0),
    }
    return {name: sorted(map(repr, session.execute(query))) for name, query in queries.items()}


@contextmanager
def trying(database: Engine) -> Iterator[Session]:
    """A transaction that leaves nothing behind."""
    with database.connect() as connection, Session(connection) as session:
        yield session
        session.rollback()


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_repetition_and_splitting_gives_the_same_end(
    database: Engine, sent: int, data: st.DataObject
) -> None:
    draw: Callable[..., Any] = data.draw
    stream = draw(st.lists(happenings(sent), min_size=1, max_size=30))
    with trying(database) as session:
        apply(session, stream)
        expected = end(session)
        assert [
            d
            for n in verify_counters.sends(session)
            for d in verify_counters.differences(session, n)
        ] == []
    with trying(database) as session:
        for post in posts(draw, stream):
            apply(session, post)
        assert end(session) == expected
        assert [
            d
            for n in verify_counters.sends(session)
            for d in verify_counters.differences(session, n)
        ] == []


def test_posts_at_the_same_time_lose_nothing_and_overlook_no_scanner(
    container: Container, database: Engine, sent: int, five: list[int]
) -> None:
    rng = random.Random(7)
    events = [
        entry(sent, person, "click", at=1774594800 + n, url=link)
        for person in five
        for n, link in enumerate(LINKS)
    ]
    events += [entry(sent, person, kind) for person in five for kind in ("delivered", "open")]
    events += [
        entry(sent, person, "bounce", at=1774594800 + n, status="4.2.2")
        for person in five[:2]
        for n in range(5)
    ]
    # Each event comes twice, in posts of other neighbours.
    orders = [rng.sample(events, len(events)) for _ in range(2)]
    bodies = [json.dumps(order[n::6]).encode() for order in orders for n in range(6)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda body: container.ingest(list(parse(body))), bodies))  # type: ignore[arg-type]
    assert sum(one.new for one in done) == len(events)
    with reading(database) as session:
        assert of_send(session, sent) == {
            "machine_click": 20,
            "delivered": 5,
            "open": 5,
            "opened": 5,
            "bounce": 10,
            "people_bounced": 2,
        }
        assert list(verify_counters.differences(session, sent)) == []
        barred = table_of(Suppression)
        assert len(session.execute(select(barred)).all()) == 2


@pytest.mark.parametrize("last_first", [False, True])
def test_a_scanner_revealed_late_gives_back_the_last_click_of_a_person(
    database: Engine, sent: int, five: list[int], last_first: bool
) -> None:
    human = entry(sent, five[0], "click", at=1774594800, url=LINKS[0])
    burst = [
        entry(sent, five[0], "click", at=1774598400 + n, url=link)
        for n, link in enumerate(LINKS[:3])
    ]
    person = table_of(Subscriber)
    wanted = select(person.c.last_click_at).where(person.c.id == five[0])
    with trying(database) as session:
        apply(session, [human, *(burst[1:] if last_first else burst[:2])])
        assert session.scalar(wanted) > NOW
        assert of_send(session, sent) == {"click": 3, "clicked": 1}
        apply(session, [burst[0] if last_first else burst[2]])
        assert session.scalar(wanted) == NOW
        assert of_send(session, sent) == {"click": 1, "clicked": 1, "machine_click": 3}
