"""The table of answers, on real sockets: what is surely not accepted, and what nobody knows."""

import datetime
import ipaddress
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from newsletter.provider import outcomes
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Outcome, Recipient, Refused
from newsletter.provider.gateway import Unknown as Uncertain
from newsletter.provider.outcomes import Acceptance
from tests.newsletter.provider.conftest import gateway

#: Larger than what the kernel's buffers take in for a reader who does not read.
_LARGE = "x" * 12_000_000
_MEANING = {
    Accepted: Acceptance.ACCEPTED,
    Refused: Acceptance.REFUSED,
    NotSent: Acceptance.NOT_ACCEPTED,
    Uncertain: Acceptance.UNCERTAIN,
}
Behaviour = Callable[[socket.socket], None]
ROOT = Path(__file__).parents[3]


def request(text: str = "Hello") -> MailRequest:
    alice = Recipient("alice@example.org", {}, {}, {})
    return MailRequest("news@example.org", "News", "Hello", text, "<p>Hello</p>", [alice])


def meaning(outcome: Outcome) -> Acceptance:
    return _MEANING[type(outcome)]


@contextmanager
def peer(behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list]]:
    """A server made of bare sockets; its address, and a list that grows with each connection."""
    came: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                behaviour(connection)

    def accept() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                came.append(1)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port = listening.getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", came
    finally:
        over.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def read_head(connection: socket.socket) -> bytes:
    seen = b""
    while b"\r\n\r\n" not in seen:
        some = connection.recv(1)
        if not some:
            break
        seen += some
    return seen


def read_whole(connection: socket.socket) -> None:
    found = re.search(rb"content-length: (\d+)", read_head(connection).lower())
    left = int(found[1]) if found else 0
    while left > 0:
        left -= len(connection.recv(min(left, 65536)) or b"x" * left)


def reset(connection: socket.socket) -> None:
    """RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def after_whole(text: str | bytes) -> Behaviour:
    """Reads the request whole, says this, and hangs up."""
    return then(read_whole, says(text))


def head(status: str, *headers: str, version: str = "1.1") -> str:
    return "\r\n".join([f"HTTP/{version} {status}", *headers, "", ""])


def closes_in_body(connection: socket.socket) -> None:
    read_head(connection)
    connection.recv(1000)


def resets_early(connection: socket.socket) -> None:
    connection.recv(1)
    reset(connection)


def then(*steps: Callable[[socket.socket], object]) -> Behaviour:
    """One after the other."""

    def behave(connection: socket.socket) -> None:
        for step in steps:
            step(connection)

    return behave


def says(text: str | bytes) -> Behaviour:
    return lambda connection: connection.sendall(text.encode() if isinstance(text, str) else text)


def silent(_: socket.socket) -> None:
    time.sleep(2)


def drips(connection: socket.socket) -> None:
    """Never silent for as long as the timeout, and never done."""
    read_whole(connection)
    for byte in b"HTTP/1.1 202 Accepted":
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


CHUNKED = "Transfer-Encoding: chunked"
EMPTY = "Content-Length: 0"
LONGER = "Content-Length: 100"

#: Connected: from here on nobody knows, but for a whole answer that SendGrid documents.
UNCERTAIN: dict[str, Behaviour] = {
    "closed at once": then(),
    "reset at the first byte": resets_early,
    "closed after the head of the request": then(read_head),
    "closed in the middle of the body": closes_in_body,
    "never read": silent,
    "closed after the body": read_whole,
    "reset after the body": then(read_whole, reset),
    "no answer in time": then(read_whole, silent),
    "an answer drop by drop that ends too early": drips,
    "no HTTP": after_whole("SSH-2.0-OpenSSH_9.2\r\n"),
    "binary noise": after_whole(bytes(range(256)) * 40),
    "HTTP/2 frames": after_whole(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    "a version that does not exist": after_whole(head("202 Accepted", version="9.9")),
    "a status that is no number": after_whole(head("2o2 Accepted")),
    "a status of four digits": after_whole(head("2020 Accepted")),
    "a body shorter than it says": after_whole(head("202 Accepted", LONGER) + "{}"),
    "a refusal shorter than it says": after_whole(head("400 Bad Request", LONGER) + "{}"),
    "a rate limit shorter than it says": after_whole(head("429 Too Many", LONGER) + "{}"),
    "chunks that do not end": after_whole(head("202 Accepted", CHUNKED) + "5\r\nab"),
    "chunks of no number": after_whole(head("400 Bad", CHUNKED) + "zz\r\nab"),
    "endless headers": after_whole(head("202 Accepted", *[f"X-{n}: 1" for n in range(200)])),
    "an endless line": after_whole("HTTP/1.1 202 " + "x" * 70_000 + "\r\n\r\n"),
    "100 and no more": after_whole(head("100 Continue")),
    "103 before the answer": after_whole(head("103 Early Hints") + head("202 Accepted", EMPTY)),
    "101": after_whole(head("101 Switching Protocols")),
}
#: Odd, and whole all the same.
WHOLE: dict[str, tuple[Behaviour, Acceptance]] = {
    "a length that is no number": (
        after_whole(head("202 Accepted", "Content-Length: many")),
        Acceptance.ACCEPTED,
    ),
    "HTTP/1.0": (after_whole(head("202 Accepted", version="1.0")), Acceptance.ACCEPTED),
    "100 before the answer": (
        after_whole(head("100 Continue") + head("202 Accepted", EMPTY)),
        Acceptance.ACCEPTED,
    ),
    "a refusal without a length": (
        after_whole(head("400 Bad Request") + '{"errors": [{"message": "bad"}]}'),
        Acceptance.REFUSED,
    ),
    "a rate limit": (after_whole(head("429 Too Many Requests", EMPTY)), Acceptance.NOT_ACCEPTED),
}
WIRE = {**{what: (one, Acceptance.UNCERTAIN) for what, one in UNCERTAIN.items()}, **WHOLE}


@pytest.mark.parametrize("what", WIRE)
def test_what_came_of_a_request_on_the_wire(what: str) -> None:
    behaviour, meant = WIRE[what]
    text = _LARGE if what in {"closed in the middle of the body", "never read"} else "Hello"
    with peer(behaviour) as (host, came):
        assert meaning(gateway(host, seconds=0.5).send(request(text))) is meant
        # By nobody is it sent a second time behind our back.
        assert len(came) == 1


@pytest.mark.parametrize("status", range(200, 600))
def test_every_status_means_what_the_table_says(status: int) -> None:
    with peer(after_whole(head(f"{status} Some", "Content-Length: 0"))) as (host, _):
        assert meaning(gateway(host).send(request())) is outcomes.of_status(status)


def test_a_failure_of_the_provider_is_never_taken_for_a_refusal() -> None:
    assert {outcomes.of_status(status) for status in range(500, 600)} == {Acceptance.UNCERTAIN}
    assert {s for s in range(100, 600) if outcomes.of_status(s) is Acceptance.NOT_ACCEPTED} == {429}
    assert {s for s in range(100, 600) if outcomes.of_status(s) is Acceptance.ACCEPTED} == {202}


@pytest.mark.parametrize("status", ["202 Accepted", "400 Bad Request", "429 Too Many Requests"])
def test_an_answer_cut_off_at_any_byte_says_nothing(status: str) -> None:
    body = json.dumps({"errors": [{"message": "bad", "field": None}]})
    whole = head(status, "X-Message-Id: abc", f"Content-Length: {len(body)}") + body
    cut = [0]
    with peer(lambda connection: after_whole(whole[: cut[0]])(connection)) as (host, _):
        sent = gateway(host)
        for cut[0] in range(len(whole)):
            outcome = sent.send(request())
            assert meaning(outcome) is Acceptance.UNCERTAIN, whole[: cut[0]]
        cut[0] = len(whole)
        assert meaning(sent.send(request())) is outcomes.of_status(int(status[:3]))


@pytest.mark.parametrize("answer", ["202 Accepted", "400 Bad", "404 Not Found", "429 Too Many", ""])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_says_nothing(status: int, answer: str) -> None:
    """Whoever redirects a post may have taken it, whatever the place says that it names."""
    behaviour = after_whole(head(answer, "Content-Length: 0")) if answer else resets_early
    with peer(behaviour) as (target, came):
        redirect = head(f"{status} Moved", f"Location: {target}/v3/mail/send", "Content-Length: 0")
        with peer(after_whole(redirect)) as (host, _):
            assert meaning(gateway(host).send(request())) is Acceptance.UNCERTAIN
        assert came == []


def test_a_redirect_to_where_nobody_listens_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    redirect = head("302 Found", f"Location: http://127.0.0.1:{port}/", "Content-Length: 0")
    with peer(after_whole(redirect)) as (host, _):
        assert meaning(gateway(host).send(request())) is Acceptance.UNCERTAIN


# No connection: nothing can have left


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert meaning(gateway(f"http://127.0.0.1:{port}").send(request())) is Acceptance.NOT_ACCEPTED


@pytest.mark.parametrize(
    "host", ["http://nowhere.invalid", f"http://{'a' * 70}.example", "http://"]
)
def test_a_name_that_leads_nowhere(host: str) -> None:
    assert meaning(gateway(host).send(request())) is Acceptance.NOT_ACCEPTED


def test_nobody_takes_the_connection_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        # Whoever comes when the queue is full hears nothing.
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(full.getsockname())
            waiting.append(one)
        host = f"http://127.0.0.1:{full.getsockname()[1]}"
        outcome = gateway(host, seconds=0.4).send(request())
        for one in waiting:
            one.close()
    assert meaning(outcome) is Acceptance.NOT_ACCEPTED


def test_no_file_is_free_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    with peer(after_whole(head("202 Accepted", "Content-Length: 0"))) as (host, came):
        monkeypatch.setattr(socket, "socket", none_left)
        outcome = gateway(host).send(request())
    assert meaning(outcome) is Acceptance.NOT_ACCEPTED
    assert came == []


def hears_hello(connection: socket.socket) -> None:
    connection.recv(100)


TLS: dict[str, Behaviour] = {
    "closed in the handshake": hears_hello,
    "reset in the handshake": then(hears_hello, reset),
    "no TLS there": then(hears_hello, says("HTTP/1.1 400 Bad Request\r\n\r\n")),
    "an alert": then(hears_hello, says(b"\x15\x03\x03\x00\x02\x02\x28")),
    "silence in the handshake": then(hears_hello, silent),
}


@pytest.mark.parametrize("what", TLS)
def test_a_handshake_that_fails_has_sent_nothing(what: str) -> None:
    with peer(TLS[what]) as (host, _):
        secure = gateway(host.replace("http://", "https://"), seconds=0.5)
        assert meaning(secure.send(request())) is Acceptance.NOT_ACCEPTED


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the file that proves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(encoding))
    proof = tmp_path / "proof.pem"
    proof.write_bytes(made.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, proof


def test_a_certificate_that_nobody_vouches_for_gets_nothing(certificate) -> None:
    context, _ = certificate
    with peer(read_whole, tls=context) as (host, _):
        assert meaning(gateway(host).send(request())) is Acceptance.NOT_ACCEPTED


@pytest.mark.parametrize(
    ("behaviour", "meant"),
    [
        (lambda _: None, Acceptance.UNCERTAIN),
        (read_whole, Acceptance.UNCERTAIN),
        (then(read_whole, reset), Acceptance.UNCERTAIN),
        (then(read_whole, silent), Acceptance.UNCERTAIN),
        (after_whole(head("503 Away", "Content-Length: 0")), Acceptance.UNCERTAIN),
        (after_whole(head("202 Accepted", "Content-Length: 0")), Acceptance.ACCEPTED),
    ],
)
def test_over_tls_as_in_the_clear(
    certificate, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, meant: Acceptance
) -> None:
    context, proof = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(proof))
    with peer(behaviour, tls=context) as (host, _):
        assert meaning(gateway(host, seconds=0.5).send(request())) is meant


def test_the_documentation_shows_the_table() -> None:
    text = (ROOT / "docs/how-it-works/delivery-guarantees.md").read_text()
    for line in outcomes.TABLE:
        assert f"| {line.what} | {line.acceptance} |" in text
    assert {outcomes.STATUSES[s] for s in outcomes.STATUSES} <= set(outcomes.TABLE)
