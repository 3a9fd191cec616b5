"""HTTP connections to the provider that record how far a request came.

Python's own handlers follow redirects with a GET that has no body but the API key, accept an
answer whose head is cut off, and do not say whether a request failed before its first byte was
sent. The outcome of a batch depends on each of these.
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
        #: Whether the provider may have bytes of the request.
        self.connected = False


class Handler(urllib.request.AbstractHTTPHandler):
    """Makes the connections of an opener; it comes before the default handlers."""

    handler_order = 100

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Send it without TLS."""
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
        """Treat a redirect as an error, like any other status that is no success."""
        raise urllib.error.HTTPError(request.full_url, status, reason, headers, answer)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _WholeLines:
    """A file that requires complete lines: the head of an answer and the empty line after it."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 (http.client's own)
        self.file = file
        self._begun = False

    def readline(self, limit: int) -> bytes:
        line: bytes = self.file.readline(limit)
        # Without any line there is no answer, which http.client reports itself.
        if (self._begun or line) and not line.endswith(b"\n") and len(line) < limit:
            raise IncompleteRead(line)
        self._begun = True
        return line

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (http.client closes it, too)
        return getattr(self.file, name)


class _Response(HTTPResponse):
    def begin(self) -> None:
        """Read the head; IncompleteRead if it is cut off."""
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
        """Connect, over TLS if required. After this, bytes of the request may be sent."""
        super().connect()
        self._exchange.connected = True


class _SecureConnection(_Connection, HTTPSConnection):
    pass
