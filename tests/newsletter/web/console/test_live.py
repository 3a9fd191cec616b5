"""The live figures of a send, from a real server: they come, they end, and hold nothing up."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx2 as httpx
import pytest
import uvicorn

from newsletter.accounts import sessions
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.cli.processes.serve import listen
from newsletter.db.engine import transaction
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.planner import plan
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_send
from tests.newsletter.web.conftest import Browser, Office

#: Far more than anything here takes; a wait that long is a failure.
_LONG = 60.0


@pytest.fixture
def going(office: Office) -> int:
    database = office.parts.database
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        for n in range(5):
            add_person(session, f"p{n}@example.org")
    send = make_send(database)
    with transaction(database) as session:
        plan(session, send, now=datetime.now(UTC), batch_size=2)
    return send


@contextmanager
def serving(office: Office) -> Iterator[tuple[str, uvicorn.Server, threading.Thread]]:
    """A server that stops as `newsletter serve` does: after the last answer, however long."""
    config = uvicorn.Config(office.app, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    office.app.state.stopping = lambda: server.should_exit
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server, thread
        server.should_exit = True
        thread.join(_LONG)


@contextmanager
def watching(url: str, browser: Browser, send: int) -> Iterator[Iterator[str]]:
    """The stream's lines, as the page of a send under way asks for them."""
    path = f"{url}/console/sends/{send}/live?state=sending"
    with (
        httpx.Client(cookies={"console": browser.token}, timeout=_LONG) as client,
        client.stream("GET", path) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.iter_lines()


def until(lines: Iterator[str], words: str) -> None:
    """Read on until a line holds these words."""
    for line in lines:
        if words in line:
            return
    pytest.fail(f"the stream ended without {words!r}")


@pytest.mark.slow
def test_figures_come_as_they_change_and_end_with_the_state(office: Office, going: int) -> None:
    database = office.parts.database
    viewer = office.signed_in(Role.VIEWER)
    with serving(office) as (url, _, _), watching(url, viewer, going) as lines:
        until(lines, "5 waiting")
        dispatcher(database, FakeGateway()).send_next()
        until(lines, "2 accepted")
        with transaction(database) as session:
            send_lifecycle.pause(
                session, going, by=Actor(None, "operator"), reason="enough", now=NOW
            )
        until(lines, "event: over")
        assert [line for line in lines if line.strip()] == ["data: over"]


@pytest.mark.slow
def test_who_is_signed_out_sees_no_more(office: Office, going: int) -> None:
    viewer = office.signed_in(Role.VIEWER)
    with serving(office) as (url, _, _), watching(url, viewer, going) as lines:
        until(lines, "event: progress")
        with transaction(office.parts.database) as session:
            one = sessions.find(
                session,
                viewer.token,
                idle=office.parts.settings.console.idle_time,
                now=datetime.now(UTC),
            )
            assert one is not None
            sessions.end_all(session, one.user_id)
        until(lines, "event: over")


@pytest.mark.slow
def test_many_who_watch_leave_room_for_others_and_for_the_end(office: Office, going: int) -> None:
    viewers = [office.signed_in(Role.VIEWER) for _ in range(12)]
    viewer = viewers[0]
    with serving(office) as (url, server, thread):
        streams = [watching(url, one, going) for one in viewers for _ in range(4)]
        opened = [stream.__enter__() for stream in streams]
        for lines in opened:
            until(lines, "event: progress")
        # More than the pool has threads, and it still answers.
        answer = httpx.get(f"{url}/console/sends", cookies={"console": viewer.token}, timeout=_LONG)
        assert answer.status_code == 200
        server.should_exit = True
        thread.join(_LONG)
        assert not thread.is_alive(), "the server waits for those who watch"
        for stream in streams:
            stream.__exit__(None, None, None)


def test_one_session_has_few_streams_and_takes_none_from_others(office: Office, going: int) -> None:
    viewer, other = office.signed_in(Role.VIEWER), office.signed_in(Role.VIEWER)
    path = f"/console/sends/{going}/live?state=sending"
    with serving(office) as (url, _, _):
        streams = [watching(url, viewer, going) for _ in range(4)]
        opened = [stream.__enter__() for stream in streams]
        for lines in opened:
            until(lines, "event: progress")
        refused = httpx.get(url + path, cookies={"console": viewer.token}, timeout=_LONG)
        assert refused.status_code == 429
        with watching(url, other, going) as lines:
            until(lines, "event: progress")
        for stream in streams:
            stream.__exit__(None, None, None)
        # What was closed is noticed at the next look.
        end = time.monotonic() + _LONG
        while office.app.state.streams and time.monotonic() < end:
            time.sleep(0.05)
        with watching(url, viewer, going) as lines:
            until(lines, "event: progress")
