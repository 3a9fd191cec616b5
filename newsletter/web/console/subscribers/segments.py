"""Segments: the list with stored figures, and an editor that counts while the user types.

The audit log names segments but not their rules, which may contain personal data.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Row, Session
from newsletter.errors import SegmentError, UserError
from newsletter.issues.parsing.tracking_flags import Tracked, require_measured
from newsletter.numbers import whole_number
from newsletter.operations import segments as segment_operations
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts
from subscribers.consent import topics
from subscribers.directory import status_counts
from subscribers.models import Segment
from subscribers.segments import store as segment_store

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]

HOME = "/console/segments"
_ONE = f"{HOME}/{{segment_id:int}}"
_SAMPLE = 10
#: The most segments to count while the user waits, if the audience is small.
_COUNTED = 40


@dataclass(frozen=True, slots=True)
class SegmentDraft:
    """The content of the editor."""

    name: str = ""
    expression: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class MarkedRule:
    """A rule, split at its error: the text before, the wrong text, and the text after."""

    before: str
    there: str
    after: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SegmentPreview:
    """The result of a rule: figures and some subscribers, or the problem."""

    people: int = 0
    mailable: int = 0
    sample: tuple[Row[Any], ...] = ()
    problem: SegmentError | None = None
    marked: MarkedRule | None = None

    @property
    def words(self) -> str:
        """The problem without the excerpt for terminals."""
        return self.problem.message.partition("\n")[0] if self.problem else ""


def _draft(
    name: Annotated[str, Form()] = "",
    expression: Annotated[str, Form()] = "",
    description: Annotated[str, Form()] = "",
) -> SegmentDraft:
    """The editor's form, with line breaks normalized."""
    rule = expression.replace("\r\n", "\n")[:5000]
    about = "".join(c for c in description if c.isprintable())[:1000]
    return SegmentDraft(name.strip()[:200], rule, about)


_Typed = Annotated[SegmentDraft, Depends(_draft)]


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, _visitor: _Viewer, done: str = "") -> Response:
    """All segments with their figures."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        rows = segment_store.rows(session)
        live = len(rows) <= _COUNTED and status_counts.is_small(session)
        tracked = parts.tracked
        figures = {row.id: _figures(session, row, now, tracked, live=live) for row in rows}
    return page(request, "segments.html", rows=rows, figures=figures, done=done)


@router.api_route(f"{HOME}/new", methods=["GET", "HEAD"])
def new(request: Request, parts: Parts, _visitor: _Editor) -> Response:
    """The editor, empty."""
    return _editor(request, parts, None, SegmentDraft(), counted=False)


@router.post(f"{HOME}/try")
def preview(
    request: Request,
    parts: Parts,
    _visitor: _Editor,
    draft: _Typed,
    number: Annotated[str, Form()] = "",
) -> Response:
    """The editor with the result of the rule. Saves nothing, so the status is 200 even for a wrong
    rule."""
    known = whole_number(number)
    return _editor(request, parts, known, draft, trial=True)


@router.post(HOME)
def create(request: Request, parts: Parts, visitor: _Editor, draft: _Typed) -> Response:
    """Save a new segment."""
    return _save(request, parts, visitor, None, draft)


@router.api_route(_ONE, methods=["GET", "HEAD"])
def show(
    segment_id: int, request: Request, parts: Parts, _visitor: _Viewer, done: str = ""
) -> Response:
    """One segment in the editor."""
    with reading(parts.database) as session:
        found = _find(session, segment_id)
        draft = SegmentDraft(found.name, found.expression, found.description)
    return _editor(request, parts, segment_id, draft, done=done, counted=False)


@router.post(_ONE)
def change(
    segment_id: int, request: Request, parts: Parts, visitor: _Editor, draft: _Typed
) -> Response:
    """Change the name, rule or description."""
    return _save(request, parts, visitor, segment_id, draft)


@router.post(f"{_ONE}/delete")
def delete(segment_id: int, request: Request, parts: Parts, visitor: _Editor) -> Response:
    """Delete a segment that no future send or schedule uses."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        found = _find(session, segment_id)
        draft = SegmentDraft(found.name, found.expression, found.description)
    try:
        with transaction(parts.database) as session:
            segment_operations.delete(session, draft.name, by=actor(request, visitor), now=now)
    except UserError as error:
        return _editor(request, parts, segment_id, draft, problem=error, counted=False)
    return go(f"{HOME}?done=deleted")


def _save(
    request: Request,
    parts: Container,
    visitor: Visitor,
    segment_id: int | None,
    draft: SegmentDraft,
) -> Response:
    try:
        with transaction(parts.database) as session:
            by, now = actor(request, visitor), datetime.now(UTC)
            if segment_id is None:
                saved = segment_operations.create(
                    session,
                    draft.name,
                    draft.expression,
                    by=by,
                    now=now,
                    tracked=parts.tracked,
                    description=draft.description,
                )
            else:
                saved = segment_operations.change(
                    session,
                    _find(session, segment_id).name,
                    by=by,
                    now=now,
                    tracked=parts.tracked,
                    new_name=draft.name,
                    expression=draft.expression,
                    description=draft.description,
                    may_change_audience=visitor.role.covers(Role.APPROVER),
                )
            number = saved.id
    except UserError as error:
        return _editor(request, parts, segment_id, draft, problem=error)
    return go(f"{HOME}/{number}?done=saved")


def _editor(
    request: Request,
    parts: Container,
    segment_id: int | None,
    draft: SegmentDraft,
    *,
    problem: UserError | None = None,
    done: str = "",
    counted: bool = True,
    trial: bool = False,
) -> Response:
    """The editor; ``counted`` counts at once, which large audiences do only on request."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        found = segment_store.by_id(session, segment_id) if segment_id is not None else None
        counted = counted or status_counts.is_small(session)
        outcome = _outcome(session, draft.expression, now, parts.tracked) if counted else None
        if (
            outcome is not None
            and outcome.problem is not None
            and isinstance(problem, SegmentError)
        ):
            problem = None if problem.span else problem  # shown in the marked rule instead
        return page(
            request,
            "segment.html",
            status=400 if problem or (outcome and outcome.problem and not trial) else 200,
            segment=found,
            draft=draft,
            outcome=outcome,
            offered=topics.offered(session),
            state_of=status_counts.status_of,
            problem=problem,
            done=done,
        )


def _outcome(session: Session, rule: str, now: datetime, tracked: Tracked) -> SegmentPreview:
    try:
        require_measured(rule, tracked, place="rule")
        people, mailable = segment_store.count(session, rule, now=now)
        sample = segment_store.sample(session, rule, now=now, limit=_SAMPLE)
    except SegmentError as error:
        return SegmentPreview(problem=error, marked=_marked(rule, error.span))
    return SegmentPreview(people, mailable, tuple(sample))


def _marked(rule: str, span: tuple[int, int, int] | None) -> MarkedRule | None:
    if span is None:
        return None
    line, column, width = span
    lines = rule.split("\n")
    at = sum(len(one) + 1 for one in lines[: line - 1]) + column - 1
    # An error at the end of the rule marks a blank.
    return MarkedRule(rule[:at], rule[at : at + width] or " ", rule[at + width :], line, column)


def _figures(
    session: Session, row: Row[Any], now: datetime, tracked: Tracked, *, live: bool
) -> tuple[int | None, int | None, datetime | None]:
    try:
        require_measured(row.expression, tracked, place=f"segment {row.name}")
        if not live:
            return row.people, row.mailable, row.counted_at
        saved = Segment(name=row.name, expression=row.expression, created_at=row.created_at)
        return (*segment_store.count_of(session, saved, now=now), None)
    except SegmentError:
        return None, None, None


def _find(session: Session, segment_id: int) -> Segment:
    found = segment_store.by_id(session, segment_id)
    if found is None:
        raise HTTPException(404)
    return found
