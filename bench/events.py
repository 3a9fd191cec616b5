"""Signed posts of events over HTTP, into a database that holds a million deliveries.

Prints events per second, durable when they are answered, the median and the 99th percentile of a
post, and the ratio to a bare insert of the same rows into a table of the same shape, in
transactions of the same size. It measures once alone and once during a send, and prints how many
bytes a delivery and an event take.
"""

import argparse
import base64
import http.client
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine, insert, text

from bench import setup
from bench.report import Memory, table
from bench.sink import sink
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.provider.events import Event, made_mark, parse
from newsletter.scheduling.tasks import start_due
from newsletter.sending.queries import send_status
from newsletter.sending.states import SendState
from newsletter.settings.load import load
from newsletter.tracking.models import EventRow

#: SendGrid's posts have up to 768 KB.
_POST_BYTES = 700_000
_KEY = ec.generate_private_key(ec.SECP256R1())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000, help="deliveries beforehand")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--posts", type=int, default=4, help="posts under way at once")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        sink() as host,
        setup.database(options.database, Path(folder)) as url,
    ):
        run(url, host, Path(folder), options)


def run(url: str, host: str, folder: Path, options: argparse.Namespace) -> None:
    """Measure and print."""
    public = _KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    settings = setup.environment(
        url,
        folder,
        SENDGRID__HOST=host,
        SENDGRID__WEBHOOK_PUBLIC_KEYS=base64.b64encode(public).decode(),
    )
    container = Container(load(settings))
    setup.fill(container, options.people)
    sizes = [_size(container.database)]
    send_id = _sent(container)
    sizes.append(_size(container.database))
    half = options.events // 2
    with reading(container.database) as session:
        made = made_mark(send_status.find(session, send_id).created_at)
    posts = list(_posts(send_id, made, options.people, 2 * half))
    alone, beside = posts[: len(posts) // 2], posts[len(posts) // 2 :]
    rows: list[list[object]] = []
    with setup.service(settings) as port, ThreadPoolExecutor(options.posts) as pool:
        _measure(pool, port, list(_posts(send_id, made, options.people, 2000, first=10**9)))  # warm
        measured = _measure(pool, port, alone)
        sizes.append(_size(container.database))
        limit = _bare(container.database, alone)
        rows.append(_row("alone", *measured, limit))
        stop, team = _send_beside(container, settings)
        with Memory([team.pid or 0]):
            measured = _measure(pool, port, beside)
        stop.set()
        team.join()
        rows.append(_row("beside a send", *measured, limit))
    rows.append(["bare insert of the same rows", limit, "", "", 1.0])
    kind = container.database.dialect.name
    container.database.dispose()
    size = sum(len(body) for body, _ in posts) / len(posts) / 1000
    table(
        f"{options.people:,} deliveries, {kind}; {len(posts)} posts of {size:,.0f} kB, "
        f"{options.posts} at once",
        ["", "events a second", "median ms", "p99 ms", "to the bare insert"],
        rows,
    )
    table(
        "Room in the database, indexes and figures with it",
        ["", "bytes"],
        [
            ["a delivery", (sizes[1] - sizes[0]) / options.people],
            ["an event", (sizes[2] - sizes[1]) / sum(events for _, events in alone)],
        ],
    )


def _size(database: Engine) -> int:
    """Bytes of the whole database."""
    size = (
        "SELECT pg_database_size(current_database())"
        if database.dialect.name == "postgresql"
        else "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    )
    with reading(database) as session:
        return int(session.execute(text(size)).scalar_one())


def _row(
    name: str, events: int, seconds: float, waits: Sequence[float], limit: float
) -> list[object]:
    rate = events / seconds
    middle, slow = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return [name, rate, middle * 1e3, slow * 1e3, rate / limit]


def _sent(container: Container) -> int:
    """A sent send, all of whose batches are accepted."""
    send_id = setup.make_send(container, "sent", at=datetime.now(UTC))
    start_due(container.task_context)
    with transaction(container.database) as session:
        connection = session.connection()
        for table_name, before in (("batch", "claimed"), ("batch", "in_flight")):
            connection.execute(text(f"UPDATE {table_name} SET state = '{before}'"))
        connection.execute(text("UPDATE batch SET state = 'accepted'"))
        connection.execute(text("UPDATE delivery SET state = 'accepted'"))
        connection.execute(text("UPDATE send SET state = 'sent', finished_at = started_at"))
    if container.database.dialect.name == "postgresql":
        with container.database.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.execute(text("VACUUM ANALYZE"))
    return send_id


def _posts(
    send_id: int, made: int, people: int, events: int, *, first: int = 0
) -> Iterator[tuple[bytes, int]]:
    """Bodies of posts as SendGrid writes them, each with its number of events."""
    body: list[bytes] = []
    size, now = 0, int(time.time())
    for number in range(first, first + events):
        entry = orjson.dumps(_event(number, send_id, made, people, now))
        if size + len(entry) > _POST_BYTES:
            yield b"[" + b",".join(body) + b"]\r\n", len(body)
            body, size = [], 0
        body.append(entry)
        size += len(entry) + 1
    if body:
        yield b"[" + b",".join(body) + b"]\r\n", len(body)


def _event(number: int, send_id: int, made: int, people: int, now: int) -> dict[str, Any]:
    """Of ten events four are processed, four delivered, one an open, one a click or a bounce."""
    kind = number % 10
    # Not in order of subscribers, so that events of different batches come mixed.
    person = number // 2 * 7919 % people + 1 if kind < 8 else number * 7919 % people + 1
    entry: dict[str, Any] = {
        "email": f"reader{person - 1}@example{(person - 1) % 50}.com",
        "timestamp": now - 3600 + number % 3600,
        "smtp-id": f"<{number}.abcdefgh@geopod-ismtpd-12>",
        "sg_event_id": base64.urlsafe_b64encode(number.to_bytes(16, "big")).decode(),
        "sg_message_id": f"bench-{person}.recvd-5f54b5d587-pczjm-1-65F2A1B3-{number % 100}.0",
        "nl_issue": "1",
        "nl_send": str(send_id),
        "nl_batch": str((person - 1) // 1000 + 1),
        "nl_subscriber": str(person),
        "nl_made": str(made),
    }
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15"
    if kind < 8:
        more: dict[str, Any] = (
            {"event": "delivered", "response": "250 2.0.0 OK 1774594800 abc - gsmtp", "tls": 1}
            if kind % 2
            else {"event": "processed", "send_at": 0}
        )
    elif kind == 8:
        more = {"event": "open", "useragent": agent, "ip": "192.0.2.7", "sg_machine_open": False}
    elif number % 100 == 9:
        more = {
            "event": "bounce",
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
            "bounce_classification": "Invalid Address",
        }
    else:
        url = f"https://example.com/article-{number % 17}"
        more = {"event": "click", "url": url, "useragent": agent, "ip": "192.0.2.7"}
    return {**entry, **more}


def _measure(
    pool: ThreadPoolExecutor, port: int, posts: Sequence[tuple[bytes, int]]
) -> tuple[int, float, list[float]]:
    """The number of events, the seconds of all, and the sorted seconds of each post."""
    local = threading.local()

    def post(one: tuple[bytes, int]) -> float:
        body, events = one
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port)
        stamp = str(int(time.time()))
        signature = _KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }
        began = time.perf_counter()
        local.connection.request("POST", "/webhooks/sendgrid/events", body, headers)
        answer = local.connection.getresponse()
        counts = orjson.loads(answer.read())
        waited = time.perf_counter() - began
        assert answer.status == 200, counts
        assert counts["new"] == events, counts
        return waited

    began = time.perf_counter()
    waits = sorted(pool.map(post, posts))
    return sum(events for _, events in posts), time.perf_counter() - began, waits


def _bare(database: Engine, posts: Sequence[tuple[bytes, int]]) -> float:
    """Rows per second of a bare insert into a table like ``event``, by one writer."""
    event = table_of(EventRow)
    with transaction(database) as session:
        if database.dialect.name == "postgresql":
            session.execute(text("CREATE TABLE bare (LIKE event_other INCLUDING ALL)"))
        else:
            like = session.execute(
                text("SELECT sql FROM sqlite_master WHERE name = 'event'")
            ).scalar_one()
            session.execute(text(like.replace("event", "bare", 1)))
            session.execute(text("CREATE INDEX ix_bare ON bare (send_id, kind)"))
    # The same columns, types and keys under another name.
    bare = event.to_metadata(type(event.metadata)(), name="bare")
    seconds, rows = 0.0, 0
    for body, _ in posts:
        batch = [_values(one) for one in parse(body) if isinstance(one, Event)]
        began = time.perf_counter()
        with transaction(database) as session:
            session.connection().execute(insert(bare), batch)
        seconds += time.perf_counter() - began
        rows += len(batch)
    return rows / seconds


def _values(event: Event) -> dict[str, Any]:
    names = ("at", "key", "issue_id", "send_id", "batch", "subscriber_id", "domain", "link", "raw")
    return {
        **{name: getattr(event, name) for name in names},
        "kind": event.kind.value,
        "received_at": event.at,
        "by_machine": False,
    }


def _send_beside(container: Container, settings: dict[str, str]) -> tuple[Any, Any]:
    """Start a send of another issue, which another process plans and dispatches meanwhile."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    team = context.Process(target=_work, args=(settings, stop))
    send_id = setup.make_send(container, "beside", at=datetime.now(UTC) + timedelta(seconds=1))
    team.start()
    while True:
        with reading(container.database) as session:
            if send_status.find(session, send_id).state == SendState.SENDING:
                return stop, team
        time.sleep(0.05)


def _work(settings: dict[str, str], stop: Any) -> None:  # noqa: ANN401 (multiprocessing's Event)
    # One thread, so that the send lasts longer than the posts: the sink answers at once.
    container = Container(load({**settings, "NEWSLETTER_SENDING__CONCURRENCY": "1"}))
    workers, clock = container.workers(alone=True), container.clock()
    workers.start()
    clock.start()
    stop.wait()
    clock.stop()
    workers.stop()


if __name__ == "__main__":
    main()
