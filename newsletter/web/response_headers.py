"""What every answer of the service carries, whichever page it is of."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newsletter.web import errors

#: No script, no frame, no plugin, nothing from elsewhere: the pages need none of it.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Links to our pages carry tokens: they are told to no other site.
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: Our own files change with a release.
_STATIC: Final = "public, max-age=600"


class EveryAnswer:
    """ASGI middleware that adds the headers a page did not set, and keeps redirects here.

    Not Starlette's BaseHTTPMiddleware, which starts two tasks for each piece of a body: some
    hundred clients that send a byte a second would keep the event loop busy with that alone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, replaced = Request(scope, receive), False
        kept = _STATIC if scope["path"].startswith("/static/") else "no-store"

        async def complete(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and not replaced:
                headers = MutableHeaders(scope=message)
                if message["status"] == 413 and headers.get("content-type") == _PLAIN:
                    # The library that measured the body says so in two words; a page says more.
                    replaced = True
                    await errors.too_large(request)(scope, receive, complete_page)
                    return
                _complete(headers, kept)
                if message["status"] == _FRAMEWORK_LEADS_ON:
                    _keep_here(headers, request)
            if not replaced:
                await send(message)

        async def complete_page(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(MutableHeaders(scope=message), kept)
            await send(message)

        await self._app(scope, receive, complete)


#: Status of the framework's redirects, to a path with a slash or without; none of ours has it.
_FRAMEWORK_LEADS_ON: Final = 307
_PLAIN: Final = "text/plain; charset=utf-8"


def _complete(headers: MutableHeaders, kept: str) -> None:
    for name, value in (*_HEADERS.items(), ("Cache-Control", kept)):
        headers.setdefault(name, value)


def _keep_here(headers: MutableHeaders, request: Request) -> None:
    """Lead on to a path alone: what the client calls us is not to be believed."""
    us = str(request.base_url)
    path = "/" + headers["location"].removeprefix(us)
    if headers["location"].startswith(us) and not path.startswith("//"):
        headers["location"] = path
