"""What stands between the service and the sandbox: a wire that can be cut, and a postman.

The sandbox's own faults are not visible from outside; here every answer that passes is
counted. More faults are made here: refused connections, a refusal that does not say whom it
is about, and outages, in which every request fails, having been taken or not. Events are
taken from the sandbox at once and carried to whichever process of the service is up, as often
as it takes, as SendGrid does for 24 hours.
"""

import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: Whoever has this in their address makes the provider refuse the request without a name.
PUZZLE = "puzzle"
_NAMELESS = b'{"errors": [{"message": "Bad Request", "field": null, "help": null}]}'
#: Outages, and what whoever sends sees of them. Half of the requests are taken all the same.
OUTAGES = ("500", "503", "closed", "timeout", "broken", "refused")
_AWAY = {
    "500": b'{"errors": [{"message": "Internal Server Error", "field": null, "help": null}]}',
    "503": b"<html><body><h1>503 Service Unavailable</h1></body></html>",
}
#: An answer that took longer than this many seconds counts as slow.
_SLOW = 0.2


class Relay:
    """The wire to the sandbox, on a port of its own."""

    def __init__(self) -> None:
        #: Bound and never listening: keeps the port ours, and connections refused, while shut.
        self._guard = _bound(0)
        self.port: int = self._guard.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstream = ""
        #: What came back: "202", "429", "cut", "slow", …
        self.answers: Counter[str] = Counter()
        self.posted = Postman()
        self._lock = threading.Lock()
        self._under_way = 0
        self._last = time.monotonic()
        self._server: _Server | None = None
        #: One of OUTAGES while it lasts.
        self.outage = ""
        #: The next one, and after how many more requests that were accepted it begins.
        self._next, self._after = "", 0
        #: Seconds after which whoever sends has given up waiting.
        self.patience = 3.0
        self.open()

    def open(self) -> None:
        """Let connections in."""
        if self._server is None:
            self._server = _Server(self)
            threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
            ).start()

    def shut(self) -> None:
        """Refuse connections from now on; requests under way end as they end."""
        self.answers["refused"] += 1
        self._stop()

    def fail(self, outage: str, *, after: int) -> None:
        """Let every request fail so, as soon as so many more were accepted."""
        with self._lock:
            self._next, self._after = outage, after

    def heal(self) -> None:
        """The outage is over, or does not come."""
        with self._lock:
            self._next = self.outage = ""
        self.open()

    def _accepted(self) -> None:
        with self._lock:
            self._after -= 1
            if not self._next or self._after > 0:
                return
            self.outage, self._next = self._next, ""
        if self.outage == "refused":
            self.shut()

    def close(self) -> None:
        """End for good."""
        self.posted.stop()
        self._stop()
        self._guard.close()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def idle(self) -> bool:
        """Whether nothing is on the wire, and was not a moment ago."""
        with self._lock:
            return self._under_way == 0 and time.monotonic() - self._last > 0.1

    def carry(self, path: str, body: bytes, headers: dict[str, str]) -> "Answer | None":
        """The sandbox's answer, or None when it hung up."""
        with self._lock:
            self._under_way += 1
        began = time.monotonic()
        try:
            answer = self._ask(path, body, headers)
        finally:
            with self._lock:
                self._under_way -= 1
                self._last = time.monotonic()
        with self._lock:
            self.answers["cut" if answer is None else str(answer[0])] += 1
            self.answers["slow"] += time.monotonic() - began > _SLOW
        if answer is not None and answer[0] == 202:
            self._accepted()
        return answer

    def _ask(self, path: str, body: bytes, headers: dict[str, str]) -> "Answer | None":
        if PUZZLE.encode() in body:
            return 400, {"Content-Type": "application/json"}, _NAMELESS
        there = HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            there.request("POST", path, body, headers)
            answer = there.getresponse()
            kept = ("Content-Type", "X-Message-Id", "X-RateLimit-Reset")
            said = {name: answer.headers[name] for name in kept if name in answer.headers}
            return answer.status, said, answer.read()
        except (OSError, HTTPException):
            return None
        finally:
            there.close()


#: Status, headers and body.
Answer = tuple[int, dict[str, str], bytes]


class Postman(threading.Thread):
    """Carries events to the service; what cannot be delivered is kept and tried again."""

    def __init__(self) -> None:
        super().__init__(name="postman", daemon=True)
        self._waiting: deque[tuple[bytes, dict[str, str]]] = deque()
        self._stopping = threading.Event()
        #: Where the service is now, if it is anywhere.
        self.address: Callable[[], str | None] = lambda: None
        #: While closed he keeps everything.
        self.gate = threading.Event()
        self.start()

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """A post of the sandbox's."""
        self._waiting.append((body, headers))

    @property
    def empty(self) -> bool:
        """Whether everything was delivered."""
        return not self._waiting

    def stop(self) -> None:
        """Deliver nothing more."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Deliver in order, until told to stop."""
        while not self._stopping.wait(0.03):
            while self._waiting and self.gate.is_set() and not self._stopping.is_set():
                if not self._deliver(*self._waiting[0]):
                    break
                self._waiting.popleft()

    def _deliver(self, body: bytes, headers: dict[str, str]) -> bool:
        where = self.address()
        if where is None:
            return False
        request = urllib.request.Request(f"{where}/webhooks/sendgrid/events", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            # 401 comes from a process whose clock has jumped; a later try meets a better one.
            error.close()
            return False
        except (OSError, HTTPException):
            return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, relay: Relay) -> None:
        super().__init__(("127.0.0.1", relay.port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = _bound(relay.port)
        self.server_activate()
        self.relay = relay

    def handle_error(self, *_: Any) -> None:
        """A client that was killed in the middle is what all this is about."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        relay = self.server.relay
        outage = relay.outage if self.path != "/events" else ""
        if outage == "closed" and random.random() < 0.3:
            relay.answers["closed"] += 1
            return  # in the middle of the body
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the sender died before its last byte left: nobody gets this request
        if self.path == "/events":
            relay.posted.take(body, _only(self.headers, "X-Twilio", "Content-Type"))
            self._answer((200, {}, b""))
            return
        if not outage or random.random() < 0.5:
            kept = _only(self.headers, "Authorization", "Content-Type")
            answer = relay.carry(self.path, body, kept)
        if not outage and answer is not None:
            self._answer(answer)
        elif outage:
            relay.answers[outage] += 1
            self._fail(outage, relay.patience)

    def _fail(self, outage: str, patience: float) -> None:
        if outage in _AWAY:
            self._answer((int(outage), {}, _AWAY[outage]))
        elif outage == "timeout":
            time.sleep(patience)
        elif outage == "broken":
            whole = b"HTTP/1.1 202 Accepted\r\nX-Message-Id: abc\r\nContent-Length: 9\r\n\r\n{}"
            with suppress(OSError):
                self.wfile.write(whole[: random.randrange(1, len(whole))])
        elif random.random() < 0.5:
            # RST in place of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _answer(self, answer: Answer) -> None:
        status, headers, body = answer
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _only(headers: Any, *prefixes: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith(prefixes)}


def _bound(port: int) -> socket.socket:
    """A socket on that port, which may have another beside it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
