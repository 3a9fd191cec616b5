"""Whose request it is: a header counts only where a trusted proxy wrote it."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from newsletter.cli.processes.serve import listen, server_of
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.doctor.account import Verdict
from newsletter.doctor.proxy import FORGED, fetch_page, of_visitors
from newsletter.errors import SettingsError
from newsletter.settings.load import load
from newsletter.web.app import create_app
from newsletter.web.proxies import Proxies, address_of, forwarded
from subscribers.models import Confirmation
from tests.conftest import ADDRESS_KEY, LINK_KEY

PROXY, BOB = "10.0.0.1", "203.0.113.9"
CLAIMS = [
    "X-Forwarded-For",
    "Forwarded",
    "X-Real-IP",
    "True-Client-IP",
    "X-Client-IP",
    "X-Forwarded",
    "x-forwarded-for",
]
Seen = Callable[..., str]


def web(**more: str) -> dict[str, str]:
    return {f"NEWSLETTER_WEB__{key.upper()}": value for key, value in more.items()}


@pytest.fixture
def seen() -> Seen:
    """What the service answers whom, with these settings, from this peer and with these headers."""

    def ask(peer: str, headers: list[tuple[str, str]], **settings: str) -> str:
        app = create_app(Container(load(web(**settings))), background=False)
        with TestClient(app, client=(peer, 50000)) as client:
            return client.get("/client-address", headers=headers).text.strip()

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", PROXY, "198.51.100.7"])
@pytest.mark.parametrize("name", CLAIMS)
def test_by_default_nobody_speaks_for_anybody_not_even_this_machine(
    seen: Seen, peer: str, name: str
) -> None:
    value = f"for={BOB}" if name == "Forwarded" else BOB
    assert seen(peer, [(name, value)]) == peer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hops", "header", "expected"),
    [
        # What one proxy wrote, after whatever the visitor did.
        ("1", BOB, BOB),
        ("1", f"{FORGED}, {BOB}", BOB),
        ("1", f"{FORGED}, {PROXY}, {BOB}", BOB),
        # A visitor from a trusted network is a visitor: one proxy stands there, not two.
        ("1", f"{FORGED}, 10.9.9.9", "10.9.9.9"),
        ("2", f"{FORGED}, {BOB}, 10.9.9.9", BOB),
        ("2", f"{FORGED}, {BOB}", BOB),
        ("3", f"{FORGED}, 10.1.1.1, 10.2.2.2, 10.3.3.3", "10.1.1.1"),
        ("9", "10.2.2.2, 10.3.3.3", "10.2.2.2"),
        # With a port, as Azure writes it, or as IPv6.
        ("1", f"{BOB}:4711", BOB),
        ("1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("1", "2001:db8::7", "2001:db8::7"),
        ("1", f"::ffff:{BOB}", BOB),
        # What is no address leaves the proxy's.
        ("1", "unknown", PROXY),
        ("1", "", PROXY),
        ("1", "203.0.113.9.evil.example", PROXY),
        ("1", f"{BOB}, ", PROXY),
        ("2", f"{BOB}, unknown, 10.3.3.3", "10.3.3.3"),
        ("1", "9" * 9000, PROXY),
    ],
)
def test_the_first_address_from_the_right_that_no_trusted_proxy_has_is_the_visitor_s(
    seen: Seen, hops: str, header: str, expected: str
) -> None:
    trusted = {"trusted_proxies": "10.0.0.0/8", "proxy_hops": hops}
    assert seen(PROXY, [("X-Forwarded-For", header)], **trusted) == expected
    # The same entries on lines of their own are the same list.
    lines = [("X-Forwarded-For", part.strip()) for part in header.split(",")]
    assert seen(PROXY, lines, **trusted) == expected
    assert seen("198.51.100.7", lines, **trusted) == "198.51.100.7"


def test_only_the_header_that_the_proxy_writes_counts(seen: Seen) -> None:
    both = [("Forwarded", f"for={FORGED}"), ("X-Forwarded-For", BOB)]
    assert seen(PROXY, both, trusted_proxies=PROXY) == BOB
    both = [("Forwarded", f"for={BOB}"), ("X-Forwarded-For", FORGED)]
    assert seen(PROXY, both, trusted_proxies=PROXY, forwarded_header="forwarded") == BOB
    assert seen(PROXY, [("X-Real-IP", FORGED)], trusted_proxies=PROXY) == PROXY


@pytest.mark.parametrize(
    ("header", "clients"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", ["192.0.2.60"]),
        ("for=192.0.2.43, for=198.51.100.17", ["192.0.2.43", "198.51.100.17"]),
        ('For="[2001:db8:cafe::17]:4711"', ["[2001:db8:cafe::17]:4711"]),
        ('for="_gazonk"', ["_gazonk"]),
        ('for="a,b;c\\"d" , for=192.0.2.1', ['a,b;c"d', "192.0.2.1"]),
        ('for=192.0.2.1, "', []),
        ("nonsense", []),
        ("", []),
        (", ,for=192.0.2.1", ["192.0.2.1"]),
    ],
)
def test_forwarded_is_read_as_rfc_7239_writes_it(header: str, clients: list[str]) -> None:
    assert [hop.client for hop in forwarded(header)] == clients


@given(st.text(max_size=300))
def test_no_text_breaks_the_readers(text: str) -> None:
    address_of(text)
    forwarded(text)


def test_scheme_and_host_are_the_proxy_s_to_say_and_nobody_else_s() -> None:
    async def told(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(str(Request(scope).base_url))(scope, receive, send)

    app = Proxies(told, web=load(web(trusted_proxies=PROXY)).web)
    said = {"X-Forwarded-For": BOB, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "n.example"}
    bad = said | {"X-Forwarded-Host": "a/b", "X-Forwarded-Proto": "x"}
    plain = "http://testserver/"
    for peer, headers, expected in (
        (PROXY, said, "https://n.example/"),
        (PROXY, bad, plain),
        (BOB, said, plain),
    ):
        assert TestClient(app, client=(peer, 1)).get("/", headers=headers).text == expected


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy", "10.0.0.0/40", "1" * 500, "::/200"])
def test_what_is_no_network_is_refused_by_name(network: str) -> None:
    with pytest.raises(SettingsError, match=r"10\.0\.0\.0/8") as refused:
        load(web(trusted_proxies=network))
    assert "web.trusted_proxies" in str(refused.value.place)


@contextmanager
def served(environment: dict[str, str]) -> Iterator[str]:
    """The server of `newsletter serve`, as it is set up there."""
    parts = Container(load(environment))
    server = server_of(parts)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            parts.database.dispose()


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; {headers} }} }}
}}
"""
ONLY_HOST = "proxy_set_header Host $host;"
AS_ADVISED = f"{ONLY_HOST} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
CADDY = """{{
  admin off
}}
http://127.0.0.1:{port} {{
  reverse_proxy {upstream}
}}
"""


@contextmanager
def behind(kind: str, headers: str, upstream: str, folder: Path) -> Iterator[int]:
    """A real proxy in front of the service; yields its port."""
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/bin")
    if program is None:
        pytest.skip(f"there is no {kind} on this machine")
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    config = folder / "config"
    made = NGINX if kind == "nginx" else CADDY
    config.write_text(made.format(folder=folder, port=port, upstream=upstream, headers=headers))
    words = (
        ["-c", str(config), "-e", str(folder / "early.log")]
        if kind == "nginx"
        else ["run", "--config", str(config), "--adapter", "caddyfile"]
    )
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    child = subprocess.Popen(
        [program, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert child.poll() is None, f"{kind} does not start"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        child.terminate()
        child.wait(30)


def asked_from(host: str, port: int, headers: dict[str, str]) -> str:
    """What the service behind answers a machine of this address."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30, source_address=(host, 0))
    connection.request("GET", "/client-address", headers=headers)
    with closing(connection):
        return connection.getresponse().read().decode().strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "headers", "trusted", "expected"),
    [
        ("nginx", ONLY_HOST, "", "127.0.0.1"),
        ("nginx", AS_ADVISED, "", "127.0.0.1"),
        ("nginx", AS_ADVISED, "127.0.0.1", "127.0.0.7"),
        ("caddy", "", "", "127.0.0.1"),
        ("caddy", "", "127.0.0.1", "127.0.0.7"),
    ],
)
def test_behind_a_real_proxy_a_visitor_has_the_address_that_they_have(
    tmp_path: Path, kind: str, headers: str, trusted: str, expected: str
) -> None:
    environment = {
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{tmp_path / 'newsletter.db'}",
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(tmp_path / "departures"),
        **web(trusted_proxies=trusted),
    }
    with served(environment) as url, behind(kind, headers, url, tmp_path) as port:
        for forged in (
            {},
            {"X-Forwarded-For": FORGED},
            {"X-Forwarded-For": f"{FORGED}, 127.0.0.1", "Forwarded": f"for={FORGED}"},
            {"X-Real-IP": FORGED},
        ):
            assert asked_from("127.0.0.7", port, forged) == expected


@pytest.mark.slow
def test_a_proxy_that_passes_on_what_it_got_is_found_out_by_the_doctor(tmp_path: Path) -> None:
    environment = {
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{tmp_path / 'newsletter.db'}",
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(tmp_path / "departures"),
        **web(trusted_proxies="127.0.0.1"),
    }
    with served(environment) as url, behind("nginx", ONLY_HOST, url, tmp_path) as port:
        assert of_visitors(f"http://127.0.0.1:{port}", fetch_page).verdict is Verdict.PROBLEM


@pytest.mark.slow
def test_thirty_signups_through_one_proxy_do_not_pass_a_limit_of_twenty(
    environment: dict[str, str],
) -> None:
    # As nginx passes them that sets Host only: what the visitor wrote comes through.
    with served(environment) as url, httpx.Client() as client:
        answers = [
            client.post(
                f"{url}/subscribe",
                data={"email": f"p{n}@example.org"},
                headers={"X-Forwarded-For": f"203.0.113.{n}", "Forwarded": f"for=203.0.113.{n}"},
            ).status_code
            for n in range(30)
        ]
    assert answers == [*[200] * 20, *[429] * 10]
    parts = Container(load(environment))
    table = table_of(Confirmation)
    with reading(parts.database) as session:
        asked = session.scalars(select(table.c.asked)).all()
        assert session.scalar(select(func.count()).select_from(table)) == 20
    assert {one["ip"] for one in asked} == {"127.0.0.1"}
    parts.database.dispose()


@pytest.mark.slow
def test_the_server_reads_no_variable_of_its_own(environment: dict[str, str]) -> None:
    source = (
        "import os; os.environ['FORWARDED_ALLOW_IPS'] = '*'\n"
        "from newsletter.cli.processes.serve import server_of\n"
        "from newsletter.container import Container\n"
        "from newsletter.settings.load import load\n"
        "config = server_of(Container(load())).config\n"
        "config.load()\n"
        "print('ProxyHeaders' in type(config.loaded_app).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_every_server_of_ours_leaves_the_headers_to_us() -> None:
    folder = Path(__file__).parents[3] / "newsletter"
    starts = [path for path in folder.rglob("*.py") if "uvicorn.Config(" in path.read_text()]
    assert starts
    assert [path for path in starts if "proxy_headers=False" not in path.read_text()] == []


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (FORGED, Verdict.PROBLEM),
        ("127.0.0.1", Verdict.WARNING),
        ("10.1.2.3", Verdict.WARNING),
        ("9.9.9.9", Verdict.OK),
        ("<html>", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
    ],
)
def test_the_doctor_tells_whose_address_the_service_sees(answer: str, verdict: Verdict) -> None:
    found = of_visitors("https://n.example", lambda _url, _headers: f"{answer}\n")
    assert found.verdict is verdict
    assert bool(found.remedy) == (verdict is not Verdict.OK)


@pytest.mark.slow
def test_the_doctor_asks_the_service_itself(environment: dict[str, str]) -> None:
    with served(environment) as url:
        found = of_visitors(url, fetch_page)
        assert (found.verdict, "127.0.0.1" in found.message) == (Verdict.WARNING, True)
    with served(environment | web(trusted_proxies="127.0.0.1")) as url:
        assert of_visitors(url, fetch_page).verdict is Verdict.PROBLEM
    assert of_visitors("http://127.0.0.1:9", fetch_page).verdict is Verdict.UNKNOWN
