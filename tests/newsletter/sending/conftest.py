"""A send of a small issue to everybody, and a gateway that answers as told."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.links import Links
from newsletter.provider.gateway import Accepted, MailRequest, Outcome
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication
from newsletter.sending.delivery.dispatcher import Dispatcher, SenderIdentity
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.models import Batch, Delivery
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.planning.planner import plan
from newsletter.sending.queries import send_status
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.settings.load import resource
from subscribers.models import Topic
from subscribers.segments import store as segment_store
from tests.conftest import LINK_KEY, NOW, add_person

PUBLICATION = Publication(
    name="Paper",
    base_url="https://news.example",
    postal_address="Street 1, Town",
    from_email="news@example.org",
    from_name="Paper",
    reply_to=None,
    language="en",
    logo_url=None,
)
TEXT = (
    '---\nsubject: Hello {{ name | default("reader") }}\nslug: %s\n%s---\n\nGood day, {{ name }}.\n'
)


def make_send(
    database: Engine,
    *names: str,
    slug: str = "first",
    at: datetime = NOW,
    topics: str = "",
    timetable: Timetable = Timetable(),  # noqa: B008 (frozen)
    excluded: Sequence[str] = (),
    now: datetime = NOW,
) -> int:
    """Schedule an issue to segments (everybody unless named); returns the send's number."""
    front = f"topics: [{topics}]\n" if topics else ""
    draft = parse_issue(TEXT % (slug, front), name=f"{slug}.md")
    rendered = render(draft, PUBLICATION, templates=resource("templates/email"))
    with transaction(database) as session:
        if not names:
            names = ("everybody",)
            if not any(
                s.segment.name == "everybody" for s in segment_store.listing(session, now=NOW)
            ):
                segment_store.save(session, "everybody", "", now=NOW)
        options = SendOptions(timetable=timetable, excluded=excluded)
        send = send_lifecycle.create(
            session,
            draft,
            rendered,
            names,
            by=Actor(None, "operator"),
            at=at,
            now=now,
            options=options,
            approved_by=COMMAND_LINE,
        )
        return send.id


def make_plan(database: Engine, send_id: int, *, batch_size: int = 2, now: datetime = NOW) -> int:
    with transaction(database) as session:
        return plan(session, send_id, now=now, batch_size=batch_size)


def planned(database: Engine, size: int = 2) -> int:
    """A send to everybody, in batches of this size; its number."""
    send = make_send(database)
    make_plan(database, send, batch_size=size)
    return send


def send_state(database: Engine, send: int) -> str:
    with reading(database) as session:
        return send_status.find(session, send).state


def make_topic(database: Engine, slug: str) -> int:
    with transaction(database) as session:
        topic = Topic(slug=slug, name=slug.capitalize())
        session.add(topic)
        session.flush()
        assert topic.id is not None
        return topic.id


def states(database: Engine, send_id: int) -> dict[int, tuple[str, str | None]]:
    """Subscriber → (state, reason), by the subscriber's id."""
    delivery = table_of(Delivery)
    with reading(database) as session:
        rows = session.execute(
            select(delivery.c.subscriber_id, delivery.c.state, delivery.c.reason)
            .where(delivery.c.send_id == send_id)
            .order_by(delivery.c.subscriber_id)
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def batches(database: Engine, send_id: int) -> list[Any]:
    batch = table_of(Batch)
    with reading(database) as session:
        return list(
            session.execute(
                select(batch).where(batch.c.send_id == send_id).order_by(batch.c.number)
            ).all()
        )


class FakeGateway:
    """Answers in turn as told, then accepts; remembers every request."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[MailRequest] = []
        self.during: Callable[[], None] = lambda: None

    def send(self, request: MailRequest) -> Outcome:
        self.requests.append(request)
        self.during()
        return self.outcomes.pop(0) if self.outcomes else Accepted(f"id{len(self.requests)}")

    @property
    def mailed(self) -> list[str]:
        return [r.email for request in self.requests for r in request.recipients]


def dispatcher(
    database: Engine,
    gateway: FakeGateway,
    log_file: DepartureLogFile | None = None,
    *,
    warm_up: WarmUp | None = None,
) -> Dispatcher:
    return Dispatcher(
        database,
        gateway,
        Links([LINK_KEY]),
        worker=Heartbeat(database),
        base_url="https://news.example",
        sender=lambda: SenderIdentity("news@example.org", "Paper"),
        request_timeout=timedelta(seconds=30),
        log_file=log_file,
        warm_up=warm_up,
    )


def drain(
    database: Engine, gateway: FakeGateway, log_file: DepartureLogFile | None = None
) -> FakeGateway:
    """Send all that is due."""
    worker = dispatcher(database, gateway, log_file)
    while worker.send_next():
        pass
    return gateway


@pytest.fixture
def five(database: Engine) -> list[int]:
    """Five confirmed people; their ids."""
    with transaction(database) as session:
        return [add_person(session, f"p{n}@example.org", name=f"P{n}") for n in range(1, 6)]
