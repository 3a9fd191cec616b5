"""The path below which the service stands: ``/news`` where site.base_url ends with it.

Routes, handlers and pages know paths from ``/`` on. This module is the one place that knows
the path below which they stand: it takes the path off requests, and puts it before redirects
and before every address in a page, while the page's template is read.

A proxy may take the path off before it asks us (``proxy_pass http://…:8000/;``) or leave it.
Either way works without a setting: what begins with the path loses it, what does not has lost
it already.
"""

import re
from typing import Final
from urllib.parse import urlsplit

import jinja2
from jinja2.ext import Extension
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Attributes of our pages that hold addresses: HTML's, htmx's, the challenge's and our scripts'.
ATTRIBUTES: Final = (
    *("href", "src", "action", "formaction", "challenge", "data-live"),
    *("hx-get", "hx-post", "hx-put", "hx-delete", "hx-push-url"),
)
#: Such an attribute whose value begins with a slash, or with an expression.
_ADDRESS = re.compile(rf'(?<=\s)({"|".join(ATTRIBUTES)})="(?:/(?!/)|\{{\{{(.*?)\}}\}})')


def base_path(base_url: str) -> str:
    """The path of ``site.base_url``, which has no slash at its end; empty for none."""
    return urlsplit(base_url).path


class BasePath:
    """ASGI middleware that takes the path off requests and puts it before redirects."""

    def __init__(self, app: ASGIApp, *, base_url: str) -> None:
        self._app = app
        self._path = base_path(base_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if not self._path or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def before_redirects(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "location" in headers:
                    headers["location"] = _below(self._path, headers["location"])
            await send(message)

        await self._app(self._from_root(scope), receive, before_redirects)

    def _from_root(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if path != self._path and not path.startswith(f"{self._path}/"):
            return scope
        # Nobody here reads the path as it was escaped, which a server need not tell.
        return {**scope, "path": path.removeprefix(self._path) or "/", "raw_path": None}


def put_below(environment: jinja2.Environment, path: str) -> None:
    """Let all addresses of this environment's templates stand below the path.

    Templates are read so, not the pages that they make: of what is put into a page, an issue's
    own words for one, nothing is changed.
    """

    def below(value: object) -> object:
        # Of its own type: what need not be escaped any more stays so.
        return type(value)(_below(path, value)) if isinstance(value, str) else value

    environment.globals["base_path"] = path
    environment.filters["below"] = below
    environment.add_extension(_Addresses)


class _Addresses(Extension):
    """Puts the path before the addresses of a template as it is read."""

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
    """An address of ours as it is from outside; one of another site as it stands."""
    return f"{path}{address}" if re.match(r"/(?!/)", address) else address
