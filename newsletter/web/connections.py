"""An end to waiting for clients: timeouts of a connection, and how many there may be.

uvicorn waits for a client for as long as the client likes, but between two requests. Here each
connection has a phase, and the phases in which the client is to move have an end:

- ``HEAD``: the head of a request has ``HEAD_TIMEOUT``, from the connection or its first byte.
- ``BODY`` and ``ANSWER``: a body, and the reading of an answer, have ``GRACE`` and then a second
  for each ``LEAST_RATE`` bytes. What the service itself takes its time for does not count.
- ``REST``: what still comes of a request that was answered has ``REST_TIMEOUT``.
- ``IDLE``: between two requests, uvicorn's own timer (``timeout_keep_alive``).

When ``most`` connections are open, another one takes the place of those that have kept us
waiting longest; a request that is worked on is never given up for one. So the files of a process
always suffice for the database and the provider, however many clients hold on, and who has
just come is heard before those that hold on.
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

#: Seconds for the head of a request; people on bad lines send one in two packets.
HEAD_TIMEOUT: Final = 10.0
#: Seconds before the rate counts, and bytes a second from then on: a fifth of a modem's.
GRACE, LEAST_RATE = 20.0, 1000
#: Seconds for what is left of a request that was answered before its end, to let the client read
#: the answer instead of a reset.
REST_TIMEOUT: Final = 5.0
#: Seconds that a connection may lie idle: longer than the proxies keep theirs (nginx 60), or
#: they would post into one that we are just closing.
IDLE_TIMEOUT: Final = 75
#: Bytes of an answer that the system keeps for a client that does not read. Left alone, Linux
#: lets them grow to 4 MB for each; this still allows 2.5 MB a second around the world.
_KERNEL_BUFFER: Final = 256 * 1024
#: Seconds between two looks at a connection.
_EVERY: Final = 1.0
#: The part of all connections that makes room at once, so that to look for it stays cheap.
_AT_ONCE: Final = 20


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    HEAD = auto()
    REST = auto()
    BODY = auto()
    ANSWER = auto()
    #: For us, not for its client.
    WORK = auto()


class Connection(H11Protocol):
    """uvicorn's connection, with phases that end. ``most`` is how many there may be."""

    most = 1000

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 (uvicorn's own)
        super().__init__(*arguments, **named)
        self._phase = Phase.HEAD
        self._since = self.loop.time()
        #: Whether some of a request's head has come.
        self._begun = False
        #: Bytes since the phase began: of a body, those that came; of an answer, those to go.
        self._bytes = 0
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def waited(self) -> float:
        """Seconds that the client has kept us waiting; what it did send of a body is taken off."""
        if self._phase is Phase.WORK:
            return 0.0
        seconds = self.loop.time() - self._since
        return seconds - self._bytes / LEAST_RATE if self._phase is Phase.BODY else seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it in, in the place of others where there are too many."""
        if len(self.connections) >= self.most and not self._make_room():
            # All are worked on: whoever asks again in a moment finds an answer.
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        self._next_look = self.loop.call_later(_EVERY, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let it go."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self.flow is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand the bytes on, and note whose turn it is now."""
        self._begun = True
        self._bytes += len(data)
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """Note that the next request is waited for."""
        self._begun = False
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as it is answered."""
        super().pause_writing()
        self._note()

    def resume_writing(self) -> None:
        """Note that it has read."""
        super().resume_writing()
        self._note()

    def _unsupported_upgrade_warning(self) -> None:
        """Who asks for another protocol is answered in this one. Anybody can; no log says so."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, where an answer is still owed, and end the connection.

        uvicorn's own raises for a broken body when its request was HEAD, or answered already.
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
            # Who works on it reads no further, and has nothing to answer any more.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _send(self, event: h11.Event) -> None:
        if output := self.conn.send(event):
            self.transport.write(output)

    def give_up(self) -> None:
        """End the connection at once; what was still to be sent is not."""
        self.connections.discard(self)
        self.transport.abort()

    def _note(self) -> None:
        phase = self._whose_turn()
        if phase is not self._phase:
            self._phase, self._since, self._bytes = phase, self.loop.time(), 0
            if phase is Phase.ANSWER:
                self._bytes = self.transport.get_write_buffer_size()

    def _whose_turn(self) -> Phase:
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

    def _look(self) -> None:
        """Each second: whether the client has taken too long."""
        self._next_look = self.loop.call_later(_EVERY, self._look)
        self._note()
        if self._phase is Phase.BODY and self.flow.read_paused:
            self._since += _EVERY  # it is we who do not read
        if self.waited >= self._may_wait():
            self.give_up()

    def _may_wait(self) -> float:
        if self._phase is Phase.ANSWER:
            return GRACE + self._bytes / LEAST_RATE
        return _TIMEOUTS[self._phase]

    def _make_room(self) -> bool:
        """Give up those that kept us waiting longest; False when none does."""
        waiting = [
            one for one in self.connections if isinstance(one, Connection) and one.waited > 0
        ]
        longest = heapq.nlargest(max(1, self.most // _AT_ONCE), waiting, key=lambda one: one.waited)
        for one in longest:
            one.give_up()
        _log.warning(
            "%s connections are open, the most that there may be (web.max_connections): "
            "those that wait for their client longest are closed",
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
    """The kind of connection of which there may be so many."""
    return type("Connection", (Connection,), {"most": most})
