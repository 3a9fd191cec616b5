"""What DNS says of a domain counts; what it does not say is held against nobody."""

import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from subscribers.signup import domain_checks

ZONE = {
    ("mx.example.", "MX"): "10 mail.mx.example.",
    ("null.example.", "MX"): "0 .",
    ("bare.example.", "A"): "192.0.2.1",
    ("six.example.", "AAAA"): "2001:db8::1",
    ("text.example.", "TXT"): '"no mail here"',
}
NAMES = {name for name, _ in ZONE}


def answer(query: dns.message.Message) -> dns.message.Message | None:
    question = query.question[0]
    name, kind = question.name.to_text(), question.rdtype.name
    if name == "silent.example.":
        return None
    made = dns.message.make_response(query)
    made.flags |= dns.flags.RA
    if name == "broken.example.":
        made.set_rcode(dns.rcode.SERVFAIL)
    elif (name, kind) in ZONE:
        made.answer.append(dns.rrset.from_text(name, 300, "IN", kind, ZONE[name, kind]))
    elif name not in NAMES:
        made.set_rcode(dns.rcode.NXDOMAIN)
    return made


@pytest.fixture
def _name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server of a few domains, asked instead of the machine's own."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                data, peer = server.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            if made := answer(dns.message.from_wire(data)):
                server.sendto(made.to_wire(), peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    class Resolver(dns.resolver.Resolver):
        def __init__(self) -> None:
            super().__init__(configure=False)
            self.nameservers = ["127.0.0.1"]
            self.port = server.getsockname()[1]

    monkeypatch.setattr(dns.resolver, "Resolver", Resolver)
    domain_checks.answers.cache_clear()
    monkeypatch.setattr(domain_checks, "_TIMEOUT", 0.5)
    yield
    server.sendto(b"", server.getsockname())
    thread.join()
    server.close()


@pytest.mark.parametrize(
    ("domain", "takes"),
    [
        ("mx.example", True),
        ("null.example", False),
        ("bare.example", True),
        ("six.example", True),
        ("text.example", False),
        ("missing.example", False),
        ("broken.example", True),
        ("silent.example", True),
        (f"{'x' * 70}.example", True),
    ],
)
@pytest.mark.usefixtures("_name_server")
def test_only_a_clear_no_of_dns_refuses_a_domain(domain: str, takes: bool) -> None:
    assert domain_checks.accepts_email(domain) is takes


@pytest.mark.usefixtures("_name_server")
def test_a_crowd_of_slow_domains_holds_up_nobody_else() -> None:
    taken = [domain_checks._LOOKUPS.acquire(blocking=False) for _ in range(8)]
    try:
        assert domain_checks.accepts_email("missing.example") is True
    finally:
        for _ in taken:
            domain_checks._LOOKUPS.release()
    assert domain_checks.accepts_email("missing.example") is False


def test_throw_away_domains_are_known_with_what_lies_below_them() -> None:
    assert domain_checks.is_disposable("mailinator.com")
    assert domain_checks.is_disposable("a.b.mailinator.com")
    assert not domain_checks.is_disposable("example.org")
    assert not domain_checks.is_disposable("mailinator.com.example.org")
    assert not domain_checks.is_disposable("com")
