"""The review of an issue, step by step, and whether the public archive shows it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import IssueError, UserError
from newsletter.issues import approval, store
from newsletter.web.console.base.layout import actor, go
from newsletter.web.console.base.permissions import role
from newsletter.web.console.issues.views import HOME, find, number_in, revision_at, show_issue
from newsletter.web.dependencies import Parts

router = APIRouter()
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]
_Note = Annotated[str, Form()]
_Step = Callable[[Session, Actor, datetime], object]


@router.post(f"{HOME}/{{slug}}/review")
def request_review(
    slug: str, request: Request, parts: Parts, visitor: _Editor, note: _Note = ""
) -> Response:
    """Request a review of the latest revision."""

    def step(session: Session, by: Actor, now: datetime) -> object:
        return approval.request(session, slug, by=by, now=now, note=note)

    return _do_step(request, parts, visitor, slug, step=step, note=note, done="asked")


@router.post(f"{HOME}/{{slug}}/approve")
def approve(
    slug: str,
    request: Request,
    parts: Parts,
    visitor: _Approver,
    *,
    revision: Annotated[str, Form(max_length=12)] = "",
    note: _Note = "",
) -> Response:
    """Approve the revision in the form, if it is still the latest.

    A revision that cannot be rendered without losing text is refused.
    """

    def step(session: Session, by: Actor, now: datetime) -> object:
        return approval.approve(
            session,
            slug,
            revision=number_in(revision),
            by=by,
            now=now,
            note=note,
            second_person=parts.settings.review.second_person,
        )

    with reading(parts.database) as session:
        source = revision_at(session, find(session, slug), "").source
    try:
        parts.text_workers(parts.checker.examine_text, source, name=f"{slug}.md")
    except UserError as error:
        return show_issue(request, parts, visitor, slug, problem=error, note=note, status=409)
    return _do_step(request, parts, visitor, slug, step=step, note=note, done="approved")


@router.post(f"{HOME}/{{slug}}/return")
def return_to_draft(
    slug: str, request: Request, parts: Parts, visitor: _Approver, note: _Note = ""
) -> Response:
    """Return the issue for changes, or withdraw an approval."""

    def step(session: Session, by: Actor, now: datetime) -> object:
        if not note.strip():
            raise IssueError("say what to change", place="note")
        return approval.return_to_draft(session, slug, by=by, now=now, note=note)

    return _do_step(request, parts, visitor, slug, step=step, note=note, done="returned")


@router.post(f"{HOME}/{{slug}}/archive")
def archive(
    slug: str,
    request: Request,
    parts: Parts,
    visitor: _Approver,
    shown: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Show the issue in the public archive, or hide it."""

    def step(session: Session, by: Actor, now: datetime) -> object:
        if shown not in {"on", "off"}:
            raise IssueError("choose whether to show the issue", place="archive")
        return store.switch_archive(session, slug, on=shown == "on", by=by, now=now)

    return _do_step(request, parts, visitor, slug, step=step, note="", done=f"archive-{shown}")


def _do_step(
    request: Request,
    parts: Container,
    visitor: Visitor,
    slug: str,
    *,
    step: _Step,
    note: str,
    done: str,
) -> Response:
    """Do one step; if it is refused, show the issue with the reason."""
    with reading(parts.database) as session:
        find(session, slug)
    try:
        with transaction(parts.database) as session:
            step(session, actor(request, visitor), datetime.now(UTC))
    except IssueError as error:
        return show_issue(request, parts, visitor, slug, problem=error, note=note, status=409)
    return go(f"{HOME}/{slug}?done={done}")
