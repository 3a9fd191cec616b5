"""The list of subscribers, filtered by address, name, segment and status; and a form to add one."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import SegmentError, UserError
from newsletter.operations import subscribers as subscriber_operations
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts
from subscribers.consent import topics
from subscribers.directory import edit as subscriber_edit
from subscribers.directory import search as subscriber_search
from subscribers.directory import status_counts
from subscribers.directory.search import SearchPage, SearchPosition, SearchQuery
from subscribers.directory.status_counts import SubscriberStatus
from subscribers.segments import store as segment_store

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]

HOME = "/console/subscribers"
_MOST_SEGMENTS = 200


@dataclass(frozen=True, slots=True)
class _ListQuery:
    """The filters in the page's URL."""

    text: str
    state: SubscriberStatus | None
    segment: str

    def path(self, *, after: SearchPosition | None = None, **other: object) -> str:
        """The URL of the list with these filters, or ``other`` ones, after a subscriber."""
        values = {"q": self.text, "segment": self.segment, "state": self.state or ""} | other
        if after is not None:
            values["after"] = str(after)
        query = urlencode({name: value for name, value in values.items() if value})
        return f"{HOME}?{query}" if query else HOME


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(
    request: Request,
    parts: Parts,
    _visitor: _Viewer,
    *,
    q: Annotated[str, Query()] = "",
    state: str = "",
    segment: str = "",
    after: str = "",
    done: str = "",
) -> Response:
    """One page of subscribers."""
    text = "".join(c for c in q[:320] if c.isprintable()).strip()
    asked = _ListQuery(
        text, SubscriberStatus(state) if state in set(SubscriberStatus) else None, segment
    )
    now, place = datetime.now(UTC), SearchPosition.read(after)
    problem: SegmentError | None = None
    hidden: Any = None
    with reading(parts.database) as session:
        try:
            wanted = SearchQuery(text, asked.state, _rule(session, segment))
            found = subscriber_search.page(
                session, wanted, address_key=parts.address_key, now=now, after=place
            )
        except SegmentError as error:
            found, problem = SearchPage([]), error
        if not found.people and place is None:
            hidden = subscriber_search.suppression_of(session, text, address_key=parts.address_key)
        return page(
            request,
            "subscribers.html",
            status=400 if problem else 200,
            people=found.people,
            unfinished=found.incomplete,
            further=asked.path(after=found.next) if found.next else "",
            begins=place is None,
            asked=asked,
            counts=status_counts.status_counts(session, now=now),
            states=list(SubscriberStatus),
            state_of=status_counts.status_of,
            segments=segment_store.names(session, limit=_MOST_SEGMENTS),
            hidden=hidden,
            problem=problem,
            done=done,
        )


@router.api_route(f"{HOME}/add", methods=["GET", "HEAD"])
def form(request: Request, parts: Parts, _visitor: _Editor) -> Response:
    """The form to add a subscriber."""
    return _form(request, parts)


@router.post(f"{HOME}/add")
def add(
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    wording: Annotated[str, Form()] = "",
    topic: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Add a subscriber who consented elsewhere; ``wording`` says to what, and how."""
    chosen = topic or []
    try:
        details = subscriber_edit.read(
            name=name, language="", timezone="", attributes="", topics=chosen
        )
        with transaction(parts.database) as session:
            added = subscriber_operations.add(
                session,
                email[:320],
                details,
                by=actor(request, visitor),
                now=datetime.now(UTC),
                address_key=parts.address_key,
                wording=wording[:1000],
            )
    except UserError as error:
        typed = {"email": email[:320], "name": name[:200], "wording": wording[:1000]}
        return _form(request, parts, problem=error, typed=typed, chosen=chosen)
    return go(f"{HOME}/{added}?done=added")


def _form(
    request: Request,
    parts: Container,
    *,
    problem: UserError | None = None,
    typed: dict[str, str] | None = None,
    chosen: list[str] | None = None,
) -> Response:
    with reading(parts.database) as session:
        return page(
            request,
            "subscriber_add.html",
            status=400 if problem else 200,
            offered=topics.offered(session),
            problem=problem,
            typed=typed or {},
            chosen=chosen or [],
        )


def _rule(session: Session, name: str) -> str:
    """The rule of a segment; SegmentError if it does not exist."""
    return (
        segment_store.find(session, "".join(filter(str.isprintable, name))).expression
        if name
        else ""
    )
