"""Texts that take forever, in `newsletter serve`: everybody but their author notices nothing.

What a template computes holds the interpreter of the process that renders, until it is done:
nothing else of that process runs meanwhile.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import select

from newsletter.accounts import sessions, users
from newsletter.accounts.models import Role, SignInStage
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.links import Purpose
from newsletter.settings.load import load, resource
from newsletter.text_workers import TextWorkers
from newsletter.tracking.models import EventRow
from newsletter.web.console.base import session_cookie
from subscribers.models import Suppression
from tests.conftest import add_person
from tests.newsletter.web.hooks.test_sendgrid_events import EVENT, PUBLIC, body_of, signed

NEWSLETTER = Path(sys.executable).with_name("newsletter")
TEXT = "---\nsubject: {words}\nslug: {slug}\n---\n\nGood day, {{{{ name }}}}.\n"
#: The remainder takes minutes, and lets no other thread run; of other titles it is not asked.
ENDLESS = (
    '{% if "Endless" in title %}{% set n = title|length * 1500000 %}'
    "{{ 7 ** n % 3 ** n }}{% endif %}"
)
ISSUES = "/console/issues"


@dataclass(frozen=True)
class Running:
    """A service as a process of its own, and what an editor asks it with."""

    process: subprocess.Popen[bytes]
    url: str
    said: Path
    cookie: str
    csrf: str

    def get(self, path: str) -> httpx.Response:
        return self._ask("GET", path)

    def post(self, path: str, **data: str) -> httpx.Response:
        return self._ask("POST", path, data={"csrf": self.csrf, **data})

    def _ask(self, method: str, path: str, **more: Mapping[str, str]) -> httpx.Response:
        headers = {"accept": "text/html", "cookie": f"console={self.cookie}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=120, **more)

    @property
    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def end(self, number: signal.Signals) -> str:
        """Send this to the whole process group, as a terminal does; returns all it has said."""
        os.killpg(self.process.pid, number)
        self.process.wait(60)
        return self.said.read_text()


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def is_there(pid: int) -> bool:
    """Whether it runs; one that has ended may stand in the list until somebody asks for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.05)


@pytest.fixture
def parts(environment: dict[str, str], tmp_path: Path) -> Iterator[Container]:
    templates = tmp_path / "templates"
    shutil.copytree(resource("templates/email"), templates)
    letter = templates / "letter.mjml"
    letter.write_text(letter.read_text().replace("{{ body }}", ENDLESS + "{{ body }}"))
    environment |= {
        "NEWSLETTER_TEMPLATES__DIRECTORY": str(templates),
        "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": PUBLIC,
        "NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false",
    }
    made = Container(load(environment))
    now = datetime.now(UTC)
    with transaction(made.database) as session:
        for words in ("Endless", "Short"):
            text = TEXT.format(words=words, slug=words.lower())
            draft = parse_issue(text, name="a.md")
            store.save(session, draft, by=COMMAND_LINE, now=now)
    yield made
    made.database.dispose()


@contextmanager
def serving(parts: Container, environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    now, said = datetime.now(UTC), folder / "said"
    with transaction(parts.database) as session:
        hashed = parts.passwords.hashed("correct horse battery staple")
        editor = users.add(
            session,
            "e@example.org",
            name="",
            role=Role.EDITOR,
            max_owners=9,
            now=now,
            hashed=hashed,
        ).id
        assert editor is not None
        lasts = parts.settings.console.absolute_time
        token = sessions.begin(
            session, editor, SignInStage.FULL, lasts=lasts, now=now, ip="192.0.2.9", browser="Test"
        )
    with said.open("wb") as log:
        process = subprocess.Popen(
            [NEWSLETTER, "serve", "--port", "0"],
            env={"PATH": os.environ["PATH"], **environment},
            cwd=folder,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: "newsletter is at" in said.read_text() or process.poll() is not None)
        url = said.read_text().split("newsletter is at ")[1].split()[0]
        csrf = session_cookie.form_token(parts.form_keys, token)
        yield Running(process, url, said, token, csrf)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)


def asked_endlessly(service: Running, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """More than may wait: previews, checks, mails and tests of a text that takes forever."""
    text = TEXT.format(words="Endless", slug="endless")
    asked = [
        threads.submit(service.get, f"{ISSUES}/endless/preview"),
        threads.submit(service.get, f"{ISSUES}/endless/preview?part=text"),
        threads.submit(service.post, f"{ISSUES}/endless/preview", to="e@example.org"),
        *(threads.submit(service.post, f"{ISSUES}/_check", text=text) for _ in range(3)),
        *(threads.submit(service.post, f"{ISSUES}/_mail", text=text) for _ in range(2)),
        threads.submit(service.post, f"{ISSUES}/endless/edit", text=text, base="1", do="check"),
    ]
    assert len(asked) == most() + 2
    return asked


def most() -> int:
    workers = TextWorkers()
    return workers.processes + workers.waiting


@pytest.mark.slow
def test_others_are_served_while_texts_take_forever(
    parts: Container, environment: dict[str, str], tmp_path: Path
) -> None:
    with transaction(parts.database) as session:
        person = add_person(session, "alice@example.org")
    one_click = f"/unsubscribe/{parts.links.token(Purpose.RECIPIENT, 1, person)}"
    body = body_of(EVENT, {**EVENT, "event": "open"})
    with ThreadPoolExecutor(16) as threads, serving(parts, environment, tmp_path) as service:
        asked = asked_endlessly(service, threads)
        # Those for whom there is no room are told so at once; all others wait.
        until(lambda: sum(one.done() for one in asked) == 2)
        for answer in (one.result() for one in asked if one.done()):
            assert f"{most()} texts are being processed or waiting" in answer.text
        until(lambda: service.children)
        for _ in range(3):
            assert httpx.get(f"{service.url}/healthz", timeout=60).json() == {"status": "ok"}
        left = httpx.post(
            service.url + one_click, data={"List-Unsubscribe": "One-Click"}, timeout=60
        )
        assert left.status_code == 200
        events = httpx.post(
            f"{service.url}/webhooks/sendgrid/events",
            content=body,
            headers=signed(body),
            timeout=60,
        )
        assert json.loads(events.text)["new"] == 2
        # All that was answered before a single one of the texts was given up.
        waiting = [one for one in asked if not one.done()]
        assert len(waiting) == most()
        with reading(parts.database) as session:
            gone = session.scalars(select(table_of(Suppression).c.address_hash)).all()
            stored = set(session.scalars(select(table_of(EventRow).c.kind)).all())
        assert gone == [parts.hash_of("alice@example.org")]
        assert stored >= {"delivered", "open"}

        done, _ = wait(waiting, timeout=120, return_when=FIRST_COMPLETED)
        # By the processor or, where the machine is busy, by the clock: the limit is named.
        assert re.search("20 (seconds )?of processor time", done.pop().result().text)
        # The next one has its turn, and the service is told to end in the middle of that.
        until(lambda: service.children)
        texts = service.children
        assert len(texts) == 1
        said = service.end(signal.SIGTERM)
        assert any("service is stopping" in one.result().text for one in waiting)
    assert "Traceback" not in said
    assert not is_there(texts[0])


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_killed_process_fails_one_text_and_the_service_ends_without_a_trace(
    number: signal.Signals, parts: Container, environment: dict[str, str], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as threads, serving(parts, environment, tmp_path) as service:
        assert service.children == []  # none before there is work
        failing = threads.submit(service.get, f"{ISSUES}/endless/preview")
        until(lambda: service.children)
        [first] = service.children
        # Longer than it takes to start: it is in the middle of the text.
        until(lambda: processor_seconds(first) > 4)
        assert not failing.done()
        os.kill(first, signal.SIGKILL)
        answer = failing.result()
        assert answer.status_code == 200
        assert "was ended or crashed (SIGKILL)" in answer.text
        shown = service.get(f"{ISSUES}/short/mail")
        assert "Good day, Robin Example" in shown.text
        [second] = service.children
        assert second != first

        broken_off = threads.submit(service.get, f"{ISSUES}/endless/preview")
        worked = processor_seconds(second)
        until(lambda: processor_seconds(second) > worked + 1)
        said = service.end(number)
        assert "service is stopping" in broken_off.result().text
    assert "Traceback" not in said
    assert not is_there(second)


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_without_work_ends_with_a_service_that_was_killed(
    parts: Container, environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(parts, environment, tmp_path) as service:
        assert "Good day" in service.get(f"{ISSUES}/short/mail").text
        [child] = service.children
        service.end(signal.SIGKILL)
        until(lambda: not is_there(child))
