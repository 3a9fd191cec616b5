"""Links are asked with care: nothing on them leads into a private network."""

import asyncio
import http.server
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.checking.finding import Level
from newsletter.checking.network.http_probe import PublicOnly, ask
from newsletter.provider.public_addresses import is_public
from tests.newsletter.checking.conftest import PUBLICATION, Look, changed

ALLOWED = changed("dead_links", private_networks=True, patience=timedelta(seconds=5))


class Site(http.server.ThreadingHTTPServer):
    """A web site of a few pages; remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.asked: list[str] = []
        self.hold = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Page(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers = 200, {"Content-Type": "text/html; charset=utf-8"}
        match self.path.split("?")[0].strip("/").split("/"):
            case ["status", number]:
                status = int(number)
            case ["picture.png"]:
                headers = {"Content-Type": "image/png"}
            case ["to", *rest]:
                status, headers = 302, {"Location": "/".join(rest)}
            case ["loop"]:
                status, headers = 301, {"Location": "/loop"}
            case ["slow"]:
                self.server.hold.wait(30)
            case ["nonsense"]:
                self.wfile.write(b"\x00\x01 not http\r\n\r\n")
                return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.hold.set()
        running.shutdown()
        thread.join()


def body(site: Site, *paths: str) -> str:
    return "\n".join(f"[word]({site.url}{path})" for path in paths)


def local(site: Site) -> dict[str, object]:
    """Links to the publication's own host are taken for reachable."""
    return {
        "publication": replace(PUBLICATION, base_url=site.url),
        "rules": ALLOWED,
        "ask_links": True,
    }


def test_links_are_asked_only_when_wanted_and_each_once(look: Look, site: Site) -> None:
    text = body(site, "/a", "/a", "/a#part", "/to//a")
    assert look("dead_links", text, **{**local(site), "ask_links": False}) == []
    assert site.asked == []
    assert look("dead_links", text, **local(site)) == []
    assert sorted(site.asked) == ["/a", "/a", "/a", "/to//a"]


def test_a_dead_link_is_found_at_its_line(look: Look, site: Site) -> None:
    text = body(site, "/a", "/status/404", "/status/500", "/loop", "/nonsense")
    found = look("dead_links", text, **local(site))
    assert [(one.line, one.level) for one in found] == [(line, Level.WARN) for line in range(6, 10)]
    assert "answers 404" in found[0].message
    assert "answers 500" in found[1].message
    assert "redirected more than" in found[2].message


def test_who_keeps_programs_out_is_a_note(look: Look, site: Site) -> None:
    (found,) = look("dead_links", body(site, "/status/403"), **local(site))
    assert found.level is Level.NOTE
    assert "403" in found.message


def test_a_picture_has_to_be_one(look: Look, site: Site) -> None:
    text = f"![A]({site.url}/picture.png)\n![B]({site.url}/page)"
    (found,) = look("dead_links", text, **local(site))
    assert found.line == 6
    assert "not an image, but text/html" in found.message


def test_personal_links_and_mailboxes_are_asked_of_nobody(look: Look, site: Site) -> None:
    text = (
        f"[a]({site.url}/?who={{{{ email }}}}) [b]({{{{ unsubscribe_url }}}}) [c](mailto:a@b.org)"
    )
    assert look("dead_links", text, **local(site)) == []
    assert site.asked == []


def test_patience_ends(site: Site) -> None:
    url = f"{site.url}/slow"
    answers = ask([url], patience=timedelta(seconds=0.2), at_once=1, private_networks=True)
    assert "does not answer within 0.2 seconds" in answers[url].why


def test_nothing_private_is_asked(site: Site) -> None:
    urls = [
        f"{site.url}/",
        f"http://localhost:{site.server_port}/",
        f"http://[::ffff:127.0.0.1]:{site.server_port}/",
        f"http://2130706433:{site.server_port}/",
        f"http://0x7f.1:{site.server_port}/",
        f"http://0:{site.server_port}/",
    ]
    answers = ask(urls, patience=timedelta(seconds=5), at_once=4)
    assert {answer.status for answer in answers.values()} == {None}
    assert site.asked == []


class _Elsewhere(httpcore.AsyncNetworkBackend):
    """Takes a public address for the site of the test, and remembers where it was sent."""

    def __init__(self, site: Site) -> None:
        self._site, self._real = site, httpcore.AnyIOBackend()
        self.hosts: list[str] = []

    async def connect_tcp(self, host: str, port: int, *rest: object, **more: object):  # type: ignore[no-untyped-def, override]
        self.hosts.append(host)
        return await self._real.connect_tcp("127.0.0.1", self._site.server_port)


def test_a_redirect_leads_into_no_private_network(site: Site) -> None:
    inner = _Elsewhere(site)

    async def resolve(host: str) -> Sequence[str]:
        return {"public.example.com": ["93.184.215.14"], "trap.example.com": ["10.0.0.1"]}.get(
            host, [host]
        )

    start = "http://public.example.com/to"
    targets = [f"{start}/{site.url}/secret", f"{start}/http://trap.example.com/secret"]
    answers = ask(
        ["http://public.example.com/fine", *targets],
        patience=timedelta(seconds=5),
        at_once=1,
        backend=PublicOnly(inner=inner, resolve=resolve),
    )
    assert [answer.status for answer in answers.values()] == [200, None, None]
    assert all("private network" in answers[target].why for target in targets)
    assert not [path for path in site.asked if path.startswith("/secret")]


def test_a_name_that_changes_its_address_is_connected_where_it_was_looked_up(site: Site) -> None:
    inner, answers = _Elsewhere(site), iter([["93.184.215.14"], ["127.0.0.1"]])

    async def resolve(host: str) -> Sequence[str]:
        return next(answers)

    backend = PublicOnly(inner=inner, resolve=resolve)
    ask(["http://rebind.example.com/"], patience=timedelta(seconds=5), at_once=1, backend=backend)
    assert inner.hosts == ["93.184.215.14"]


def test_one_private_address_among_public_ones_is_enough_to_refuse(site: Site) -> None:
    async def resolve(host: str) -> Sequence[str]:
        return ["93.184.215.14", "192.168.0.1"]

    backend = PublicOnly(inner=_Elsewhere(site), resolve=resolve)
    with pytest.raises(httpcore.ConnectError, match="private network"):
        asyncio.run(backend.connect_tcp("two.example.com", 80))
    with pytest.raises(httpcore.ConnectError):
        asyncio.run(backend.connect_unix_socket("/run/docker.sock"))


@pytest.mark.parametrize(
    "address",
    """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1
    255.255.255.255 ::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::7f00:1
    2002:7f00:1:: 2001:0:7f00:1::1 name.example
    ::127.0.0.1 ::10.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b:1::7f00:1 64:ff9b:1::808:808
    64:ff9b::a9fe:a9fe 64:ff9b::a83f:8110 64:ff9b::100.64.0.1 fec0::1 feff::1 fd00:ec2::254
    192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 168.63.129.16 169.254.0.23 100.100.100.200
    100.127.255.255 198.18.0.1 198.51.100.7 203.0.113.9 192.0.2.1 192.88.99.1 233.252.0.1
    239.255.255.250 240.0.0.1 0.1.2.3 ::ffff:168.63.129.16 ::ffff:192.0.0.192
    ::ffff:169.254.169.254 2002:808:808:: 2001::1 2001:db8::1 2001:10::1 2001:20::1 2001:2::1
    3fff::1 100::1 5f00::1 4000::1 2606:4700::1111%eth0 ff0e::1 2606:4700::5efe:10.0.0.1
    2606:4700::200:5efe:7f00:1 127.1 0177.0.0.1 2130706433 0x7f.1 [::1] 127.0.0.1:80""".split(),
)
def test_private_addresses_in_every_dress_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host", ["127.1", "0177.0.0.1", "2130706433", "0x7f000001", "localhost", "[::1]", "[::]"]
)
def test_this_machine_is_not_asked_however_its_address_is_spelt(site: Site, host: str) -> None:
    url = f"http://{host}:{site.server_port}/secret"
    (answer,) = ask([url], patience=timedelta(seconds=5), at_once=1).values()
    assert answer.status is None
    assert not site.asked


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_no_more_public_in_another_dress(number: int) -> None:
    plain = IPv4Address(number)
    dressed = [f"::ffff:{plain}", f"64:ff9b::{plain}", f"2606:4700::5efe:{plain}"]
    assert {is_public(text) for text in dressed} == {is_public(str(plain))}
    assert is_public(str(plain)) <= plain.is_global
    assert not any(map(is_public, (f"::{plain}", f"64:ff9b:1::{plain}", f"fec0::{plain}")))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_may_be_asked(address: str) -> None:
    assert is_public(address)
