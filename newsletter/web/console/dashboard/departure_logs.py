"""Departure logs: their state, what blocks sending, and how the operator resolves it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SendError
from newsletter.numbers import whole_number
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.recovery import known_logs
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
HOME = "/console/sends/departures"


@router.api_route(HOME, methods=["GET", "HEAD"])
def show(
    request: Request, parts: Parts, _visitor: Annotated[Visitor, Depends(role(Role.VIEWER))]
) -> Response:
    """All departure logs."""
    return _shown(request, parts)


@router.post(HOME)
def decide(
    request: Request,
    parts: Parts,
    visitor: Annotated[Visitor, Depends(role(Role.OWNER))],
    *,
    log: Annotated[str, Form(max_length=40)] = "",
    word: Annotated[str, Form(max_length=10)] = "",
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Ignore a log, or have it compared again."""
    act = known_logs.compare_again if word == "compare" else known_logs.set_aside
    try:
        with transaction(parts.database) as session:
            act(session, log, reason=reason, by=actor(request, visitor), now=datetime.now(UTC))
    except SendError as error:
        return _shown(request, parts, problem=error)
    return go(HOME)


@router.post(f"{HOME}/resolve")
def resolve(
    request: Request,
    parts: Parts,
    visitor: Annotated[Visitor, Depends(role(Role.APPROVER))],
    *,
    issue: Annotated[str, Form(max_length=100)] = "",
    batch: Annotated[str, Form(max_length=9)] = "",
    send: Annotated[str, Form(max_length=18)] = "",
    answer: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Resolve whether a request of a forgotten send was sent."""
    batch_number, send_number = whole_number(batch), whole_number(send)
    if answer not in {"sent", "resend"} or batch_number is None or send_number is None:
        problem = SendError("say which request, and whether it was sent", place=f"issue {issue}")
        return _shown(request, parts, problem=problem)
    try:
        with transaction(parts.database) as session:
            forgotten_sends.resolve(
                session,
                issue.replace("\0", ""),
                batch_number,
                send=send_number,
                sent=answer == "sent",
                by=actor(request, visitor),
                now=datetime.now(UTC),
            )
    except SendError as error:
        return _shown(request, parts, problem=error)
    return go(HOME)


def _shown(request: Request, parts: Container, *, problem: SendError | None = None) -> Response:
    with reading(parts.database) as session:
        return page(
            request,
            "departure_logs.html",
            logs=known_logs.list_logs(session),
            sends=forgotten_sends.list_all(session),
            unanswered=forgotten_sends.unanswered(session),
            risk=known_logs.RISK,
            problem=problem,
            status=409 if problem else 200,
        )
