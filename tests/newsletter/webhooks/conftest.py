"""A program that gets webhooks, over real HTTP, and verifies them by the scheme's own library."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from standardwebhooks import Webhook

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.db.webhook_queue import WebhookDelivery, WebhookEndpoint, WebhookEvent
from newsletter.scheduling import due
from newsletter.wakeups import Wakeups
from newsletter.webhooks import endpoints
from newsletter.webhooks.sender import WebhookSender

BY = Actor(None, "test")
HOST = "127.0.0.1"
_endpoint, _delivery = table_of(WebhookEndpoint), table_of(WebhookDelivery)


@dataclass
class Post:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return json.loads(self.body)["type"]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.body)["data"]

    def verified(self, *secrets: str) -> bool:
        """Whether each of these secrets alone proves the request; raises if not."""
        for secret in secrets:
            Webhook(secret).verify(self.body, self.headers)
        return True


class Receiver(http.server.ThreadingHTTPServer):
    """Answers each post as ``answer`` says: a status, or a function that answers itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.posts: list[Post] = []
        self.answer: int | Callable[[Any], None] = 204
        self.text = b""
        self.hold = threading.Event()
        #: Posts under way, and the most at once.
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/hook"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that closes the connection is expected."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.posts.append(Post(self.path, headers, body))
            answer = self.server.answer
            if callable(answer):
                answer(self)
                return
            self.send_response(answer)
            self.send_header("content-length", str(len(self.server.text)))
            self.end_headers()
            self.wfile.write(self.server.text)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Hooks:
    """The endpoints of a test, and what is sent to them."""

    database: Engine
    allow_hosts: list[str] = field(default_factory=lambda: [HOST])

    def add(self, url: str, *events: WebhookEvent, now: datetime | None = None) -> tuple[int, str]:
        """An endpoint for these events; its number and secret."""
        with transaction(self.database) as session:
            return endpoints.create(
                session,
                url,
                events or tuple(WebhookEvent),
                by=BY,
                now=now or datetime.now(UTC),
                allow_hosts=[*self.allow_hosts, "public.example", "internal.example"],
            )

    def sender(self) -> WebhookSender:
        """A sender that is not started."""
        wakeups = Wakeups(
            self.database, lambda session, now: due.next_due(session, now, grace=timedelta(0))
        )
        return WebhookSender(self.database, wakeups, allow_hosts=self.allow_hosts, version="test")

    def send(self) -> None:
        """Send what is due."""
        self.sender().send_due()

    def rows(self) -> list[Any]:
        """All deliveries."""
        with reading(self.database) as session:
            return list(session.execute(select(_delivery).order_by(_delivery.c.id)).all())

    def endpoint(self, number: int) -> Any:
        with reading(self.database) as session:
            return session.execute(select(_endpoint).where(_endpoint.c.id == number)).one()

    def past(self, at: datetime) -> None:
        """Let all waits end, as if the time had passed."""
        with transaction(self.database) as session:
            session.execute(update(_delivery).values(not_before=at))
            session.execute(update(_endpoint).values(not_before=at, lease_until=at))


@pytest.fixture
def hooks(database: Engine) -> Hooks:
    """Endpoints in a database."""
    return Hooks(database)


def until(condition: Callable[[], object], seconds: float = 30) -> bool:
    """Whether the condition becomes true in time."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server((HOST, 0)) as one:
        return one.getsockname()[1]
