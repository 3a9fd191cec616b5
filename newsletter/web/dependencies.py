"""What every page needs: the parts of the process, and the look."""

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
    """The pages as they are below the path of site.base_url, of which a process has one."""
    pages = Jinja2Templates(directory=Path(__file__).parent / "pages")
    pages.env.filters |= {"sentence": sentence, "capitalized": capitalized}
    put_below(pages.env, path)
    return pages


def _assembly(request: Request) -> Container:
    container: Container = request.app.state.container
    return container


#: Parameter of a handler that needs the parts of the process.
Parts = Annotated[Container, Depends(_assembly)]


async def whole_body(request: Request) -> None:
    """Read the body and drop it: for a handler that has no use for it.

    A body is measured while it is read. Unread, one that is too long would be noticed only
    after the handler had done its work.
    """
    async for _ in request.stream():
        pass


def page(request: Request, name: str, *, status: int = 200, **values: object) -> Response:
    """A page of the publication; values are escaped where they are put out."""
    site = _assembly(request).settings.site
    context = {"site": site, **values}
    response = _pages(base_path(site.base_url)).TemplateResponse(
        request, name, context, status_code=status
    )
    # Pages are for one person, under a link that is theirs.
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def part(request: Request, name: str, **values: object) -> str:
    """A part of a page as HTML; values are escaped where they are put out."""
    pages = _pages(base_path(_assembly(request).settings.site.base_url))
    return pages.get_template(name).render(**values)
