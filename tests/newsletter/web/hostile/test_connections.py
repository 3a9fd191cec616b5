"""uvicorn with our limits: no client keeps a connection longer than it has a use for.

A small application stands for the service; the times are shortened. How the service fares
among a thousand such clients is in tests/fuzz/test_slow_clients.py.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn

from newsletter.web import connections
from newsletter.web.connections import Phase

HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
#: Longer than any of the shortened times; a test that ends by it has failed.
LONG = 30.0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_EVERY", 0.05)
    monkeypatch.setattr(connections, "GRACE", 0.5)
    monkeypatch.setattr(connections, "LEAST_RATE", 1_000_000)
    short = {Phase.HEAD: 0.5, Phase.IDLE: 0.5, Phase.REST: 0.5, Phase.BODY: 0.5}
    monkeypatch.setattr(connections, "_TIMEOUTS", {Phase.WORK: float("inf"), **short})


class Works:
    """Reads a body, works for as long as it is told to, and answers at length."""

    def __init__(self) -> None:
        self.answer = b"done"
        self.go_on = threading.Event()
        self.go_on.set()
        self.under_way = 0
        self.begun = 0

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.under_way += 1
        self.begun += 1
        try:
            if scope["path"] != "/unread":
                while (message := await receive()).get("more_body"):
                    pass
                if message["type"] == "http.disconnect":
                    return
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
            length = (b"content-length", b"%d" % len(self.answer))
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            for begin in range(0, len(self.answer), 65536):
                part = self.answer[begin : begin + 65536]
                more = begin + 65536 < len(self.answer)
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            self.under_way -= 1


@contextmanager
def serving(app: Works, most: int = 50) -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=connections.limited_to(most),
        ws="none",
        log_config=None,
        timeout_keep_alive=connections.IDLE_TIMEOUT,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield listening.getsockname()
        app.go_on.set()
        server.should_exit = True
        thread.join(LONG)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def opened(address: tuple[str, int], first: bytes = b"") -> socket.socket:
    one = socket.create_connection(address, timeout=LONG)
    one.sendall(first)
    return one


def ended(one: socket.socket) -> bool:
    """Whether the other end closes the connection, sooner or later."""
    one.settimeout(LONG)
    try:
        while one.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def answered(one: socket.socket) -> bool:
    one.settimeout(LONG)
    return one.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"G", id="one byte"),
        pytest.param(HELLO[:-2], id="all but the end of the head"),
        pytest.param(HELLO, id="nothing after an answer"),
        pytest.param(HELLO + b"GET", id="half a request after an answer"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", id="no body"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            id="half a chunk",
        ),
        pytest.param(
            b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            id="a body that nobody reads",
        ),
    ],
)
def test_who_sends_no_more_is_let_go(first: bytes) -> None:
    with serving(Works()) as address, opened(address, first) as one:
        assert ended(one)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["head", "body", "chunks"],
)
def test_a_byte_now_and_then_keeps_nothing_open(first: bytes, then: bytes) -> None:
    with serving(Works()) as address, opened(address, first) as one:

        def drips() -> bool:
            try:
                one.sendall(then)
                time.sleep(0.03)
            except OSError:
                return True
            return False

        until(drips)


@pytest.mark.slow
def test_who_does_not_read_is_let_go_and_what_answered_them_ends() -> None:
    works = Works()
    works.answer = b"x" * 50_000_000
    with serving(works) as address:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(address)
            one.sendall(HELLO)
            until(lambda: works.begun == 1)
            until(lambda: works.under_way == 0)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(address)
            one.sendall(HELLO * 100)  # pipelined
            until(lambda: works.begun >= 2 and works.under_way == 0)
            assert works.begun < 10


def test_who_reads_a_long_answer_steadily_gets_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "GRACE", 5.0)
    works = Works()
    works.answer = b"x" * 3_000_000
    with serving(works) as address, opened(address, HELLO) as one:
        got = 0
        while got < 3_000_000:
            part = one.recv(100_000)
            assert part
            got += len(part)
            time.sleep(0.02)


@pytest.mark.slow
def test_our_own_time_is_not_theirs() -> None:
    works = Works()
    works.go_on.clear()
    with serving(works) as address, opened(address, HELLO) as one:
        until(lambda: works.under_way == 1)
        time.sleep(1.5)  # three times what a client has
        works.go_on.set()
        assert answered(one)


def test_another_connection_takes_the_place_of_the_one_that_waits_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connections._TIMEOUTS, Phase.HEAD, float("inf"))
    with serving(Works(), most=5) as address, ExitStack() as stack:
        waiting = []
        for _ in range(5):
            waiting.append(stack.enter_context(opened(address, b"G")))
            time.sleep(0.05)
        with opened(address, HELLO) as one:
            assert answered(one)
        assert ended(waiting[0])
        for one in waiting[1:]:
            one.sendall(HELLO[1:])
            assert answered(one)


def test_what_is_worked_on_is_not_given_up_for_another_connection() -> None:
    works = Works()
    works.go_on.clear()
    with serving(works, most=3) as address, ExitStack() as stack:
        busy = [stack.enter_context(opened(address, HELLO)) for _ in range(3)]
        until(lambda: works.under_way == 3)
        with opened(address) as one:
            assert ended(one)
        works.go_on.set()
        assert all(answered(one) for one in busy)


def test_who_asks_for_another_protocol_is_answered_in_this_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with serving(Works()) as address:
        for _ in range(3):
            with opened(address, ask) as one:
                assert answered(one)
    assert not caplog.records


CHUNKED = b"%s /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("bad", [b"\xff\r\n", b"zz\r\n", b"1\r\nab"])
def test_a_body_that_is_no_http_is_answered_and_no_fault(
    method: bytes, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = Works()
    with serving(app) as address:
        for first in (b"", b"1\r\na\r\n"):
            with socket.create_connection(address) as one:
                one.sendall(CHUNKED % (method, b"") + first + bad)
                said = everything(one)
            assert said.startswith(b"HTTP/1.1 400 ")
            assert said.endswith(b"\r\n\r\n" if method == b"HEAD" else b"received.")
        until(lambda: not app.under_way)
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


def test_what_is_no_http_behind_an_answer_ends_the_connection_and_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(Works()) as address, socket.create_connection(address) as one:
        one.sendall(CHUNKED % (b"POST", b"unread"))
        said = b""
        while not said.endswith(b"done"):
            said += one.recv(4096)
        one.sendall(b"zz\r\n")
        assert everything(one) == b""
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


def everything(one: socket.socket) -> bytes:
    """What comes until the connection ends."""
    one.settimeout(LONG)
    said = b""
    while got := one.recv(4096):
        said += got
    return said
