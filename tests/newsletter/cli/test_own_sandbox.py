"""`newsletter serve --sandbox`: one process, a mailbox, and nothing that leaves the machine."""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.forking import command
from tests.newsletter.cli.test_commands import ISSUE, Run, complaint, run
from tests.pseudo_terminal import Terminal

__all__ = ["run"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@pytest.mark.parametrize("host", ["https://api.sendgrid.com", "http://192.0.2.1:8025"])
def test_it_never_sends_elsewhere(run: Run, tmp_path: Path, host: str) -> None:
    said = complaint(run("serve", "--sandbox", NEWSLETTER_SENDGRID__HOST=host), 2)
    assert f"sendgrid.host: is {host}" in said
    assert "newsletter init --sandbox" in said
    assert not (tmp_path / "data").exists()


def test_missing_keys_are_named(run: Run) -> None:
    nothing = {"NEWSLETTER_LINKS__KEYS": "", "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ""}
    said = complaint(run("serve", "--sandbox", **nothing), 2)
    assert "links.keys is not set" in said
    assert "subscribers.address_key is not set" in said


def test_a_port_in_use_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(
            run("serve", "--sandbox", NEWSLETTER_SENDGRID__HOST=f"http://127.0.0.1:{port}"), 6
        )
    assert f"127.0.0.1:{port}" in said
    assert "sendgrid.host" in said


@pytest.mark.slow
def test_other_commands_send_to_its_mailbox_and_its_events_count(tmp_path: Path) -> None:
    mailbox, service = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "NEWSLETTER_SENDGRID__HOST": f"http://127.0.0.1:{mailbox}",
    }

    def newsletter(words: str) -> subprocess.CompletedProcess[str]:
        done = command(shlex.split(words), environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    newsletter(
        "init --sandbox --name News --sender-email me@example.org "
        f"--base-url http://127.0.0.1:{service}"
    )
    (tmp_path / "issue.md").write_text(ISSUE)
    (tmp_path / "people.csv").write_text("email\nada@example.org\nbounce@example.org\n")
    serve = ["serve", "--sandbox", "--port", str(service)]
    with Terminal(serve, environment=environment, folder=tmp_path, columns=200) as terminal:
        terminal.wait_for(f"mailbox: http://127.0.0.1:{mailbox}")
        assert "emails reach no real inbox" in terminal.words
        newsletter("subscribers import people.csv --confirmed --wording asked")
        newsletter("segment create everybody")
        newsletter("send issue.md --segment everybody")
        deadline = time.monotonic() + 60
        while '"people_bounced": 1' not in (said := newsletter("stats show 1 --json").stdout):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{mailbox}/sandbox/accepted") as answer:
            lines = [json.loads(line) for line in answer]
        terminal.signal(signal.SIGINT)
        assert terminal.end() == 0, terminal.said
        assert "Traceback" not in terminal.said
    assert sorted(line["email"] for line in lines) == ["ada@example.org", "bounce@example.org"]
    # Emails stay in the mailbox, for their owner only.
    kept = tmp_path / "data" / "sandbox.db"
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_without_it_a_silent_address_on_this_machine_is_named(run: Run, tmp_path: Path) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": host,
    }
    with Terminal(
        ["serve", "--port", "0"], environment=environment, folder=tmp_path, columns=200
    ) as terminal:
        terminal.wait_for(f"Nothing answers at {host} yet")
        terminal.signal(signal.SIGINT)
        assert terminal.end() == 0, terminal.said
    (tmp_path / "issue.md").write_text(ISSUE)
    (tmp_path / "people.csv").write_text("email\nada@example.org\n")
    for words in ("subscribers import people.csv --confirmed", "segment create all"):
        assert run(*words.split()).returncode == 0
    send = "send issue.md --segment all".split()
    with Terminal(send, environment=environment, folder=tmp_path, columns=200) as terminal:
        terminal.wait_for(f"Nothing answers at {host} yet")
        assert "newsletter serve --sandbox" in terminal.words
        terminal.signal(signal.SIGINT)
        terminal.end()
