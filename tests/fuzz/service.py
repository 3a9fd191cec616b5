"""`newsletter serve` as a process of its own, and what can be seen of it from outside."""

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import select

from newsletter.accounts import sessions, users
from newsletter.accounts.models import Role, SignInStage, User
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.links import Purpose
from newsletter.settings.load import load
from newsletter.web.console.base import session_cookie
from tests.conftest import ADDRESS_KEY, LINK_KEY, add_person

NEWSLETTER = Path(sys.executable).with_name("newsletter")
INBOUND_KEY = "k" * 32


@dataclass
class Service:
    """A running service, and one subscriber and one owner whom it knows."""

    process: subprocess.Popen[bytes]
    url: str
    parts: Container
    log: Path
    #: Of the subscriber's links.
    token: str
    owner: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its socket."""
        found = urlsplit(self.url)
        return found.hostname or "", found.port or 0

    @property
    def memory(self) -> int:
        """Bytes that the process holds (Linux: VmRSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    @property
    def files(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def sign_in(self) -> tuple[str, str]:
        """A session of the owner: its cookie, and the token that its forms carry."""
        with transaction(self.parts.database) as session:
            token = _session_of(session, self.owner)
        return token, session_cookie.form_token(self.parts.form_keys, token)


def _session_of(session: Session, owner: int) -> str:
    return sessions.begin(
        session,
        owner,
        SignInStage.FULL,
        lasts=timedelta(hours=9),
        now=datetime.now(UTC),
        ip="127.0.0.1",
        browser="Test",
    )


@contextmanager
def running(folder: Path, *, files: int | None = None, **more: str) -> Iterator[Service]:
    """Start the service on a database of its own in ``folder``, with ``files`` as hard limit."""
    environment = {
        "PATH": os.environ["PATH"],
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder}/newsletter.db",
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        "NEWSLETTER_INBOUND__KEY": INBOUND_KEY,
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
        "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
        "NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false",
        "NEWSLETTER_CONSOLE__HASH_MEMORY": "8",
        "NEWSLETTER_CONSOLE__HASH_ROUNDS": "1",
        **more,
    }
    parts = Container(load(environment))
    table = table_of(User)
    with transaction(parts.database) as session:
        reader = add_person(session, "reader@example.org", name="Reader")
        owner = session.scalar(select(table.c.id).where(table.c.email == "owner@example.org"))
        if owner is None:
            owner = users.add(
                session,
                "owner@example.org",
                name="",
                role=Role.OWNER,
                max_owners=9,
                now=datetime.now(UTC),
            ).id
    log = folder / "serve.log"

    def limited() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 1024), files))

    with log.open("wb") as out:
        process = subprocess.Popen(
            [NEWSLETTER, "serve", "--port", "0"],
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=out,
            preexec_fn=limited,
        )
    try:
        url = _listening(process, log)
        token = parts.links.token(Purpose.RECIPIENT, 1, reader)
        yield Service(process, url, parts, log, token, owner)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        parts.database.dispose()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    def found() -> bool:
        assert process.poll() is None, log.read_text()
        return re.search(r"newsletter is at (\S+)", log.read_text()) is not None

    until(found)
    match = re.search(r"newsletter is at (\S+)", log.read_text())
    assert match
    return match[1]


def until(holds: Callable[[], bool], *, seconds: float = 120) -> None:
    """Return when it holds; AssertionError when that takes too long for any machine."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
