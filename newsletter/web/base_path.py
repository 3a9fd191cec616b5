"""Serves the application under a path prefix, such as ``/news``, taken from site.base_url.

Routes, handlers and templates use paths from ``/`` on. Only this module knows the prefix: it
removes it from requests, and adds it to redirects and to all URLs in templates.

A proxy may remove the prefix (``proxy_pass http://…:8000/;``) or keep it. Both work without a
setting, because a path without the prefix stays unchanged.
"""

import re
from typing import Final
from urllib.parse import urlsplit

import jinja2
from jinja2.ext import Extension
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Attributes with URLs in our pages: of HTML, htmx, the challenge and our scripts.
ATTRIBUTES: Final = (
    *("href", "src", "action", "formaction", "challenge", "data-live"),
    *("hx-get", "hx-post", "hx-put", "hx-delete", "hx-push-url"),
)
#: Such an attribute with a value that begins with a slash or an expression.
_ADDRESS = re.compile(rf'(?<=\s)({"|".join(ATTRIBUTES)})="(?:/(?!/)|\{{\{{(.*?)\}}\}})')


def base_path(base_url: str) -> str:
    """The path of ``site.base_url``, without a slash at the end; empty for none."""
    return urlsplit(base_url).path


class BasePath:
    """ASGI middleware that removes the path from requests and adds it to redirects."""

    def __init__(self, app: ASGIApp, *, base_url: str) -> None:
        self._app = app
        self._path = base_path(base_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if not self._path or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_path(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "location" in headers:
                    headers["location"] = _below(self._path, headers["location"])
            await send(message)

        await self._app(self._from_root(scope), receive, send_with_path)

    def _from_root(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if path != self._path and not path.startswith(f"{self._path}/"):
            return scope
        # raw_path is optional in ASGI, and nothing here reads it.
        return {**scope, "path": path.removeprefix(self._path) or "/", "raw_path": None}


def put_below(environment: jinja2.Environment, path: str) -> None:
    """Add the path to all URLs in the templates of this environment.

    This changes the templates, not the pages made of them, so that content in a page, such as the
    text of an issue, stays unchanged.
    """

    def below(value: object) -> object:
        # Keeps the type: Markup stays Markup and is not escaped again.
        return type(value)(_below(path, value)) if isinstance(value, str) else value

    environment.globals["base_path"] = path
    environment.filters["below"] = below
    environment.add_extension(_Addresses)


class _Addresses(Extension):
    """Adds the path to the URLs of a template when Jinja loads it."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002
        """Called by Jinja with each template's text."""
        path = self.environment.globals["base_path"]

        def below(found: re.Match[str]) -> str:
            attribute, expression = found.groups()
            if expression is None:
                return f'{attribute}="{path}/'
            return f'{attribute}="{{{{ ({expression}) | below }}}}'

        return _ADDRESS.sub(below, source)


def _below(path: str, address: str) -> str:
    """The URL with the path before it; unchanged if it belongs to another site."""
    return f"{path}{address}" if re.match(r"/(?!/)", address) else address
