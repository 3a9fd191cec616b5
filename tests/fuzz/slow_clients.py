"""Clients that hold on: each kind opens connections and sends or reads as little as it can."""

import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[2]
#: A page large enough that it does not fit into the buffers between two sockets.
LARGE = "/static/vendor/htmx-2.0.11.min.js"


@dataclass
class Crowd:
    """Many connections of one kind, held by one thread."""

    address: tuple[str, int]
    size: int
    #: What a connection sends at once, and what it sends of itself each second after that.
    first: bytes
    then: bytes = b""
    #: Bytes that it reads each second; None for as fast as it can.
    reads: int | None = None
    #: Connections that it opens in its first seconds: more, where they ask for nothing.
    at_first: int = 200
    opened: int = 0
    closed: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    def hold(self, said: Callable[[str], object]) -> None:
        """Open all, say so, and hold; another one takes the place of each that is closed."""
        while len(self._open) < self.size:
            began = time.monotonic()
            self._fill(self.at_first)
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))
        said(f"{self.opened}")
        while True:
            began = time.monotonic()
            self._open = [one for one in self._open if self._alive(one)]
            self._fill(_A_SECOND)
            time.sleep(max(0.05, 1 - (time.monotonic() - began)))
            said(f"{self.opened} {self.closed}")

    def _fill(self, most: int) -> None:
        for _ in range(min(most, self.size - len(self._open))):
            one = socket.socket()
            one.settimeout(20)
            if self.reads is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                one.connect(self.address)
                one.sendall(self.first)
            except OSError:
                one.close()
                return
            one.setblocking(False)
            self.opened += 1
            self._open.append(one)

    def _alive(self, one: socket.socket) -> bool:
        try:
            if self.then:
                one.send(self.then)
            while self.reads != 0:
                got = one.recv(self.reads or 65536)
                if not got:
                    break
                if self.reads is not None:
                    return True
            else:
                return True
        except BlockingIOError:
            return True
        except OSError:
            pass
        one.close()
        self.closed += 1
        return False


def half_open(address: tuple[str, int], size: int) -> Crowd:
    """Say nothing at all."""
    return Crowd(address, size, b"", at_first=size)


def slow_head(address: tuple[str, int], size: int) -> Crowd:
    """A request's head, one byte a second."""
    return Crowd(address, size, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", b"a")


def slow_body(address: tuple[str, int], size: int) -> Crowd:
    """A form, one byte a second."""
    head = (
        b"POST /console/sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\na="
    )
    return Crowd(address, size, head, b"b")


def slow_reader(address: tuple[str, int], size: int) -> Crowd:
    """Ask for a large file many times over, and read one byte a second."""
    ask = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % LARGE.encode()
    return Crowd(address, size, ask * 10, reads=1)


def idle(address: tuple[str, int], size: int) -> Crowd:
    """One request, and then nothing more on a connection that is kept."""
    return Crowd(address, size, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


def pipelined(address: tuple[str, int], size: int) -> Crowd:
    """Some requests at once, and no answer read."""
    return Crowd(address, size, b"GET /client-address HTTP/1.1\r\nHost: x\r\n\r\n" * 3, reads=0)


KINDS: dict[str, Callable[[tuple[str, int], int], Crowd]] = {
    made.__name__: made for made in (half_open, slow_head, slow_body, slow_reader, idle, pipelined)
}
#: Connections that a crowd opens anew in a second: what is looked at is holding on, not a flood.
_A_SECOND = 50


@contextmanager
def holding(kind: str, address: tuple[str, int], size: int) -> Iterator[Callable[[], str]]:
    """A crowd at work in a process of its own, from when all of it was there once.

    Yields what it says of itself: how many it opened, and how many were closed on it.
    """
    words = [sys.executable, "-m", "tests.fuzz.slow_clients", kind, *map(str, address), str(size)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdout is not None
    said = [process.stdout.readline()]

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said[0] = line

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    try:
        yield lambda: said[0].strip()
    finally:
        process.kill()
        process.wait()
        listening.join()
        process.stdout.close()


def ask(address: tuple[str, int], request: bytes, *, seconds: float = 30) -> tuple[int, float]:
    """The status of an answer, and the seconds until it was there; status 0 without one.

    As a client does that is in no hurry: one that was refused tries once more.
    """
    began, status = time.monotonic(), 0
    for _ in range(2):
        status = _ask(address, request, seconds=seconds)
        if status:
            break
    return status, time.monotonic() - began


def _ask(address: tuple[str, int], request: bytes, *, seconds: float) -> int:
    try:
        with socket.create_connection(address, timeout=seconds) as one:
            one.sendall(request)
            said = b""
            with selectors.DefaultSelector() as wait:
                wait.register(one, selectors.EVENT_READ)
                while b"\r\n" not in said:
                    if not wait.select(seconds) or not (got := one.recv(4096)):
                        return 0
                    said += got
            return int(said.split(b" ", 2)[1])
    except OSError:
        return 0


def health(address: tuple[str, int]) -> tuple[int, float]:
    """Ask how the service is."""
    return ask(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def one_click(address: tuple[str, int], token: str) -> tuple[int, float]:
    """Leave, as a mail client does it (RFC 8058)."""
    body = b"List-Unsubscribe=One-Click"
    head = (
        f"POST /unsubscribe/{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return ask(address, head.encode() + body)


if __name__ == "__main__":
    _kind, _host, _port, _size = sys.argv[1:]
    _files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _files))
    KINDS[_kind]((_host, int(_port)), int(_size)).hold(
        lambda words: sys.stdout.write(f"{words}\n") and sys.stdout.flush()
    )
