"""Issues: the list, and one with its revisions, its review and its history."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import Session
from newsletter.errors import IssueError, UserError
from newsletter.issues import approval, store
from newsletter.issues.diff import DiffLine, compare
from newsletter.issues.models import Issue, Revision
from newsletter.issues.states import IssueState, Step
from newsletter.numbers import whole_number
from newsletter.web.console.base.layout import actor, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
HOME = "/console/issues"
Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_A_PAGE = 50
#: A revision's number in a URL.
Number = Annotated[str, Query(max_length=12)]


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(
    request: Request,
    parts: Parts,
    visitor: Viewer,
    *,
    state: Annotated[str, Query(max_length=20)] = "",
    series: Annotated[str, Query(max_length=100)] = "",
    words: Annotated[str, Query(alias="q", max_length=200)] = "",
    at: Annotated[str, Query(alias="page", max_length=6)] = "",
) -> Response:
    """The issues, last changed first, filtered by state, series or title."""
    wanted = IssueState(state) if state in set(IssueState) else None
    number = max(1, number_in(at) or 1)
    with reading(parts.database) as session:
        known = store.series(session)
        series = series if series in known else ""
        found = store.listed(
            session,
            state=wanted,
            series=series or None,
            words=words,
            limit=_A_PAGE + 1,
            offset=(number - 1) * _A_PAGE,
        )
    return page(
        request,
        "issues.html",
        issues=found[:_A_PAGE],
        states=list(IssueState),
        known_series=known,
        state=wanted,
        series=series,
        words=words,
        number=number,
        more=len(found) > _A_PAGE,
        may_write=visitor.role.covers(Role.EDITOR),
    )


@router.api_route(f"{HOME}/{{slug}}", methods=["GET", "HEAD"])
def show(slug: str, request: Request, parts: Parts, visitor: Viewer, done: str = "") -> Response:
    """One issue."""
    return show_issue(request, parts, visitor, slug, done=done)


@router.api_route(f"{HOME}/{{slug}}/changes", methods=["GET", "HEAD"])
def changes(
    slug: str,
    request: Request,
    parts: Parts,
    _visitor: Viewer,
    *,
    before: Annotated[str, Query(alias="from", max_length=12)] = "",
    after: Annotated[str, Query(alias="to", max_length=12)] = "",
) -> Response:
    """The differences of two revisions; by default of the latest and the one before it."""
    with reading(parts.database) as session:
        issue = find(session, slug)
        numbers = [one.number for one in store.revisions(session, issue)]
        to = revision_at(session, issue, after)
        since = revision_at(session, issue, before or str(max(1, to.number - 1)))
    return page(
        request,
        "issue_changes.html",
        issue=issue,
        before=since,
        after=to,
        numbers=numbers,
        lines=differences(parts, since.source, to.source),
    )


def show_issue(
    request: Request,
    parts: Container,
    visitor: Visitor,
    slug: str,
    *,
    done: str = "",
    problem: UserError | None = None,
    note: str = "",
    status: int = 200,
) -> Response:
    """The page of one issue; after a refused step, with the problem and the typed note."""
    with reading(parts.database) as session:
        issue = find(session, slug)
        revisions = store.revisions(session, issue)
        history = approval.history(session, issue)
        share = approval.second_person_conflict(
            session, issue, revisions[0], actor(request, visitor)
        )
    approved = [number for step, number in history if step.step == Step.APPROVED]
    return page(
        request,
        "issue.html",
        status=status,
        issue=issue,
        revisions=revisions,
        latest=revisions[0],
        history=history,
        # An approver needs to read only what changed since the last approval.
        last_approved=approved[-1] if approved else None,
        share=share if parts.settings.review.second_person else "",
        may_write=visitor.role.covers(Role.EDITOR),
        may_approve=visitor.role.covers(Role.APPROVER),
        has_archive=parts.settings.archive.enabled,
        may_send="/console/sends/new" in request.app.state.console_paths,
        done=done,
        problem=problem,
        note=note,
    )


def differences(parts: Container, before: str, after: str) -> Sequence[DiffLine]:
    """The differences of two texts; raises TooMuchWorkError and BusyError."""
    return parts.text_workers(compare, before, after)


def find(session: Session, slug: str) -> Issue:
    """The issue with this slug; 404 if there is none."""
    try:
        return store.find(session, slug)
    except IssueError:
        raise HTTPException(404) from None


def revision_at(session: Session, issue: Issue, number: str) -> Revision:
    """The revision with the number in a URL; the latest without one."""
    try:
        return store.revision_of(session, issue, number_in(number) if number else None)
    except IssueError:
        raise HTTPException(404) from None


def number_in(text: str) -> int:
    """The number in the text of a URL; 0, which no revision has, for any other text."""
    return whole_number(text) or 0
