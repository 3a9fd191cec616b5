"""The first page of the console: how things stand, in a few figures."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import func, select

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.database import reading
from newsletter.sending.models import Send
from newsletter.web.console.access import role
from newsletter.web.console.shell import page
from newsletter.web.dependencies import Parts
from subscribers.models import Subscriber, Suppression
from subscribers.schema import table_of

router = APIRouter()
_send, _person, _suppression = table_of(Send), table_of(Subscriber), table_of(Suppression)


@router.api_route("/console/", methods=["GET", "HEAD"])
def show(
    request: Request, parts: Parts, _visitor: Annotated[Visitor, Depends(role(Role.VIEWER))]
) -> Response:
    """The page."""
    with reading(parts.database) as session:
        counted = select(_send.c.state, func.count().label("sends")).group_by(_send.c.state)
        states = {row.state: row.sends for row in session.execute(counted)}
        people = session.scalar(select(func.count()).select_from(_person)) or 0
        suppressed = session.scalar(select(func.count()).select_from(_suppression)) or 0
    return page(request, "overview.html", states=states, people=people, suppressed=suppressed)
