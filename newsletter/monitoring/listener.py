"""A small HTTP server for monitoring alone, in a process without a web server or beside it.

It waits in the kernel and costs nothing while nobody asks. It has few connections, each for one
request; a further one closes the oldest, so slow clients cannot keep it busy.
"""

import logging
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Self

import orjson

from newsletter.errors import MachineError
from newsletter.monitoring.process_monitor import ProcessMonitor

_log = logging.getLogger(__name__)
#: Open connections, and seconds that one may wait for its client.
_MOST, _TIMEOUT = 8, 5.0


class MonitorListener:
    """Answers /healthz, /readyz and /metrics on a port of its own, within a ``with`` block."""

    def __init__(self, monitor: ProcessMonitor, host: str, port: int) -> None:
        self._monitor = monitor
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise MachineError(
                f"cannot listen there: {error.strerror or error}",
                place=f"{host}:{port}",
                hint="Stop what uses it, or choose another port for the monitoring.",
            ) from None
        shown = f"[{host}]" if ":" in host else host
        #: The URL of the listener.
        self.url: Final = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, name="monitoring", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping = True
        # Wakes the thread. Some systems refuse this for a listening socket; closing wakes it there.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, client = self._socket.accept()
            except OSError as error:
                if not self._stopping:
                    _log.warning("the monitoring cannot accept a connection: %s", error.strerror)
                    time.sleep(1)
                continue
            with self._lock:
                if len(self._open) >= _MOST:
                    _close(self._open.pop(0))
                self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection, client), daemon=True).start()

    def _answer(self, connection: socket.socket, client: Any) -> None:  # noqa: ANN401 (of the socket module)
        try:
            _Handler(connection, client, self._monitor)  # type: ignore[arg-type]
        except OSError as error:
            _log.debug("a client of the monitoring disconnected, or was too slow: %s", error)
        except Exception:  # noqa: BLE001 (the next request may be answered)
            _log.exception("the monitoring could not answer")
        finally:
            with self._lock:
                if connection in self._open:
                    self._open.remove(connection)
            _close(connection)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = _TIMEOUT
    server: ProcessMonitor  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answer it."""
        status, body = HTTPStatus.NOT_FOUND, b""
        headers = {"Content-Type": "application/json"}
        match self.path.partition("?")[0]:
            case "/healthz":
                status, body = HTTPStatus.OK, b'{"status":"ok"}'
            case "/readyz":
                status, found = self.server.readiness()
                body = orjson.dumps(found)
            case "/metrics":
                given = self.headers.get("Authorization", "")
                answer = self.server.metrics(given, token_required=False)
                status, body = answer.status, answer.body
                headers = answer.headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer it without a body."""
        self.do_GET()

    def version_string(self) -> str:
        """The Server header, without versions."""
        return "newsletter"

    def log_message(self, *_arguments: object) -> None:
        """Log no requests."""
