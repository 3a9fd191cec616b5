"""Work on texts apart from the service: limited in time and memory, and nobody else waits."""

import os
import re
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from newsletter.assembly import Assembly
from newsletter.errors import IssueError
from newsletter.issues.comparing import compare
from newsletter.issues.reading import parse_issue
from newsletter.settings import load
from newsletter.text_workers import TextWorkers, TooMuchWorkError, here
from newsletter.web.app import create_app

#: Never ends, and lets no other thread of its process run.
FOREVER = ("(a+)+b", "a" * 60)


@pytest.fixture
def workers() -> Iterator[TextWorkers]:
    made = TextWorkers(time_limit=60.0)
    yield made
    made.stop()


def test_what_is_done_apart_is_what_is_done_here(workers: TextWorkers) -> None:
    text = "---\nsubject: Hello\n---\nWords"
    assert workers(parse_issue, text, name="a.md") == here(parse_issue, text, name="a.md")
    assert workers(compare, "one\ntwo", "one\nthree") == compare("one\ntwo", "one\nthree")


def test_an_error_comes_back_with_its_place_and_remedy(workers: TextWorkers) -> None:
    with pytest.raises(IssueError) as caught:
        workers(parse_issue, "---\nsubject: Issue #665\n---\nWords", name="a.md")
    assert caught.value.place == "a.md:2"
    assert "quotes" in (caught.value.hint or "")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        workers(divmod, 1, 0)
    assert workers(len, "abc") == 3


def test_one_process_serves_one_after_the_other(workers: TextWorkers) -> None:
    first = workers(os.getpid)
    assert first != os.getpid()
    assert workers(os.getpid) == first


def test_a_process_knows_no_secrets(workers: TextWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSLETTER_SENDGRID__API_KEY", "SG.secret")
    assert workers(os.getenv, "NEWSLETTER_SENDGRID__API_KEY") is None
    assert workers(os.getenv, "PATH")


def test_what_takes_too_long_is_given_up_and_the_next_is_done(workers: TextWorkers) -> None:
    workers(len, "")
    workers.time_limit = 0.5
    with pytest.raises(TooMuchWorkError, match=r"longer than 0\.5 seconds") as caught:
        workers(re.fullmatch, *FOREVER)
    assert caught.value.hint
    workers.time_limit = 60.0
    assert workers(len, "abc") == 3


def test_what_takes_too_much_memory_is_given_up_and_the_next_is_done(workers: TextWorkers) -> None:
    with pytest.raises(TooMuchWorkError, match="more memory"):
        workers(bytearray, 3_000_000_000)
    assert workers(len, "abc") == 3


def test_a_process_that_was_killed_is_replaced(workers: TextWorkers) -> None:
    os.kill(workers(os.getpid), 9)
    assert workers(len, "abc") == 3


def test_few_wait_and_the_others_are_told_so() -> None:
    workers = TextWorkers(waiting=0, time_limit=60.0)
    ended: list[str] = []

    def wait() -> None:
        try:
            workers(re.fullmatch, *FOREVER)
        except TooMuchWorkError as error:
            ended.append(error.message)

    thread = threading.Thread(target=wait)
    thread.start()
    with pytest.raises(TooMuchWorkError, match="too many texts"):
        while thread.is_alive():
            workers(len, "abc")  # as long as the other has not begun
    workers.stop()
    thread.join(60)
    assert ended == ["the service is stopping"]


def test_the_service_answers_meanwhile_and_ends_when_it_is_told(
    environment: dict[str, str], database: Engine
) -> None:
    parts = Assembly(load(environment), apart=True)
    workers = parts.on_text
    assert isinstance(workers, TextWorkers)
    child = workers(os.getpid)
    stop = threading.Event()
    workers.stopping = stop.is_set
    ended: list[str] = []

    def wait() -> None:
        try:
            workers(re.fullmatch, *FOREVER)
        except TooMuchWorkError as error:
            ended.append(error.message)

    thread = threading.Thread(target=wait)
    thread.start()
    with TestClient(create_app(parts, background=False)) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
        assert thread.is_alive()
        stop.set()
        thread.join(60)
        assert ended == ["the service is stopping"]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    parts.database.dispose()
