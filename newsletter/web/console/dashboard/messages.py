"""The messages to operators: what happened, when, and where to see more."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from newsletter.accounts import operator_messages
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.db.engine import reading, transaction
from newsletter.numbers import whole_number
from newsletter.scheduling.message_texts import texts
from newsletter.web.console.base.layout import go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
_HOME = "/console/messages"
_SHOWN = 50
_Anyone = Annotated[Visitor, Depends(role(Role.VIEWER))]


@router.api_route(_HOME, methods=["GET", "HEAD"])
def show(
    request: Request,
    parts: Parts,
    visitor: _Anyone,
    after: Annotated[str, Query(max_length=18)] = "",
) -> Response:
    """The latest messages. Those ``after`` a message, or not read yet, are marked as new."""
    first_new = whole_number(after)
    with reading(parts.database) as session:
        read_up_to = operator_messages.read_up_to(session, visitor.user_id)
        return page(
            request,
            "messages.html",
            messages=texts(session, operator_messages.latest(session, limit=_SHOWN)),
            read_up_to=read_up_to if first_new is None else min(read_up_to, first_new),
            shown=_SHOWN,
        )


@router.post(f"{_HOME}/read")
def read(parts: Parts, visitor: _Anyone) -> Response:
    """Mark all messages as read, and list them."""
    with transaction(parts.database) as session:
        before = operator_messages.mark_read(session, visitor.user_id)
    return go(f"{_HOME}?after={before}")
