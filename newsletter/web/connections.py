"""Limits connections of the server: timeouts for slow clients, and how many may be open.

uvicorn has a timeout only between two requests. Here each connection has a phase, and each phase
in which we wait for the client has a timeout:

- ``HEAD``: the head of a request, ``HEAD_TIMEOUT`` from the connection or its first byte.
- ``BODY`` and ``ANSWER``: receiving a body, and sending an answer, ``GRACE`` plus a second for
  each ``LEAST_RATE`` bytes. Time in which the service itself works does not count.
- ``REST``: the rest of a request that was answered before its end, ``REST_TIMEOUT``.
- ``IDLE``: between two requests, uvicorn's own timer (``timeout_keep_alive``).

When ``most`` connections are open, a new one closes those that have kept us waiting longest, but
never one whose request is being processed. So slow clients cannot use up the file descriptors that
the process needs for the database and the provider, nor keep new clients out.
"""

import asyncio
import heapq
import logging
import socket
from enum import Enum, auto
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)

#: Seconds for the head of a request, which takes two packets on bad lines.
HEAD_TIMEOUT: Final = 10.0
#: Seconds before the rate counts, and bytes per second from then on: a fifth of a modem's rate.
GRACE, LEAST_RATE = 20.0, 1000
#: Seconds for the rest of a request that was answered before its end, so that the client can read
#: the answer instead of a reset.
REST_TIMEOUT: Final = 5.0
#: Seconds that a connection may be idle: longer than in proxies (60 in nginx), so that they do not
#: send a request on a connection that we are closing.
IDLE_TIMEOUT: Final = 75
#: Bytes of an answer that the kernel buffers for a client that does not read. By default Linux
#: buffers up to 4 MB; this still allows 2.5 MB per second around the world.
_KERNEL_BUFFER: Final = 256 * 1024
#: Seconds between two checks of a connection.
_EVERY: Final = 1.0
#: Close this fraction of all connections (1 in 20) at once, so that the search is rare.
_AT_ONCE: Final = 20


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    HEAD = auto()
    REST = auto()
    BODY = auto()
    ANSWER = auto()
    #: Waits for the service, not for the client.
    WORK = auto()


class Connection(H11Protocol):
    """uvicorn's connection with a timeout in each phase; at most ``most`` may be open."""

    most = 1000

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 (uvicorn's own)
        super().__init__(*arguments, **named)
        self._phase = Phase.HEAD
        self._since = self.loop.time()
        #: Whether a part of a request's head was received.
        self._begun = False
        #: Bytes of the body received, or of the answer still to send, when the phase began.
        self._bytes = 0
        self._next_check: asyncio.TimerHandle | None = None

    @property
    def waited(self) -> float:
        """Seconds that we have waited for the client, less the time for the bytes it has sent."""
        if self._phase is Phase.WORK:
            return 0.0
        seconds = self.loop.time() - self._since
        return seconds - self._bytes / LEAST_RATE if self._phase is Phase.BODY else seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, and close others if there are too many."""
        if len(self.connections) >= self.most and not self._make_room():
            # All others are being processed. The client can try again in a moment.
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        self._next_check = self.loop.call_later(_EVERY, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        if self._next_check is not None:
            self._next_check.cancel()
        if self.flow is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process the bytes and update the phase."""
        self._begun = True
        self._bytes += len(data)
        super().data_received(data)
        self._update_phase()

    def on_response_complete(self) -> None:
        """Update the phase: the next request may come."""
        self._begun = False
        super().on_response_complete()
        self._update_phase()

    def pause_writing(self) -> None:
        """Update the phase: the client reads more slowly than we send."""
        super().pause_writing()
        self._update_phase()

    def resume_writing(self) -> None:
        """Update the phase: the client has read."""
        super().resume_writing()
        self._update_phase()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: any client can request another protocol, and is answered in HTTP."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, unless it was answered, and close the connection.

        uvicorn's own method raises for a broken body if the request was HEAD or was answered.
        """
        cycle = self.cycle
        open_cycle = cycle is not None and not cycle.response_complete
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            text = msg.encode("ascii")
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(text)),
                (b"connection", b"close"),
            ]
            self._send(h11.Response(status_code=400, headers=headers, reason=b"Bad Request"))
            if not (open_cycle and cycle.scope["method"] == "HEAD"):
                self._send(h11.Data(data=text))
            self._send(h11.EndOfMessage())
        if open_cycle:
            # The handler of the request reads no further and sends no answer.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _send(self, event: h11.Event) -> None:
        if output := self.conn.send(event):
            self.transport.write(output)

    def give_up(self) -> None:
        """Close the connection at once and drop what was not sent."""
        self.connections.discard(self)
        self.transport.abort()

    def _update_phase(self) -> None:
        phase = self._current_phase()
        if phase is not self._phase:
            self._phase, self._since, self._bytes = phase, self.loop.time(), 0
            if phase is Phase.ANSWER:
                self._bytes = self.transport.get_write_buffer_size()

    def _current_phase(self) -> Phase:
        if self.flow.write_paused or self.transport.is_closing():
            return Phase.ANSWER
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if cycle is not None and self.conn.their_state is h11.SEND_BODY:
                return Phase.REST
            return Phase.HEAD if cycle is None or self._begun else Phase.IDLE
        if cycle.more_body and not cycle.waiting_for_100_continue:
            return Phase.BODY
        return Phase.WORK

    def _check(self) -> None:
        """Close the connection if the client has taken too long; runs each second."""
        self._next_check = self.loop.call_later(_EVERY, self._check)
        self._update_phase()
        if self._phase is Phase.BODY and self.flow.read_paused:
            self._since += _EVERY  # the service does not read, so the client cannot send
        if self.waited >= self._timeout():
            self.give_up()

    def _timeout(self) -> float:
        if self._phase is Phase.ANSWER:
            return GRACE + self._bytes / LEAST_RATE
        return _TIMEOUTS[self._phase]

    def _make_room(self) -> bool:
        """Close the connections that we have waited for longest; False if we wait for none."""
        waiting = [
            one for one in self.connections if isinstance(one, Connection) and one.waited > 0
        ]
        longest = heapq.nlargest(max(1, self.most // _AT_ONCE), waiting, key=lambda one: one.waited)
        for one in longest:
            one.give_up()
        _log.warning(
            "%s connections are open, which is the limit (web.max_connections): "
            "those with the slowest clients are closed",
            self.most,
        )
        return bool(longest)


_TIMEOUTS = {
    Phase.IDLE: float(IDLE_TIMEOUT),
    Phase.HEAD: HEAD_TIMEOUT,
    Phase.REST: REST_TIMEOUT,
    Phase.BODY: GRACE,
    Phase.WORK: float("inf"),
}


def limited_to(most: int) -> type[Connection]:
    """A connection class with this limit."""
    return type("Connection", (Connection,), {"most": most})
