"""The commands of the README and of the quick start, typed on terminals as they are there."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.pseudo_terminal import ESCAPE

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
INSTALL = "make install && . .venv/bin/activate\n"
ACTIVATE = ". .venv/bin/activate && "


class Shell:
    """A shell on a terminal of its own, which is given lines and ends at the first that fails."""

    def __init__(self, script: str, folder: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self._pieces: list[str] = []
        told = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "xterm-256color",
            **environment,
        }
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-c", script],
            cwd=folder,
            env=told,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def said(self) -> str:
        return ESCAPE.sub("", "".join(self._pieces))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first place where what it printed fits."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.said)):
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return found

    def interrupt(self) -> None:
        """Ctrl-C, and wait for the end."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        with suppress(OSError):  # the other side has closed it
            while piece := os.read(self._master, 65536):
                self._pieces.append(piece.decode(errors="replace"))


@contextmanager
def shell(script: str, folder: Path, **environment: str) -> Iterator[Shell]:
    opened = Shell(script, folder, **environment)
    try:
        yield opened
    finally:
        opened.interrupt()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def free_ports() -> dict[str, str]:
    """The settings of the service and its mailbox: the ports of the pages may be in use here."""
    mailbox, port = free_port(), free_port()
    return {
        "NEWSLETTER_SENDGRID__HOST": f"http://127.0.0.1:{mailbox}",
        "NEWSLETTER_SITE__BASE_URL": f"http://127.0.0.1:{port}",
        "NEWSLETTER_WEB__PORT": str(port),
    }


@pytest.mark.slow
def test_send_your_own_issue(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## Send your own issue")[1].split("\n## ")[0]
    first, second, real = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    assert "asks for SendGrid's API key" in real  # which has no place in a test
    shutil.copytree(ROOT / "issues", tmp_path / "issues")
    assert typed(first, second, tmp_path) == ["ada@example.org", "ben@example.org"]


@pytest.mark.slow
def test_quick_start(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quick-start.md").read_text()
    first, second = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    (issue,) = re.findall(r"^```markdown\n(.*?)^```", page, re.M | re.S)
    to = typed(first, second, tmp_path, **{"hello.md": issue})
    assert to == ["ada@example.org", "bounce@example.org", "open@example.org"]


def typed(first: str, second: str, folder: Path, **files: str) -> list[str]:
    """Type what starts the service, then the other commands; who was sent an email."""
    # What the walk itself runs in is installed already.
    assert first.count(INSTALL) == 1
    assert second.count(ACTIVATE) == 1
    first, second = first.replace(INSTALL, ""), second.replace(ACTIVATE, "")
    ports = free_ports()
    mailbox, url = ports["NEWSLETTER_SENDGRID__HOST"], ports["NEWSLETTER_SITE__BASE_URL"]
    with shell(first, folder, **ports) as service:
        service.wait_for("mailbox: ")
        assert f"{url}/console/setup/" in service.said
        for name, text in files.items():
            (folder / "my-newsletter" / name).write_text(text)
        with shell(f"{second}\necho all done", folder, **ports) as commands:
            commands.wait_for(r"all done\s")
            assert "Traceback" not in commands.said
            assert "0 block" in commands.said
            # The events of the stand-in may come before the figures are printed.
            assert re.search("accepted|delivered", commands.said), commands.said
        assert (folder / "my-newsletter" / "preview" / "issue.html").is_file()
        accepted = read(f"{mailbox}/sandbox/accepted")
        assert read(f"{url}/healthz")
        link = service.wait_for(r"http://\S+/console/setup/\S+")[0]
        assert "Set up your newsletter" in read(link)
    assert "Traceback" not in service.said
    return sorted(json.loads(line)["email"] for line in accepted.splitlines())


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
    return text
