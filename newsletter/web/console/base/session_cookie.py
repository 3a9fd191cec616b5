"""The cookie, the token against forged posts, and where a person may be sent on to.

Everybody who opens a page of the console has a cookie: before signing in it stands for
nobody. The form's token is a MAC over the cookie, so it dies with it.
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
#: Paths of the console only, so that no link to our sign-in leads to another site.
_OURS = re.compile(r"/console/[A-Za-z0-9._~%=&?+/-]*")
HOME = "/console/"


def cookie_name(base_url: str) -> str:
    """With https the name itself asks for Secure.

    ``__Host-`` asks for Path=/ as well, which below a path would give our cookie to whatever
    else stands on the host.
    """
    if not base_url.startswith("https://"):
        return "console"
    return "__Secure-console" if base_path(base_url) else "__Host-console"


def token_in(request: Request, base_url: str) -> str:
    """The browser's token; empty when there is none or it is not of our making."""
    given = request.cookies.get(cookie_name(base_url), "")
    return given if _TOKEN.fullmatch(given) else ""


class OwnCookieOnly:
    """ASGI middleware that passes on our own cookie and no other.

    The framework reads all cookies on every path, and to undo their quotes the standard library
    takes seconds for a header of 60 kB (CVE-2024-7592). Ours has none.
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
        """The first token of ours in a header; empty when there is none.

        Of cookies of one name, browsers send the one with the longest path first: that of a
        service which stands above ours on the same host comes later (RFC 6265, section 5.4).
        """
        for part in header.split(b";"):
            name, _, value = part.partition(b"=")
            if name.strip() == self._name and _TOKEN.fullmatch(value.strip().decode("latin-1")):
                return value.strip()
        return b""


def give(response: Response, token: str, base_url: str) -> None:
    """Put a token into the browser, until it is closed or the session ends here."""
    response.set_cookie(
        cookie_name(base_url),
        token,
        path=base_path(base_url) or "/",
        secure=base_url.startswith("https://"),
        httponly=True,
        samesite="lax",
    )


def take_away(response: Response, base_url: str) -> None:
    """Replace the token by one that stands for nobody."""
    give(response, sessions.new_token(), base_url)


def form_token(keys: Sequence[bytes], token: str) -> str:
    """What the forms of this browser carry."""
    return _mac(keys[0], token)


def is_genuine(request: Request, keys: Sequence[bytes], token: str, given: str) -> bool:
    """Whether a post comes from a form that we gave to this browser."""
    sent = (given or request.headers.get("x-csrf-token", "")).encode(errors="replace")
    # No short cut: each key is tried, or none fits anyhow.
    fits = [hmac.compare_digest(_mac(key, token).encode(), sent) for key in keys]
    return bool(token) and any(fits)


def comes_from_here(request: Request, base_url: str) -> bool:
    """Whether the browser says that one of our own pages posts, as far as it says anything."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    ours = urlsplit(base_url)
    # A person on the machine itself may have typed localhost.
    host = request.headers.get("host", "")
    return origin in {f"{ours.scheme}://{ours.netloc}", f"{ours.scheme}://{host}"}


def safe_next(text: str) -> str:
    """Where to go after signing in: a page of the console, whatever the address asked for."""
    return text if len(text) <= 500 and _OURS.fullmatch(text) else HOME


def _mac(key: bytes, token: str) -> str:
    return hmac.digest(key, b"console form\0" + token.encode(), "sha256").hex()
