"""A real `newsletter serve` that is idle writes nothing, and is awake at once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.newsletter.scheduling.test_leader_clock import state, until
from tests.newsletter.sending.conftest import five, make_send

__all__ = ["five"]

NEWSLETTER = Path(sys.executable).with_name("newsletter")


@pytest.fixture
def serve(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts services as processes of their own, and ends them."""
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        log = tmp_path / f"serve{len(started)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [NEWSLETTER, "serve", "--port", "0"],
                env={"PATH": os.environ["PATH"], **environment},
                stderr=file,
                cwd=tmp_path,
            )
        started.append(process)
        assert until(lambda: "newsletter is at" in log.read_text(), 30)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def commits(database: Engine) -> object:
    """What differs after each commit."""
    if database.dialect.name == "sqlite":
        path = database.url.database
        files = [Path(f"{path}{end}").stat() for end in ("", "-wal")]
        return [(file.st_size, file.st_mtime_ns) for file in files]
    with database.connect() as connection:
        return connection.scalar(text("SELECT pg_current_snapshot()::text"))


@pytest.mark.slow
def test_an_idle_service_commits_nothing_and_starts_a_send_of_another_process_at_once(
    database: Engine, five, serve
) -> None:
    serve()
    time.sleep(6)
    before = commits(database)
    time.sleep(6)
    assert commits(database) == before
    send = make_send(database, at=datetime.now(UTC))
    assert until(lambda: state(database, send) != "scheduled", 3)


@pytest.mark.slow
def test_a_killed_holder_of_the_clock_is_replaced_within_seconds(
    database: Engine, five, serve
) -> None:
    first = serve()
    time.sleep(4)
    serve()
    first.kill()
    first.wait()
    send = make_send(database, at=datetime.now(UTC))
    assert until(lambda: state(database, send) != "scheduled", 6)
