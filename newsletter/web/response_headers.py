"""Security and cache headers of all responses."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newsletter.web import errors

#: Allows no scripts, frames, plugins or other sites, because public pages need none.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # URLs of our pages contain tokens, which other sites must not see.
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: Static files change only with a release.
_STATIC: Final = "public, max-age=600"


class EveryAnswer:
    """ASGI middleware that adds headers a page did not set, and keeps redirects on this site.

    It does not use Starlette's BaseHTTPMiddleware, which starts two tasks for each chunk of a body:
    a hundred clients that send one byte per second would keep the event loop busy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, replaced = Request(scope, receive), False
        cache_control = _STATIC if scope["path"].startswith("/static/") else "no-store"

        async def complete(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and not replaced:
                headers = MutableHeaders(scope=message)
                if message["status"] == 413 and headers.get("content-type") == _PLAIN:
                    # The middleware that limits bodies answers in two words; show a page instead.
                    replaced = True
                    await errors.too_large(request)(scope, receive, complete_page)
                    return
                _complete(headers, cache_control)
                if message["status"] == _FRAMEWORK_REDIRECT:
                    _make_relative(headers, request)
            if not replaced:
                await send(message)

        async def complete_page(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(MutableHeaders(scope=message), cache_control)
            await send(message)

        await self._app(scope, receive, complete)


#: The status of Starlette's redirects to a path with or without a slash; ours have other codes.
_FRAMEWORK_REDIRECT: Final = 307
_PLAIN: Final = "text/plain; charset=utf-8"


def _complete(headers: MutableHeaders, cache_control: str) -> None:
    for name, value in (*_HEADERS.items(), ("Cache-Control", cache_control)):
        headers.setdefault(name, value)


def _make_relative(headers: MutableHeaders, request: Request) -> None:
    """Remove the host from the redirect, because it comes from the client's Host header."""
    base_url = str(request.base_url)
    path = "/" + headers["location"].removeprefix(base_url)
    if headers["location"].startswith(base_url) and not path.startswith("//"):
        headers["location"] = path
