"""What a process takes from its machine: files, and room for a log."""

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from newsletter.cli.processes.log_rate_limit import Repeats
from newsletter.cli.processes.open_files import BACKLOG, connections_within
from newsletter.provider.gateway import NotSent
from newsletter.provider.sendgrid import SendGridGateway
from tests.newsletter.provider.test_sendgrid import REQUEST


def test_the_file_limit_is_raised_to_what_is_allowed() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))

    program = (
        "import resource; from newsletter.cli.processes.open_files import raise_limit; "
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


def test_a_json_log_has_a_line_for_each_message_with_its_ids_and_no_address() -> None:
    program = """
import logging
from newsletter.cli.processes import log_format
logging.basicConfig(format="%(message)s")
log_format.install("json")
log = logging.getLogger("newsletter.sending")
log_format.say("begun · Ctrl-C stops it")
ids = {"send": 7, "batch": 3}
log.warning("send %s, batch %s: refused for a@example.org", 7, 3, extra=ids)
try:
    raise ValueError("no such user <b@example.org>")
except ValueError:
    log.exception("two\\nlines")
logging.getLogger("somebody.else").info("not logged")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    said, refused, failed = lines
    assert said["message"] == "begun · Ctrl-C stops it"
    assert (refused["level"], refused["logger"]) == ("warning", "newsletter.sending")
    assert (refused["send"], refused["batch"]) == (7, 3)
    assert refused["message"] == "send 7, batch 3: refused for …"
    assert datetime.fromisoformat(refused["time"]).utcoffset() == timedelta(0)
    assert failed["message"] == "two\nlines"
    assert "ValueError" in failed["exception"]
    assert "send" not in failed
    assert "@" not in done.stderr


@pytest.mark.slow
def test_a_service_can_log_json(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    environment |= {"NEWSLETTER_LOGGING__FORMAT": "json", "PATH": os.environ["PATH"]}
    with log.open("w") as file:
        service = subprocess.Popen(
            [Path(sys.executable).with_name("newsletter"), "serve", "--port", "0"],
            env=environment,
            stderr=file,
            cwd=tmp_path,
        )
    deadline = time.monotonic() + 30
    while "runs the clock" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.terminate()
    assert service.wait(30) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any("newsletter is at" in line["message"] for line in lines)
