"""What is done with a send: pause, resume, cancel, pace, doubt, retry, the winner of a test."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts import audit
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.errors import SendError, UserError
from newsletter.sending.ledger import reschedule
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.recovery import uncertain_batches
from newsletter.web.console.base.layout import actor, go
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends.pace_form import Pace
from newsletter.web.console.sends.views import HOME, find, show_send, show_test
from newsletter.web.dependencies import Parts

router = APIRouter()
Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]

#: Changes a send, and says in the log's words what was done.
_Change = Callable[[Session, Send, datetime], str]


@router.post(f"{HOME}/{{send_id:int}}/pause")
def pause(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Let no further batch leave."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        send_lifecycle.pause(session, send_id, reason=f"paused by {visitor.called}", now=now)
        return "send paused"

    return _do(request, parts, visitor, send_id, change, done="paused")


@router.post(f"{HOME}/{{send_id:int}}/resume")
def resume(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Go on where it stopped."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        send_lifecycle.resume(session, send_id, now=now, warm_up=parts.warm_up)
        return "send resumed"

    return _do(request, parts, visitor, send_id, change, done="resumed")


@router.post(f"{HOME}/{{send_id:int}}/cancel")
def cancel(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """End it; what had left has left."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        send_lifecycle.cancel(session, send_id, now=now)
        return "send cancelled"

    return _do(request, parts, visitor, send_id, change, done="cancelled")


@router.post(f"{HOME}/{{send_id:int}}/retry")
def retry(send_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Send to those who missed it, and to nobody else."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        # Whatever a send needs is looked at before anything is written.
        _ = parts.gateway, parts.links
        send_lifecycle.retry(
            session,
            send_id,
            now=now,
            batch_size=parts.settings.sending.batch_size,
            warm_up=parts.warm_up,
        )
        return "send retried for those who missed it"

    return _do(request, parts, visitor, send_id, change, done="retried", snapshot=True)


@router.post(f"{HOME}/{{send_id:int}}/pace")
def change_pace(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    pace: Annotated[Pace, Depends()],
) -> Response:
    """Another pace for what has not left; its local time and its windows stay."""

    def change(session: Session, send: Send, now: datetime) -> str:
        before = Timetable.from_json(send.timetable)
        wanted = pace.timetable(parts.settings, quiet_by_default=False)
        kept = replace(
            wanted,
            local_time=before.local_time,
            local_date=before.local_date,
            windows=before.windows,
        )
        size = parts.settings.sending.batch_size
        send_lifecycle.change_pace(
            session, send_id, kept, now=now, batch_size=size, warm_up=parts.warm_up
        )
        return "pace changed"

    return _do(request, parts, visitor, send_id, change, done="pace")


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
    """Settle a doubtful batch, or all that were shown, by the operator's word."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        if batch == "all":
            return _resolve_all(parts, session, send_id, answer=answer, left_by=left_by, now=now)
        if answer not in {"sent", "resend"} or not (batch.isascii() and batch.isdigit()):
            raise SendError("say which batch, and whether it was sent", place=f"send {send_id}")
        was_sent, warm_up = answer == "sent", parts.warm_up
        uncertain_batches.resolve(
            session, send_id, int(batch), sent=was_sent, now=now, warm_up=warm_up
        )
        return f"batch {batch} {'called sent' if answer == 'sent' else 'sent again'}"

    all_of_them = "all-" if batch == "all" else ""
    return _do(request, parts, visitor, send_id, change, done=f"doubt-{all_of_them}{answer}")


def _resolve_all(
    parts: Container, session: Session, send_id: int, *, answer: str, left_by: str, now: datetime
) -> str:
    """What has come into doubt since the page was shown is not meant."""
    try:
        shown = datetime.fromisoformat(left_by)
    except ValueError:
        shown = None
    if answer not in {"sent", "resend"} or shown is None or shown.tzinfo is None:
        raise SendError("say whether they were sent", place=f"send {send_id}")
    many = uncertain_batches.resolve_all(
        session, send_id, sent=answer == "sent", now=now, left_by=shown, warm_up=parts.warm_up
    )
    return f"{many} doubtful batches {'called sent' if answer == 'sent' else 'sent again'}"


@router.post(f"{HOME}/{{send_id:int}}/winner")
def winner(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    label: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Give the rest of a test this variant, now."""

    def change(session: Session, _send: Send, now: datetime) -> str:
        reschedule.choose_winner(session, send_id, label, now=now, warm_up=parts.warm_up)
        return f"variant {label} chosen"

    try:
        _change(request, parts, visitor, send_id, change)
    except UserError as error:
        return show_test(request, parts, send_id, problem=error)
    return go(f"{HOME}/{send_id}/test?done=chosen")


def _do(
    request: Request,
    parts: Container,
    visitor: Visitor,
    send_id: int,
    change: _Change,
    *,
    done: str,
    snapshot: bool = False,
) -> Response:
    """Change it, and show it."""
    try:
        _change(request, parts, visitor, send_id, change, snapshot=snapshot)
    except UserError as error:
        return show_send(request, parts, send_id, problem=error)
    return go(f"{HOME}/{send_id}?done={done}")


def _change(
    request: Request,
    parts: Container,
    visitor: Visitor,
    send_id: int,
    change: _Change,
    *,
    snapshot: bool = False,
) -> None:
    """One transaction with its entry in the log."""
    now = datetime.now(UTC)
    with transaction(parts.database, snapshot=snapshot) as session:
        send, issue = find(session, send_id)
        subject = f"send {send_id} ({issue.slug})"
        what = change(session, send, now)
        audit.record(session, actor(request, visitor), what, now=now, subject=subject)
