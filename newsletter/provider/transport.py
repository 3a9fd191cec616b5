"""How a request reaches the provider: over connections that tell how far it came.

Python's own handlers follow redirects, as a GET without the body and with the API key, take
an answer whose head is cut off for a whole one, and do not tell whether a failure came
before the first byte or after the last. What becomes of a batch depends on each of these.
"""

import urllib.error
import urllib.request
from http.client import (
    HTTPConnection,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from typing import IO, Any


class Exchange:
    """One request and its answer."""

    def __init__(self) -> None:
        #: Whether bytes of the request may be with the provider.
        self.connected = False


class Handler(urllib.request.AbstractHTTPHandler):
    """Makes the connections of an opener, before its own handlers are asked."""

    handler_order = 100

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Send it in the clear."""
        return self.do_open(_Connection, request, exchange=self._exchange)  # type: ignore[arg-type]

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Send it over TLS."""
        return self.do_open(_SecureConnection, request, exchange=self._exchange)  # type: ignore[arg-type]

    def http_error_302(
        self,
        request: urllib.request.Request,
        answer: IO[bytes],
        status: int,
        reason: str,
        headers: HTTPMessage,
    ) -> None:
        """A redirect is an answer like any other that is no success."""
        raise urllib.error.HTTPError(request.full_url, status, reason, headers, answer)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _WholeLines:
    """A file whose lines must end: the head of an answer, and an empty line after it."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 (http.client's own)
        self.file = file
        self._begun = False

    def readline(self, limit: int) -> bytes:
        line: bytes = self.file.readline(limit)
        # No line at all is no answer, which http.client tells by itself.
        if (self._begun or line) and not line.endswith(b"\n") and len(line) < limit:
            raise IncompleteRead(line)
        self._begun = True
        return line

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (http.client closes it, too)
        return getattr(self.file, name)


class _Response(HTTPResponse):
    def begin(self) -> None:
        """Read the head, whole or not at all."""
        body = self.fp
        self.fp = _WholeLines(body)  # type: ignore[assignment]
        super().begin()
        self.fp = body


class _Connection(HTTPConnection):
    response_class = _Response

    def __init__(self, *args: Any, exchange: Exchange, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **named)
        self._exchange = exchange

    def connect(self) -> None:
        """Connect, over TLS if that is wanted; from then on bytes may leave."""
        super().connect()
        self._exchange.connected = True


class _SecureConnection(_Connection, HTTPSConnection):
    pass
