"""Work on texts apart from the service: limited in time and memory, and nobody else waits."""

import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.errors import BusyError, IssueError
from newsletter.issues.diff import compare
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.settings.load import load
from newsletter.text_workers import TextWorkers, TooMuchWorkError
from newsletter.web.app import create_app

#: Never ends, and lets no other thread of its process run.
FOREVER = ("(a+)+b", "a" * 60)


@pytest.fixture
def workers() -> Iterator[TextWorkers]:
    made = TextWorkers(time_limit=60.0)
    yield made
    made.stop()


@pytest.mark.slow
def test_what_is_done_apart_is_what_is_done_here(workers: TextWorkers) -> None:
    text = "---\nsubject: Hello\n---\nWords"
    assert workers(parse_issue, text, name="a.md") == parse_issue(text, name="a.md")
    assert workers(compare, "one\ntwo", "one\nthree") == compare("one\ntwo", "one\nthree")


@pytest.mark.slow
def test_an_error_comes_back_with_its_place_and_remedy(workers: TextWorkers) -> None:
    with pytest.raises(IssueError) as caught:
        workers(parse_issue, "---\nsubject: Issue #665\n---\nWords", name="a.md")
    assert caught.value.place == "a.md:2"
    assert "quotes" in (caught.value.hint or "")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        workers(divmod, 1, 0)
    assert workers(len, "abc") == 3


@pytest.mark.slow
def test_one_process_serves_one_after_the_other(workers: TextWorkers) -> None:
    first = workers(os.getpid)
    assert first != os.getpid()
    assert workers(os.getpid) == first


@pytest.mark.slow
def test_a_process_is_told_no_secrets(
    workers: TextWorkers, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"NEWSLETTER_SENDGRID__API_KEY": "SG.secret", "PGPASSWORD": "secret"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
        assert workers(os.getenv, name) is None
    assert workers(os.getenv, "PATH")
    parts = Container(load(environment))
    for told in (parts.checker.examine_text, parts.checker.examine):
        words = pickle.dumps(told)
        for key, value in environment.items():
            if key.endswith(("KEY", "KEYS")):
                assert value.encode() not in words


@pytest.mark.slow
def test_nothing_is_imported_from_the_folder_where_the_service_runs(
    workers: TextWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lxml.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    assert workers(len, "abc") == 3


@pytest.mark.slow
def test_what_takes_too_long_is_given_up_and_the_next_is_done() -> None:
    workers = TextWorkers(time_limit=1.0)
    # Where the machine has other work as well, the clock may run out before.
    with pytest.raises(
        (TooMuchWorkError, BusyError), match=r"\b1 (seconds )?of processor"
    ) as caught:
        workers(re.fullmatch, *FOREVER)
    assert "horten" in (caught.value.hint or "")
    workers.time_limit = 60.0
    assert workers(len, "abc") == 3
    workers.stop()


@pytest.mark.slow
def test_a_text_is_given_up_by_the_clock_where_it_gets_no_processor_time(
    workers: TextWorkers,
) -> None:
    workers(len, "")
    workers.time_limit = 0.1
    with pytest.raises(BusyError, match=r"within 0\.2 seconds: it may use 0\.1 of processor time"):
        workers(time.sleep, 3600)
    workers.time_limit = 60.0
    assert workers(len, "abc") == 3


@pytest.mark.slow
def test_what_takes_too_much_memory_is_given_up_and_the_next_is_done(workers: TextWorkers) -> None:
    with pytest.raises(TooMuchWorkError, match=r"more than 1\.5 GB of memory"):
        workers(bytearray, 3_000_000_000)
    assert workers(len, "abc") == 3


@pytest.mark.slow
def test_a_process_that_was_killed_without_work_is_replaced(workers: TextWorkers) -> None:
    os.kill(workers(os.getpid), signal.SIGKILL)
    assert workers(len, "abc") == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_ends_in_the_middle_fails_this_text_and_the_next_is_done(
    workers: TextWorkers, number: signal.Signals
) -> None:
    with pytest.raises(TooMuchWorkError, match=rf"ended or crashed \({number.name}\)") as caught:
        workers(signal.raise_signal, number)
    assert caught.value.hint
    assert workers(len, "abc") == 3


@pytest.mark.slow
def test_an_end_that_a_service_manager_asked_for_is_not_the_texts_fault(
    workers: TextWorkers,
) -> None:
    workers(signal.raise_signal, signal.SIGINT)  # of a whole group: the service ends its process
    with pytest.raises(BusyError, match="SIGTERM"):
        workers(signal.raise_signal, signal.SIGTERM)
    assert workers(len, "abc") == 3


def at_work_forever(workers: TextWorkers) -> tuple[threading.Thread, list[str]]:
    """A thread that waits for an endless text, and what ends it."""
    ended: list[str] = []

    def wait() -> None:
        try:
            workers(re.fullmatch, *FOREVER)
        except BusyError as error:
            ended.append(error.message)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, ended


def test_few_wait_and_the_others_are_told_so() -> None:
    workers = TextWorkers(waiting=0, time_limit=60.0)
    thread, ended = at_work_forever(workers)
    with pytest.raises(BusyError, match="1 texts are being processed"):
        while thread.is_alive():
            workers(len, "abc")  # as long as the other has not begun
    workers.stop()
    thread.join(60)
    assert ended == ["the service is stopping"]


@pytest.mark.slow
def test_the_service_answers_meanwhile_and_ends_when_it_is_told(
    environment: dict[str, str], database: Engine
) -> None:
    parts = Container(load(environment), text_process=True)
    workers = parts.text_workers
    child = workers(os.getpid)
    stop = threading.Event()
    workers.stopping = stop.is_set
    thread, ended = at_work_forever(workers)
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
