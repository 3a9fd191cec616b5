"""The path below which the service stands: ``/news`` where site.base_url ends with it.

Routes, handlers and pages know paths from ``/`` on. This module is the one place that knows
the path below which they stand: it takes the path off requests, and puts it before redirects
and before every address in a page, while the page's template is read.

A proxy may take the path off before it asks us (``proxy_pass http://…:8000/;``) or leave it.
Either way works without a setting: what begins with the path loses it, what does not has lost
it already.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

import jinja2
from jinja2.ext import Extension
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newsletter.errors import SettingsError

#: Attributes of our pages that hold addresses: HTML's, htmx's, the challenge's and our scripts'.
ATTRIBUTES: Final = (
    *("href", "src", "action", "formaction", "challenge", "data-live"),
    *("hx-get", "hx-post", "hx-put", "hx-delete", "hx-push-url"),
)
_ADDRESS = re.compile(rf'(?<=\s)({"|".join(ATTRIBUTES)})="(?:/(?!/)|\{{\{{(.*?)\}}\}})')


def base_path(base_url: str) -> str:
    """The path of ``site.base_url`` without a slash at its end; empty for none."""
    return urlsplit(base_url).path.rstrip("/")


def refuse_ambiguous(base_url: str, paths: Iterable[str]) -> None:
    """SettingsError when the path begins like one of our own ``paths``.

    Whether a proxy took it off could not be told then.
    """
    first = unquote(base_path(base_url)).split("/")[1:2]
    if first and first[0] in {path.split("/")[1] for path in paths}:
        raise SettingsError(
            f"its path begins like our own pages below /{first[0]}",
            place="site.base_url",
            hint="Choose another path, such as /news.",
        )


class BasePath:
    """ASGI middleware that takes the path off requests and puts it before redirects."""

    def __init__(self, app: ASGIApp, *, base_url: str) -> None:
        self._app = app
        self._path = base_path(base_url)
        self._decoded = unquote(self._path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if not self._path or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def before_redirects(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if (to := headers.get("location", "")).startswith("/") and to[1:2] != "/":
                    headers["location"] = self._path + to
            await send(message)

        await self._app(self._below(scope), receive, before_redirects)

    def _below(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if path != self._decoded and not path.startswith(f"{self._decoded}/"):
            return scope
        raw: bytes = scope.get("raw_path") or b""
        # As the client wrote it, which may be with other escapes than ours.
        slashes = self._path.count("/")
        rest = raw.split(b"/", slashes + 1)[slashes + 1 :]
        return {
            **scope,
            "path": path[len(self._decoded) :] or "/",
            "raw_path": b"/" + (rest[0] if rest else b""),
        }


class _Below(Extension):
    """Puts the path before the addresses of a template as it is read."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002
        """Called by Jinja with each template's text."""
        path = self.environment.globals["base_path"]

        def below(found: re.Match[str]) -> str:
            if found[2] is None:
                return f'{found[1]}="{path}/'
            return f'{found[1]}="{{{{ ({found[2]}) | below }}}}'

        return _ADDRESS.sub(below, source)


def put_below(environment: jinja2.Environment, path: str) -> None:
    """Let all addresses of this environment's templates stand below the path.

    Templates are read so, not the pages that they make: of what is put into a page, an issue's
    own words for one, nothing is changed.
    """

    def below(value: object) -> object:
        is_path = isinstance(value, str) and value.startswith("/") and not value.startswith("//")
        return type(value)(f"{path}{value}") if is_path else value  # type: ignore[call-arg]

    environment.globals["base_path"] = path
    environment.filters["below"] = below
    environment.add_extension(_Below)
