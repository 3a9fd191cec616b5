"""Webhooks: the endpoints of other programs, what was sent to them, and their secrets."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import UserError
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts
from newsletter.webhooks import deliveries, endpoints

router = APIRouter()
_Owner = Annotated[Visitor, Depends(role(Role.OWNER))]
_HOME: Final = "/console/settings/webhooks"
_ONE: Final = _HOME + "/{endpoint_id:int}"
#: Deliveries on the page of an endpoint.
_SHOWN: Final = 50


class _Operation(Protocol):
    """What is done to an endpoint, given by its number."""

    def __call__(self, session: Session, number: int, /, *, by: Actor, now: datetime) -> object: ...


_Url = Annotated[str, Form(max_length=3000)]
_Text = Annotated[str, Form(max_length=1000)]
_Events = Annotated[list[str] | None, Form(max_length=100)]


@router.api_route(_HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, _visitor: _Owner, done: str = "") -> Response:
    """All endpoints, and a form to create one."""
    return _list(request, parts, done=done)


@router.post(_HOME)
def create(
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    url: _Url = "",
    description: _Text = "",
    events: _Events = None,
) -> Response:
    """Create an endpoint; the answer shows its secret, which no other page does."""
    try:
        with transaction(parts.database) as session:
            number, secret = endpoints.create(
                session,
                url,
                endpoints.parse_events(events or []),
                by=actor(request, visitor),
                now=datetime.now(UTC),
                description=description,
                allow_hosts=parts.settings.webhooks.allow_hosts,
            )
    except UserError as error:
        typed = {"url": url, "description": description, "events": events or []}
        return _list(request, parts, problem=error, typed=typed)
    return _show(request, parts, number, done="created", secret=secret)


@router.api_route(_ONE, methods=["GET", "HEAD"])
def show(
    endpoint_id: int, request: Request, parts: Parts, _visitor: _Owner, done: str = ""
) -> Response:
    """One endpoint, with its latest deliveries."""
    return _show(request, parts, endpoint_id, done=done)


@router.post(_ONE)
def change(
    endpoint_id: int,
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    url: _Url = "",
    description: _Text = "",
    events: _Events = None,
) -> Response:
    """Change the address, the description and the events."""

    def operation(session: Session, number: int, *, by: Actor, now: datetime) -> None:
        endpoints.change(
            session,
            number,
            by=by,
            now=now,
            url=url,
            events=endpoints.parse_events(events or []),
            description=description,
            allow_hosts=parts.settings.webhooks.allow_hosts,
        )

    return _act(request, parts, visitor, endpoint_id, operation, done="changed")


@router.post(f"{_ONE}/test")
def send_test(endpoint_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Send the event ``webhook.test``."""
    return _act(request, parts, visitor, endpoint_id, endpoints.send_test, done="queued")


@router.post(f"{_ONE}/disable")
def disable(endpoint_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Send nothing more to the endpoint."""
    return _act(request, parts, visitor, endpoint_id, endpoints.disable, done="disabled")


@router.post(f"{_ONE}/enable")
def enable(endpoint_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Send to the endpoint again."""
    return _act(request, parts, visitor, endpoint_id, endpoints.enable, done="enabled")


@router.post(f"{_ONE}/rotate")
def rotate(endpoint_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Give the endpoint a new secret; the answer shows it."""
    try:
        with transaction(parts.database) as session:
            by = actor(request, visitor)
            secret = endpoints.rotate(session, endpoint_id, by=by, now=datetime.now(UTC))
    except UserError as error:
        return _show(request, parts, endpoint_id, problem=error)
    return _show(request, parts, endpoint_id, done="rotated", secret=secret)


@router.post(f"{_ONE}/deliveries/{{delivery_id:int}}/resend")
def resend(
    endpoint_id: int, delivery_id: int, request: Request, parts: Parts, visitor: _Owner
) -> Response:
    """Send a delivery once more."""

    def operation(session: Session, number: int, *, by: Actor, now: datetime) -> None:
        if deliveries.find(session, delivery_id).endpoint_id != number:
            raise HTTPException(404)
        deliveries.resend(session, delivery_id, by=by, now=now)

    return _act(request, parts, visitor, endpoint_id, operation, done="queued")


@router.post(f"{_ONE}/delete")
def remove(endpoint_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Delete the endpoint."""
    try:
        with transaction(parts.database) as session:
            by = actor(request, visitor)
            endpoints.remove(session, endpoint_id, by=by, now=datetime.now(UTC))
    except UserError as error:
        return _list(request, parts, problem=error)
    return go(f"{_HOME}?done=deleted")


def _act(
    request: Request,
    parts: Container,
    visitor: Visitor,
    endpoint_id: int,
    operation: _Operation,
    *,
    done: str,
) -> Response:
    try:
        with transaction(parts.database) as session:
            operation(session, endpoint_id, by=actor(request, visitor), now=datetime.now(UTC))
    except UserError as error:
        return _show(request, parts, endpoint_id, problem=error)
    return go(f"{_HOME}/{endpoint_id}?done={done}")


def _list(
    request: Request,
    parts: Container,
    *,
    done: str = "",
    problem: UserError | None = None,
    typed: Mapping[str, object] | None = None,
) -> Response:
    with reading(parts.database) as session:
        found = endpoints.listing(session)
    return page(
        request,
        "webhooks.html",
        status=400 if problem else 200,
        found=found,
        events=list(WebhookEvent),
        shown_events=endpoints.sorted_events,
        done=done,
        problem=problem,
        typed=typed or {},
    )


def _show(
    request: Request,
    parts: Container,
    endpoint_id: int,
    *,
    done: str = "",
    secret: str = "",
    problem: UserError | None = None,
) -> Response:
    with reading(parts.database) as session:
        found = endpoints.listing(session, only=endpoint_id)
        rows = deliveries.latest(session, endpoint_id, limit=_SHOWN)
    if not found:
        raise HTTPException(404)
    return page(
        request,
        "webhook.html",
        status=400 if problem else 200,
        endpoint=found[0],
        deliveries=rows,
        events=list(WebhookEvent),
        done=done,
        secret=secret,
        problem=problem,
    )
