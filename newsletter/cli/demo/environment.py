"""The demo's sandbox and service, with their data in a temporary folder."""

import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from newsletter.accounts import audit, passwords, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.cli.processes.serve import listen, server_of
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.errors import MachineError
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import load
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.segments import store as segment_store

_HOST = "127.0.0.1"
#: The usual ports, used if they are free, because they are easy to remember.
_SERVICE_PORT, _MAILBOX_PORT = 8000, 8025

_FIRST = """
Ada Alan Barbara Claude Dana Edsger Frances Grace Hedy Ivan Jean Ken Lynn Margaret
Niklaus Octavia Peter Radia Sophie Tim Ursula Vint Whitfield Xiaoyuan Yukihiro Zoë
""".split()
_LAST = """
Allen Bartik Cerf Diffie Easley Fürst Goldberg Hamilton Iverson Johnson Knuth Lovelace
Moore Naur O’Neil Perlman Quinlan Ritchie Søndergaard Thompson Ungar Wirth Yao Zuse
""".split()


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """The running parts of the demo."""

    container: Container
    sandbox: RunningSandbox
    service_url: str


@contextmanager
def demo_environment(*, fixed_ports: bool) -> Iterator[DemoEnvironment]:
    """Run the sandbox and the service. This does not use the user's settings and data."""
    with tempfile.TemporaryDirectory(prefix="newsletter-demo-") as folder:
        config = SandboxConfig(
            port=_MAILBOX_PORT if fixed_ports and _free(_MAILBOX_PORT) else 0,
            api_keys=frozenset({"SG.demo"}),
            database=Path(folder) / "mailbox.db",
        )
        with start_sandbox(config) as sandbox:
            port = _SERVICE_PORT if fixed_ports and _free(_SERVICE_PORT) else 0
            with listen(_HOST, port) as listening:
                service_url = f"http://{_HOST}:{listening.getsockname()[1]}"
                sandbox.set_webhook_url(f"{service_url}/webhooks/sendgrid/events")
                container = Container(
                    load(_environment(Path(folder), sandbox, service_url)), text_process=True
                )
                with container.writing_traces(), _running(container, listening):
                    yield DemoEnvironment(container, sandbox, service_url)
                container.database.dispose()


def _environment(folder: Path, sandbox: RunningSandbox, service_url: str) -> dict[str, str]:
    return {
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder / 'newsletter.db'}",
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
        "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
        "NEWSLETTER_SITE__NAME": "Engineering @ Scale",
        "NEWSLETTER_SITE__BASE_URL": service_url,
        "NEWSLETTER_SITE__POSTAL_ADDRESS": "Example Street 1, 12345 Example Town",
        "NEWSLETTER_SENDER__EMAIL": "digest@example.com",
        "NEWSLETTER_SENDER__NAME": "Engineering @ Scale",
        "NEWSLETTER_SENDGRID__HOST": sandbox.url,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.demo",
        "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
        "NEWSLETTER_LINKS__KEYS": secrets.token_urlsafe(32),
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": secrets.token_urlsafe(32),
        # A second factor would only delay users of the demo, and its data is deleted at the end.
        "NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false",
    }


def _free(port: int) -> bool:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return False
    return True


@contextmanager
def _running(container: Container, listening: socket.socket) -> Iterator[None]:
    server = server_of(container)
    thread = threading.Thread(target=server.run, args=([listening],), name="service")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise MachineError("the service did not start", hint="See its error above.")
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join()


def people(container: Container, *, engineers: int, leaders: int) -> None:
    """Fill the empty database with sample subscribers in two segments."""
    now = datetime.now(UTC)
    with transaction(container.database) as session:
        topic = Topic(slug="engineering", name="Engineering", description="The daily digest")
        session.add(topic)
        session.flush()
        numbers = range(1, engineers + leaders + 1)
        _add(session, container.address_key, numbers[:engineers], "engineer", now)
        _add(session, container.address_key, numbers[engineers:], "leader", now)
        session.add_all(
            Subscription(subscriber_id=n, topic_id=topic.id, since=now) for n in numbers
        )
        segment_store.save(session, "engineers", 'role == "engineer"', now=now)
        segment_store.save(session, "leaders", 'role == "leader"', now=now)


def owner(container: Container, email: str) -> str:
    """Create an owner of the console; returns the password, which is stored nowhere."""
    password, now = passwords.generated(), datetime.now(UTC)
    hashed = container.passwords.hashed(password)
    with transaction(container.database) as session:
        users.add(
            session,
            email,
            name="Demo",
            role=Role.OWNER,
            max_owners=container.settings.console.max_owners,
            now=now,
            hashed=hashed,
        )
        actor = Actor(None, "newsletter demo")
        audit.record(session, actor, "user created", now=now, subject=email, role=Role.OWNER)
    return password


def _add(session: Session, key: bytes, numbers: range, role: str, now: datetime) -> None:
    rows = []
    for n in numbers:
        name = f"{_FIRST[n % len(_FIRST)]} {_LAST[n * 7 % len(_LAST)]}"
        address = parse(f"reader{n}@{('example.com', 'example.org', 'example.net')[n % 3]}")
        rows.append(
            Subscriber(
                id=n,
                email=address.email,
                address_hash=hash_address(key, address),
                # Some have no name, because an issue must read well for them, too.
                name=name if n % 5 else "",
                attributes={"role": role},
                source="demo",
                created_at=now,
                confirmed_at=now,
            )
        )
    session.add_all(rows)
    session.flush()
