"""One subscriber: details, history, and operations.

The audit log names subscribers only by their number, because it outlives their erasure.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.numbers import whole_number
from newsletter.operations import subscribers as subscriber_operations
from newsletter.tracking import list_removal
from newsletter.tracking.people import history as subscriber_history
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.subscribers.history_labels import labeled
from newsletter.web.console.subscribers.subscriber_list import HOME
from newsletter.web.dependencies import Parts
from subscribers.consent import topics
from subscribers.directory import edit as subscriber_edit
from subscribers.directory import status_counts
from subscribers.directory.edit import EditError
from subscribers.directory.search import exclusion_of
from subscribers.models import Subscriber

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Owner = Annotated[Visitor, Depends(role(Role.OWNER))]

_ONE = f"{HOME}/{{person_id:int}}"


@router.api_route(_ONE, methods=["GET", "HEAD"])
def show(
    person_id: int,
    request: Request,
    parts: Parts,
    _visitor: _Viewer,
    history: Annotated[str, Query()] = "",
    done: str = "",
) -> Response:
    """One subscriber."""
    number = whole_number(history, most=999) or 0
    return _show(request, parts, person_id, history=number, done=done)


@router.post(f"{_ONE}/edit")
def edit(
    person_id: int,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    name: Annotated[str, Form()] = "",
    language: Annotated[str, Form()] = "",
    timezone: Annotated[str, Form()] = "",
    attributes: Annotated[str, Form()] = "",
    topic: Annotated[list[str] | None, Form()] = None,
    wording: Annotated[str, Form()] = "",
    seen: Annotated[str, Form()] = "",
) -> Response:
    """Change the details of a subscriber."""
    typed = {
        "name": name[:300],
        "language": language[:50],
        "timezone": timezone[:100],
        "attributes": attributes[:30_000],
        "wording": wording[:1000],
        "topics": topic or [],
    }

    def change(session: Session, _found: Subscriber, by: Actor, now: datetime) -> None:
        details = subscriber_edit.read(
            name=name,
            language=language,
            timezone=timezone,
            attributes=attributes,
            topics=topic or [],
        )
        subscriber_operations.edit(
            session, person_id, details, by=by, now=now, seen=seen, wording=wording
        )

    return _change(request, parts, visitor, person_id, change=change, done="edited", typed=typed)


@router.post(f"{_ONE}/suppress")
def suppress(
    person_id: int,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    why: Annotated[str, Form()] = "",
) -> Response:
    """Suppress the subscriber until a user lifts the suppression."""

    def change(session: Session, _found: Subscriber, by: Actor, now: datetime) -> None:
        subscriber_operations.suppress(session, person_id, by=by, now=now, reason=why)

    return _change(request, parts, visitor, person_id, change=change, done="suppressed")


@router.post(f"{_ONE}/lift")
def lift(person_id: int, request: Request, parts: Parts, visitor: _Editor) -> Response:
    """Lift a suppression by an operator; an unsubscribed address stays unsubscribed."""

    def change(session: Session, found: Subscriber, by: Actor, now: datetime) -> None:
        subscriber_operations.lift_suppression(session, found, by=by, now=now)

    return _change(request, parts, visitor, person_id, change=change, done="lifted")


@router.post(f"{_ONE}/lift-bounce")
def lift_bounce(
    person_id: int,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Let this subscriber be emailed again although an email bounced."""

    def change(session: Session, found: Subscriber, by: Actor, now: datetime) -> None:
        list_removal.lift_bounces(
            session, by=by, why=reason, now=now, address_hash=found.address_hash
        )

    return _change(request, parts, visitor, person_id, change=change, done="bounce-lifted")


@router.post(f"{_ONE}/data")
def data(person_id: int, request: Request, parts: Parts, visitor: _Editor) -> Response:
    """All data of a subscriber as a file. A POST, because it writes to the audit log."""
    with transaction(parts.database) as session:
        _find(session, person_id)
        everything = subscriber_operations.export_data(
            session, person_id, by=actor(request, visitor), now=datetime.now(UTC)
        )
    return Response(
        orjson.dumps(everything, option=orjson.OPT_INDENT_2),
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="subscriber-{person_id}.json"',
            "Cache-Control": "no-store",
        },
    )


@router.post(f"{_ONE}/erase")
def erase(
    person_id: int,
    request: Request,
    parts: Parts,
    visitor: _Owner,
    email: Annotated[str, Form()] = "",
) -> Response:
    """Delete all data of a subscriber, if the user has typed the address."""

    def change(session: Session, found: Subscriber, by: Actor, now: datetime) -> None:
        if email.strip().lower() != found.email.lower():
            raise EditError(
                "this is not the address of this person",
                place="erase",
                hint="Type it to say that you mean this one.",
            )
        subscriber_operations.erase(session, person_id, by=by, now=now)

    answer = _change(request, parts, visitor, person_id, change=change, done="")
    return go(f"{HOME}?done=erased") if answer.status_code == 303 else answer


def _change(
    request: Request,
    parts: Container,
    visitor: Visitor,
    person_id: int,
    *,
    change: Callable[[Session, Subscriber, Actor, datetime], None],
    done: str,
    typed: Mapping[str, object] | None = None,
) -> Response:
    """Run one operation on a subscriber, and show the subscriber."""
    try:
        with transaction(parts.database) as session:
            found = _find(session, person_id)
            change(session, found, actor(request, visitor), datetime.now(UTC))
    except UserError as error:
        return _show(request, parts, person_id, problem=error, typed=typed)
    return go(f"{HOME}/{person_id}?done={done}")


def _find(session: Session, person_id: int) -> Subscriber:
    found = session.get(Subscriber, person_id)
    if found is None:
        raise HTTPException(404)
    return found


def _show(
    request: Request,
    parts: Container,
    person_id: int,
    *,
    history: int = 0,
    done: str = "",
    problem: UserError | None = None,
    typed: Mapping[str, object] | None = None,
) -> Response:
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        found = _find(session, person_id)
        details = subscriber_edit.details_of(session, found)
        entries, more = subscriber_history.of_subscriber(session, found, page=history)
        objection, suppressed = exclusion_of(session, found, now=now)
        offered = topics.offered(session)
        named = {topic.slug: topic.name for topic in offered}
        return page(
            request,
            "subscriber.html",
            status=400 if problem else 200,
            person=found,
            tracked=parts.tracked,
            details=details,
            chosen=[named.get(slug, slug) for slug in details.topics],
            document=_document(details),
            typed=typed,
            seen=subscriber_edit.stamp(details),
            offered=offered,
            objection=objection,
            state=status_counts.status_of(objection),
            suppressed=suppressed,
            happened=[labeled(entry) for entry in entries],
            older=f"{HOME}/{person_id}?history={history + 1}#history" if more else "",
            history=history,
            done=done,
            problem=problem,
        )


def _document(details: subscriber_edit.Details) -> str:
    """The attributes as editable JSON."""
    if not details.attributes:
        return ""
    return orjson.dumps(dict(details.attributes), option=orjson.OPT_INDENT_2).decode()
