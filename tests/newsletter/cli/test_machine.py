"""What a process takes from its machine: files, and room for a log."""

import logging
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from newsletter.cli.service.log_rate_limit import Repeats
from newsletter.cli.service.open_files import BACKLOG, connections_within
from newsletter.provider.gateway import NotSent
from newsletter.provider.sendgrid import SendGridGateway
from tests.newsletter.provider.test_sendgrid import REQUEST


def test_the_file_limit_is_raised_to_what_is_allowed() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))

    program = (
        "import resource; from newsletter.cli.service.open_files import raise_limit; "
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=limited, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"2000", b"2000", b"2000"]


@pytest.mark.parametrize("files", [256, 1024, 4096, 65536])
def test_connections_leave_room_for_our_own_files(files: int) -> None:
    most = connections_within(files, most=1000)
    assert 10 <= most <= 1000
    if files >= 1024:
        assert files - 2 * most - BACKLOG >= 200


@contextmanager
def no_free_file() -> Iterator[None]:
    """Not one more file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_free_file_nothing_has_left() -> None:
    for host in ("http://127.0.0.1:9", "https://127.0.0.1:9", "https://localhost:9"):
        gateway = SendGridGateway(api_key="SG.x", host=host, timeout=timedelta(seconds=5))
        with no_free_file():
            with pytest.raises(OSError, match="Too many open files"):
                Path("/dev/null").read_bytes()
            outcome = gateway.send(REQUEST)
        assert isinstance(outcome, NotSent), outcome


def line(message: str, *values: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("newsletter.test", level, "f.py", 1, message, values, None)


def test_a_log_that_would_repeat_says_how_often_instead() -> None:
    repeats, begin = Repeats(), datetime(2026, 3, 27, tzinfo=UTC)
    with time_machine.travel(begin, tick=False) as clock:
        written = [one for n in range(1000) if repeats.filter(one := line("from %s", n))]
        assert [one.getMessage() for one in written] == [f"from {n}" for n in range(20)]
        assert repeats.filter(line("something else"))
        assert repeats.filter(line("from %s", 1, level=logging.ERROR))
        clock.shift(61)
        after = line("from %s", 1000)
        assert repeats.filter(after)
        assert after.getMessage() == "from 1000 (980 more like this were dropped)"
