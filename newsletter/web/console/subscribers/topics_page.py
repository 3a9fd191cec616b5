"""Topics: the list, and a form to create one."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import UserError
from newsletter.operations import topics as topic_operations
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.subscribers.subscriber_list import HOME
from newsletter.web.dependencies import Parts
from subscribers.consent import topics

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_PATH = f"{HOME}/topics"


@router.api_route(_PATH, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, visitor: _Viewer, done: str = "") -> Response:
    """All topics with the number of their subscribers."""
    return _show(request, parts, visitor, done=done)


@router.post(_PATH)
def create(
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    slug: Annotated[str, Form(max_length=64)] = "",
    name: Annotated[str, Form(max_length=200)] = "",
    description: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Create a topic."""
    try:
        with transaction(parts.database) as session:
            topic_operations.create(
                session,
                slug.strip(),
                by=actor(request, visitor),
                now=datetime.now(UTC),
                name=_line(name),
                description=_line(description),
            )
    except UserError as error:
        typed = {"slug": slug, "name": name, "description": description}
        return _show(request, parts, visitor, problem=error, typed=typed)
    return go(f"{_PATH}?done=created")


def _line(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()


def _show(
    request: Request,
    parts: Container,
    visitor: Visitor,
    *,
    done: str = "",
    problem: UserError | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    with reading(parts.database) as session:
        return page(
            request,
            "topics.html",
            status=400 if problem else 200,
            found=topics.listing(session),
            may_edit=visitor.role.covers(Role.EDITOR),
            done=done,
            problem=problem,
            typed=typed or {},
        )
