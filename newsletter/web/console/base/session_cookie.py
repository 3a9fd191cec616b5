"""The session cookie, the CSRF token, and where a redirect may lead after signing in.

Every browser in the console has a cookie. Before signing in, it belongs to no session. The CSRF
token is a MAC of the cookie, so it ends with it.
"""

import hmac
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from newsletter.accounts import sessions
from newsletter.web.base_path import base_path

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
#: Only paths of the console, so that a link to the sign-in page cannot redirect to another site.
_OURS = re.compile(r"/console/[A-Za-z0-9._~%=&?+/-]*")
HOME = "/console/"


def cookie_name(base_url: str) -> str:
    """The name of the cookie. With https, its prefix requires the Secure attribute.

    ``__Host-`` would also require Path=/, which would send our cookie to other services on the
    host.
    """
    if not base_url.startswith("https://"):
        return "console"
    return "__Secure-console" if base_path(base_url) else "__Host-console"


def token_in(request: Request, base_url: str) -> str:
    """The browser's token; empty if there is none or it is not valid."""
    given = request.cookies.get(cookie_name(base_url), "")
    return given if _TOKEN.fullmatch(given) else ""


class OwnCookieOnly:
    """ASGI middleware that passes on only our own cookie.

    Starlette parses all cookies, and the standard library takes seconds to unquote a header of
    60 KB (CVE-2024-7592). Our cookie has no quotes.
    """

    def __init__(self, app: ASGIApp, *, base_url: str) -> None:
        self._app = app
        self._name = cookie_name(base_url).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each connection."""
        if scope["type"] == "http":
            others, token = [], b""
            for name, value in scope["headers"]:
                if name.lower() == b"cookie":
                    token = token or self._token(value)
                else:
                    others.append((name, value))
            own = [(b"cookie", self._name + b"=" + token)] if token else []
            scope = {**scope, "headers": [*others, *own]}
        await self._app(scope, receive, send)

    def _token(self, header: bytes) -> bytes:
        """The first token of ours in a header; empty if there is none.

        Browsers send the cookie with the longest path first (RFC 6265, section 5.4), so ours comes
        before one of a service at a shorter path of the same host.
        """
        for part in header.split(b";"):
            name, _, value = part.partition(b"=")
            if name.strip() == self._name and _TOKEN.fullmatch(value.strip().decode("latin-1")):
                return value.strip()
        return b""


def set_token(response: Response, token: str, base_url: str) -> None:
    """Set a token in the browser, until the browser is closed or the session ends."""
    response.set_cookie(
        cookie_name(base_url),
        token,
        path=base_path(base_url) or "/",
        secure=base_url.startswith("https://"),
        httponly=True,
        samesite="lax",
    )


def clear(response: Response, base_url: str) -> None:
    """Replace the token by one without a session."""
    set_token(response, sessions.new_token(), base_url)


def form_token(keys: Sequence[bytes], token: str) -> str:
    """The CSRF token of this browser's forms."""
    return _mac(keys[0], token)


def is_genuine(request: Request, keys: Sequence[bytes], token: str, given: str) -> bool:
    """Whether the CSRF token of a post is this browser's."""
    sent = (given or request.headers.get("x-csrf-token", "")).encode(errors="replace")
    # Compares with all keys, so that the time does not depend on which one matches.
    fits = [hmac.compare_digest(_mac(key, token).encode(), sent) for key in keys]
    return bool(token) and any(fits)


def is_same_origin(request: Request, base_url: str) -> bool:
    """Whether the post comes from one of our pages, by Origin or Sec-Fetch-Site if present."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    ours = urlsplit(base_url)
    # The Host header counts too: a user on this machine may have typed localhost.
    host = request.headers.get("host", "")
    return origin in {f"{ours.scheme}://{ours.netloc}", f"{ours.scheme}://{host}"}


def safe_next(text: str) -> str:
    """The path to open after signing in: the text if it is a page of the console, else home."""
    return text if len(text) <= 500 and _OURS.fullmatch(text) else HOME


def _mac(key: bytes, token: str) -> str:
    return hmac.digest(key, b"console form\0" + token.encode(), "sha256").hex()
