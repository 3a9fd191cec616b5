"""The production quick start of docs/guides/deploy.md, with its real names and real TLS.

The service runs as its unit says, with the settings that `newsletter init` makes. A tunnel stands
for the internet: all names lead to Caddy, whose own authority signs their certificates. Behind it
are the service and, as api.sendgrid.com, the stand-in for SendGrid.
"""

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from html import unescape
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pyotp
import pytest

from tests.newsletter.web.conftest import PASSWORD
from tests.newsletter.web.test_base_path_walk import Reader
from tests.pseudo_terminal import Terminal
from tests.walks.test_readme import ROOT, free_port, shell

#: A domain as the settings of a real provider require it. Nothing asks the internet for it.
DOMAIN = "newsletter-production-walk.com"
HOST = f"news.{DOMAIN}"
PROVIDER = "api.sendgrid.com"
KEY = "SG.walk"
PROGRAM = "/opt/newsletter/bin/newsletter"
PATIENCE = 120.0
CADDY = """{{
	admin off
	http_port {http}
	https_port {https}
	local_certs
	skip_install_trust
	storage file_system {folder}
}}
{site}
{provider} {{
	reverse_proxy 127.0.0.1:{sandbox}
}}
"""
ISSUE = """---
subject: "Hello"
slug: hello
---

Dear {{ name | default("reader") }},

this is the first issue.
"""


def quick_start() -> str:
    page = (ROOT / "docs" / "guides" / "deploy.md").read_text()
    section = page.split("## Production quick start")[1].split("\n## ")[0]
    assert "editors@example.com" in section
    return section.replace("news.example.com", HOST).replace("@example.com", f"@{DOMAIN}")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", quick_start(), re.M | re.S)


def until(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := ask()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return found


class Tunnel:
    """An HTTP proxy for TLS (RFC 9110, section 9.3.6): known names lead to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        #: The names that were asked for.
        self.names: set[str] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head and (piece := client.recv(4096)):
                head += piece
            name = head.partition(b" ")[2].partition(b":")[0].decode()
            self.names.add(name)
            if not head.startswith(b"CONNECT ") or name not in (HOST, PROVIDER):
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running(words: list[str | Path], log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdout=out, stderr=out, env={"PATH": os.environ["PATH"], **environment}
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


class Internet:
    """Caddy with the site of the quick start and the provider, the tunnel, and the stand-in."""

    def __init__(self, folder: Path, opened: ExitStack, *, service: int) -> None:
        caddy = shutil.which("caddy", path="/usr/local/bin:/usr/bin:/bin")
        if caddy is None:
            pytest.skip("caddy is not on this machine")
        https, sandbox = free_port(), free_port()
        (site,) = blocks("caddyfile")
        assert "127.0.0.1:8000" in site
        config = folder / "Caddyfile"
        config.write_text(
            CADDY.format(
                http=free_port(),
                https=https,
                folder=folder / "caddy",
                site=site.replace(":8000", f":{service}"),
                provider=PROVIDER,
                sandbox=sandbox,
            )
        )
        opened.enter_context(
            running(
                [caddy, "run", "--adapter", "caddyfile", "--config", config],
                folder / "caddy.log",
                HOME=str(folder),
            )
        )
        authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        until(lambda: authority.is_file() and _listens(https))
        self.tunnel = Tunnel(https)
        opened.callback(self.tunnel.close)
        #: How the programs of this walk reach it.
        self.environment = {"https_proxy": self.tunnel.url, "SSL_CERT_FILE": str(authority)}
        self.client = opened.enter_context(
            httpx.Client(
                proxy=self.tunnel.url,
                verify=ssl.create_default_context(cafile=str(authority)),
                timeout=60,
            )
        )
        words = ["sandbox", "--port", str(sandbox), "--key", KEY]
        words += ["--sender", f"editors@{DOMAIN}"]
        words += ["--webhook", f"https://{HOST}/webhooks/sendgrid/events"]
        program = Path(sys.executable).with_name("newsletter")
        opened.enter_context(running([program, *words], folder / "sandbox.log", **self.environment))
        until(lambda: _listens(sandbox))
        self.public_key: str = self.asks("public-key")["public_key"]

    def asks(self, path: str) -> Any:
        """An answer of the stand-in."""
        return self.client.get(f"https://{PROVIDER}/sandbox/{path}").json()

    def email(self, to: str, subject: str) -> dict[str, Any]:
        """The email to this address, once the stand-in has it."""

        def found() -> dict[str, Any] | None:
            listed = self.asks(f"messages?q={to}")
            return next((one for one in listed if subject in one["subject"]), None)

        return dict(self.asks(f"messages/{until(found)['id']}"))


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def install(folder: Path, internet: Internet) -> None:
    """Type the command that makes the settings, and answer its question."""
    command = next(one for one in blocks("sh") if " init " in one).replace("\\\n", " ")
    sudo, user, name, program, *words = shlex.split(command)
    assert (sudo, user, name, program) == ("sudo", "-u", "newsletter", PROGRAM)
    words[words.index("/var/lib/newsletter")] = str(folder)
    words[words.index("MFkw…")] = internet.public_key
    environment = {"PATH": os.environ["PATH"]}
    with Terminal(words, environment=environment, folder=folder) as terminal:
        terminal.wait_for("API key")
        terminal.type_hidden(KEY)
        assert terminal.end() == 0, terminal.said
        assert KEY not in terminal.said
        assert "Before you send" not in terminal.words


def unit() -> tuple[str, dict[str, str]]:
    """The command of the service, and its environment with what the quick start copies."""
    systemd = ROOT / "deploy" / "systemd"
    service = (systemd / "newsletter.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", service, re.M)
    environment: dict[str, str] = {}
    for line in re.findall(r"^Environment=(.*)$", (systemd / "folder.conf").read_text(), re.M):
        name, _, value = line.partition("=")
        environment = environment | {name: value} if name else {}
    return command.removeprefix(f"{Path(PROGRAM).parent}/"), environment


def set_up(reader: Reader, link: str) -> None:
    """The first visit: the owner, the publication, an authenticator app."""
    page = reader.go(link)
    assert page.status_code == 200
    assert "andbox" not in page.text
    shown = dict(re.findall(r'name="(\w+)" (?:type="\w+" )?value="([^"]*)"', page.text))
    assert shown["site_name"] == "Engineering News"
    assert shown["sender_email"] == f"editors@{DOMAIN}"
    fields = {name: unescape(shown[name]) for name in shown if name.startswith(("site", "sender"))}
    fields |= {"email": f"me@{DOMAIN}", "password": PASSWORD, "again": PASSWORD}
    fields["sender_name"] = "The editors"
    page = reader.submit(page.text, "/console/setup/", **fields)
    assert reader.at == f"https://{HOST}/console/account/factor", page.text
    assert f"We sent an email to me@{DOMAIN}" in page.text
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page.text)
    assert secret is not None
    code = pyotp.TOTP(secret[1].replace(" ", "")).now()
    assert "recovery codes" in reader.submit(page.text, "/account/factor", code=code).text


def subscribe(reader: Reader, internet: Internet, email: str) -> None:
    """By the public form, and the link in the email."""
    form = reader.go(f"https://{HOST}/subscribe").text
    time.sleep(3.5)  # signup.fill_time
    answer = reader.submit(form, "/subscribe", email=email)
    assert answer.status_code == 200, answer.text
    mail = internet.email(email, "")
    link = next(one for one in links(mail) if "/confirm/" in one)
    answer = reader.submit(reader.go(link).text, "/confirm/")
    assert "You are subscribed" in answer.text


def links(mail: dict[str, Any]) -> list[str]:
    """All links of an email, which lead to our https address."""
    found = re.findall(r"https?://[^\s\"'<>)\\]+", json.dumps(mail))
    own = [one for one in found if HOST in one]
    assert own
    assert all(one.startswith(f"https://{HOST}/") for one in own)
    return own


@pytest.mark.slow
def test_the_production_quick_start(tmp_path: Path) -> None:
    folder, port = tmp_path / "newsletter", free_port()
    folder.mkdir(mode=0o700)
    with ExitStack() as opened:
        internet = Internet(tmp_path, opened, service=port)
        install(folder, internet)
        command, environment = unit()
        environment |= internet.environment
        environment |= {"NEWSLETTER_WEB__PORT": str(port)}
        environment |= {"NEWSLETTER_METRICS__PORT": str(free_port())}
        service = opened.enter_context(shell(command, folder, **environment))
        link = service.wait_for(r"https://\S+/console/setup/\S+")[0]
        assert "SANDBOX" not in service.said
        reader = Reader(internet.client, f"https://{HOST}")
        for path in ("/metrics", "/readyz"):
            assert internet.client.get(f"https://{HOST}{path}").status_code == 404
        set_up(reader, link)
        greeting = internet.email(f"me@{DOMAIN}", "Emails of Engineering News arrive")
        assert "The editors" in json.dumps(greeting)
        links(greeting)
        accepted = ("SendGrid accepted it.", "The receiving server accepted it.")
        overview = f"https://{HOST}/console/"
        until(lambda: any(words in reader.go(overview).text for words in accepted))
        jar = internet.client.cookies.jar
        assert {(one.name, one.secure, one.path) for one in jar} == {("__Host-console", True, "/")}
        subscribe(reader, internet, f"open@{DOMAIN}")
        (folder / "hello.md").write_text(ISSUE)
        commands = "newsletter segment create everybody\n"
        commands += "newsletter send hello.md --segment everybody\necho all done"
        with shell(commands, folder, **environment) as typed:
            typed.wait_for(r"all done\s")
            assert "Traceback" not in typed.said
        issue = internet.email(f"open@{DOMAIN}", "Hello")
        links(issue)
        # The events come back signed, through the proxy, and tick off the last step.
        until(lambda: "First steps" not in reader.go(overview).text)
        status = re.compile(r'data-name="Status">(.*?)</td>', re.S)
        people = f"https://{HOST}/console/subscribers?q=open"
        before = status.findall(reader.go(people).text)
        leave = issue["headers"]["List-Unsubscribe"].strip("<>")
        assert leave.startswith(f"https://{HOST}/unsubscribe/")
        answer = internet.client.post(leave, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 200
        after = status.findall(reader.go(people).text)
        assert "Active" in before[0]
        assert "Unsubscribed" in after[0]
        forged = internet.client.post(f"https://{HOST}/webhooks/sendgrid/events", json=[])
        assert forged.status_code == 401
        assert internet.tunnel.names == {HOST, PROVIDER}
    assert "Traceback" not in service.said
