"""Operations on a send: pause, resume, cancel, retry, pace, uncertain batches, A/B winner."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.errors import SendError, UserError
from newsletter.numbers import whole_number
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.recovery import uncertain_batches
from newsletter.web.console.base.layout import actor, go
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends.pace_form import Pace
from newsletter.web.console.sends.views import HOME, find, show_send, show_test
from newsletter.web.dependencies import Parts

router = APIRouter()
#: What the form answers about an uncertain batch: whether it was sent.
_ANSWERS = {"sent": True, "resend": False}
Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]

#: One operation on a send.
_Operation = Callable[[Session, Actor, datetime], object]


@router.post(f"{HOME}/{{send_id:int}}/pause")
def pause(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Hand no further batch to the provider."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        send_lifecycle.pause(session, send_id, by=by, now=now)

    return _do(request, parts, visitor, send_id, operation, done="paused")


@router.post(f"{HOME}/{{send_id:int}}/resume")
def resume(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Go on where the send stopped."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        send_lifecycle.resume(session, send_id, by=by, now=now, warm_up=parts.warm_up)

    return _do(request, parts, visitor, send_id, operation, done="resumed")


@router.post(f"{HOME}/{{send_id:int}}/cancel")
def cancel(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """End the send."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        send_lifecycle.cancel(session, send_id, by=by, now=now)

    return _do(request, parts, visitor, send_id, operation, done="cancelled")


@router.post(f"{HOME}/{{send_id:int}}/retry")
def retry(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Send to the recipients who missed the issue, and to nobody else."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        # What a send needs is checked before anything is written.
        _ = parts.gateway, parts.links
        send_lifecycle.retry(
            session,
            send_id,
            by=by,
            now=now,
            batch_size=parts.settings.sending.batch_size,
            warm_up=parts.warm_up,
        )

    return _do(request, parts, visitor, send_id, operation, done="retried", snapshot=True)


@router.post(f"{HOME}/{{send_id:int}}/pace")
def change_pace(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    pace: Annotated[Pace, Depends()],
) -> Response:
    """Give the batches that have not left another pace; the local time stays."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        send_lifecycle.change_pace(
            session,
            send_id,
            pace.timetable(parts.settings),
            by=by,
            now=now,
            batch_size=parts.settings.sending.batch_size,
            warm_up=parts.warm_up,
        )

    return _do(request, parts, visitor, send_id, operation, done="pace", pace=pace)


@router.post(f"{HOME}/{{send_id:int}}/resolve")
def resolve(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    batch: Annotated[str, Form(max_length=9)] = "",
    answer: Annotated[str, Form(max_length=10)] = "",
    left_by: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Resolve an uncertain batch, or all that the page showed (``left_by``)."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        number, shown = whole_number(batch), _time(left_by)
        if answer not in _ANSWERS:
            raise SendError("choose whether it was sent", place=f"send {send_id}")
        sent, warm_up = _ANSWERS[answer], parts.warm_up
        if batch == "all" and shown is not None:
            uncertain_batches.resolve_all(
                session, send_id, by=by, sent=sent, now=now, left_by=shown, warm_up=warm_up
            )
        elif number is not None:
            uncertain_batches.resolve(
                session, send_id, number, by=by, sent=sent, now=now, warm_up=warm_up
            )
        else:
            raise SendError("choose a batch", place=f"send {send_id}")

    all_of_them = "all-" if batch == "all" else ""
    return _do(request, parts, visitor, send_id, operation, done=f"uncertain-{all_of_them}{answer}")


def _time(text: str) -> datetime | None:
    """The time of an uncertain batch that the page showed last; None for anything else."""
    try:
        shown = datetime.fromisoformat(text)
    except ValueError:
        return None
    return shown if shown.tzinfo is not None else None


@router.post(f"{HOME}/{{send_id:int}}/winner")
def winner(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    label: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Send this variant of an A/B test to the rest of the recipients, now."""

    def operation(session: Session, by: Actor, now: datetime) -> None:
        send_lifecycle.choose_winner(session, send_id, label, by=by, now=now, warm_up=parts.warm_up)

    try:
        _run(request, parts, visitor, send_id, operation)
    except UserError as error:
        return show_test(request, parts, send_id, problem=error)
    return go(f"{HOME}/{send_id}/test?done=chosen")


def _do(
    request: Request,
    parts: Container,
    visitor: Visitor,
    send_id: int,
    operation: _Operation,
    *,
    done: str,
    snapshot: bool = False,
    pace: Pace | None = None,
) -> Response:
    """Run an operation, and show the send; after an error, with the ``pace`` that was typed."""
    try:
        _run(request, parts, visitor, send_id, operation, snapshot=snapshot)
    except UserError as error:
        return show_send(request, parts, send_id, problem=error, pace=pace)
    return go(f"{HOME}/{send_id}?done={done}")


def _run(
    request: Request,
    parts: Container,
    visitor: Visitor,
    send_id: int,
    operation: _Operation,
    *,
    snapshot: bool = False,
) -> None:
    """Run an operation in one transaction; 404 if there is no such send."""
    with transaction(parts.database, snapshot=snapshot) as session:
        find(session, send_id)
        operation(session, actor(request, visitor), datetime.now(UTC))
