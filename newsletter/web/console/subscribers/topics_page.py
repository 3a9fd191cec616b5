"""Topics: the list, a form to create one, and a page of each to change and delete it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.numbers import whole_number
from newsletter.operations import topics as topic_operations
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.subscribers.subscriber_list import HOME
from newsletter.web.dependencies import Parts
from subscribers.consent import topics
from subscribers.consent.topics import TopicError
from subscribers.models import Topic

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_PATH = f"{HOME}/topics"
_ONE = f"{_PATH}/{{slug}}"


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


@router.api_route(_ONE, methods=["GET", "HEAD"])
def show(slug: str, request: Request, parts: Parts, visitor: _Viewer) -> Response:
    """One topic, what depends on it, and the form to change it."""
    return _show_one(request, parts, visitor, slug)


@router.post(_ONE)
def change(
    slug: str,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    name: Annotated[str, Form(max_length=200)] = "",
    description: Annotated[str, Form(max_length=1000)] = "",
    place: Annotated[str, Form(max_length=20)] = "",
    hidden: Annotated[str, Form()] = "",
) -> Response:
    """Rename, describe, order or hide a topic."""
    try:
        with transaction(parts.database) as session:
            _find(session, slug)
            topic_operations.change(
                session,
                slug,
                by=actor(request, visitor),
                now=datetime.now(UTC),
                name=_line(name),
                description=_line(description),
                place=_place(slug, place),
                hidden=bool(hidden),
            )
    except UserError as error:
        typed = {"name": name, "description": description, "place": place, "hidden": hidden}
        return _show_one(request, parts, visitor, slug, problem=error, typed=typed)
    return go(f"{_PATH}?done=changed")


@router.post(f"{_ONE}/delete")
def delete(slug: str, request: Request, parts: Parts, visitor: _Editor) -> Response:
    """Delete a topic that no segment and no unfinished send needs."""
    try:
        with transaction(parts.database) as session:
            _find(session, slug)
            by, now = actor(request, visitor), datetime.now(UTC)
            topic_operations.delete(session, slug, by=by, now=now)
    except UserError as error:
        return _show_one(request, parts, visitor, slug, problem=error)
    return go(f"{_PATH}?done=deleted")


def _place(slug: str, text: str) -> int | None:
    number = whole_number(text.strip())
    if text.strip() and not number:
        raise TopicError("the place is a whole number from 1", place=slug, hint="1 is first.")
    return number


def _find(session: Session, slug: str) -> Topic:
    try:
        return topics.find(session, slug)
    except TopicError:
        raise HTTPException(404) from None


def _show_one(
    request: Request,
    parts: Container,
    visitor: Visitor,
    slug: str,
    *,
    problem: UserError | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    with reading(parts.database) as session:
        topic = _find(session, slug)
        stored = {
            "name": topic.name,
            "description": topic.description,
            "place": str(topic_operations.place_of(session, topic)),
            "hidden": "yes" if topic.hidden else "",
        }
        return page(
            request,
            "topic.html",
            status=400 if problem else 200,
            topic=topic,
            used=topic_operations.usage(session, topic),
            may_edit=visitor.role.covers(Role.EDITOR),
            problem=problem,
            typed=typed or stored,
        )


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
