"""Counts requests and measures their durations, by route."""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newsletter import metrics

#: Other methods of clients count as OTHER, because they may send any word.
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestMetrics:
    """ASGI middleware; a request counts when the head of its answer is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, counted = time.perf_counter(), False

        def count(status: int) -> None:
            nonlocal counted
            counted = True
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = _route(scope)
            metrics.HTTP_REQUESTS.add(method=method, route=route, status=str(status))
            metrics.HTTP_DURATION.observe(time.perf_counter() - begun, route=route)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and not counted:
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            if not counted:
                count(500)
            raise


def _route(scope: Scope) -> str:
    """The template of the path, which names no values; static files are one route."""
    if (template := getattr(scope.get("route"), "path", None)) is not None:
        return str(template)
    return "/static" if scope.get("path", "").startswith("/static/") else "none"
