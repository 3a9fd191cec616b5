"""Shared by all handlers: the container as a dependency, and the rendering of pages."""

from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.templating import Jinja2Templates

from newsletter.container import Container
from newsletter.web.base_path import base_path, put_below
from newsletter.web.sentences import capitalized, sentence


@cache
def _pages(path: str) -> Jinja2Templates:
    """The templates, with URLs below this path."""
    pages = Jinja2Templates(directory=Path(__file__).parent / "pages")
    pages.env.filters |= {"sentence": sentence, "capitalized": capitalized}
    put_below(pages.env, path)
    return pages


def _container(request: Request) -> Container:
    container: Container = request.app.state.container
    return container


#: The container, as a parameter of a handler.
Parts = Annotated[Container, Depends(_container)]


async def whole_body(request: Request) -> None:
    """Read the body and drop it, for handlers that do not use it.

    The size of a body is checked while it is read. Without this, a body that is too long would be
    noticed only after the handler had finished.
    """
    async for _ in request.stream():
        pass


async def _posted_fields(request: Request) -> frozenset[str]:
    return frozenset(await request.form())


#: The names of the fields that a form has. FastAPI takes an empty field for one that is missing.
PostedFields = Annotated[frozenset[str], Depends(_posted_fields)]


def page(request: Request, name: str, *, status: int = 200, **values: object) -> Response:
    """A public page; the template escapes the values."""
    site = _container(request).settings.site
    context = {"site": site, **values}
    response = _pages(base_path(site.base_url)).TemplateResponse(
        request, name, context, status_code=status
    )
    # The URL and the content of a page may be personal.
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def part(request: Request, name: str, **values: object) -> str:
    """A part of a page as HTML; the template escapes the values."""
    pages = _pages(base_path(_container(request).settings.site.base_url))
    return pages.get_template(name).render(**values)
