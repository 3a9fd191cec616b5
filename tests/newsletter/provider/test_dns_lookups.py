"""Records, no records and no answer are told apart, by a name server on this machine."""

import socket
import threading
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from newsletter.provider import dns_lookups
from newsletter.provider.dns_lookups import UnaskedError, resolver

ZONE = {
    ("_dmarc.example.com.", "TXT"): '"v=DMARC1; " "p=none"',
    ("in.example.com.", "MX"): "10 MX.SendGrid.net.",
    ("example.com.", "A"): "192.0.2.7",
}


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Knows the zone; of broken.example.com it says that it is broken."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.05)
        stopping = threading.Event()

        def answer() -> None:
            while not stopping.is_set():
                try:
                    wire, asker = listening.recvfrom(4096)
                except TimeoutError:
                    continue
                query = dns.message.from_wire(wire)
                asked = query.question[0]
                name, kind = asked.name.to_text(), dns.rdatatype.to_text(asked.rdtype)
                reply = dns.message.make_response(query)
                reply.flags |= dns.flags.RA
                if name == "broken.example.com.":
                    reply.set_rcode(dns.rcode.SERVFAIL)
                elif (name, kind) in ZONE:
                    reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, ZONE[name, kind]))
                elif name not in {known for known, _ in ZONE}:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                listening.sendto(reply.to_wire(), asker)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()
        stopping.set()
        thread.join()


def test_records_are_read_as_their_values(server: tuple[str, int]) -> None:
    lookup = resolver(server)
    assert lookup("_dmarc.example.com", "TXT") == ["v=DMARC1; p=none"]
    assert lookup("in.example.com", "MX") == ["mx.sendgrid.net"]
    assert lookup("example.com", "A") == ["192.0.2.7"]


def test_no_such_name_and_no_such_record_are_answers(server: tuple[str, int]) -> None:
    lookup = resolver(server)
    assert lookup("nowhere.example.com", "TXT") == []
    assert lookup("example.com", "MX") == []


def test_a_broken_zone_is_no_answer(server: tuple[str, int]) -> None:
    with pytest.raises(UnaskedError):
        resolver(server)("broken.example.com", "TXT")


def test_a_name_that_is_no_name_is_no_traceback(server: tuple[str, int]) -> None:
    with pytest.raises(UnaskedError):
        resolver(server)("a" * 80 + ".example.com", "TXT")


def test_a_resolver_that_is_silent_costs_two_waits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_lookups, "_PATIENCE", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        lookup = resolver(mute.getsockname())
        asked = 0
        for _ in range(20):
            with pytest.raises(UnaskedError):
                lookup("example.com", "TXT")
        mute.settimeout(0.2)
        begun = time.monotonic()
        while time.monotonic() - begun < 5:
            try:
                mute.recv(4096)
            except TimeoutError:
                break
            asked += 1
    assert 2 <= asked <= 6  # each look-up may ask more than once
