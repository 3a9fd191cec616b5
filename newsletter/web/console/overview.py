"""The first page of the console: what waits for the operator, and how things stand."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.database import reading
from newsletter.scheduling import schedules
from newsletter.sending import register
from newsletter.tracking import performance
from newsletter.web.console import attention
from newsletter.web.console.access import role
from newsletter.web.console.shell import page
from newsletter.web.dependencies import Parts
from subscribers import growth, standing
from subscribers.models import AudienceDay

router = APIRouter()
_MONTH, _SHOWN = timedelta(days=30), timedelta(days=180)


@router.api_route("/console/", methods=["GET", "HEAD"])
def show(
    request: Request, parts: Parts, _visitor: Annotated[Visitor, Depends(role(Role.VIEWER))]
) -> Response:
    """The page."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        last = register.over(session)
        days = growth.since(session, (now - _SHOWN).date())
        return page(
            request,
            "overview.html",
            items=attention.items(session, now=now),
            under_way=register.under_way(session, limit=5),
            coming=register.coming(session),
            next_up=schedules.next_up(session),
            last=last[0] if last else None,
            done=performance.of_send(session, last[0].send.id) if last else None,
            audience=standing.headcounts(session, now=now),
            days=days,
            grown=_grown(days, now),
            stamp=_stamp,
        )


def _grown(days: list[AudienceDay], now: datetime) -> int | None:
    """How many more get mail than a month ago; None as long as nobody knows."""
    before = [one for one in days if one.day <= (now - _MONTH).date().isoformat()]
    return days[-1].active - before[-1].active if before else None


def _stamp(day: str) -> int:
    """A day as a chart's time: its noon in UTC, which is the same day nearly everywhere."""
    return int(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp())
