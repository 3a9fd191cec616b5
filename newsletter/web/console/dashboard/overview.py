"""The overview page of the console: problems, sends in progress, and the audience."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.db.engine import reading
from newsletter.operations import first_owner
from newsletter.scheduling import schedules
from newsletter.sending.queries import send_list
from newsletter.tracking.stats import rates as send_rates
from newsletter.web.console.base.layout import page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.dashboard import attention
from newsletter.web.console.dashboard.first_steps import steps
from newsletter.web.dependencies import Parts
from subscribers.directory import growth_history, status_counts
from subscribers.models import AudienceDay

router = APIRouter()
_MONTH, _SHOWN = timedelta(days=30), timedelta(days=180)


@router.api_route("/console/", methods=["GET", "HEAD"])
def show(
    request: Request, parts: Parts, visitor: Annotated[Visitor, Depends(role(Role.VIEWER))]
) -> Response:
    """The page."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        last = send_list.latest_sent(session)
        days = growth_history.since(session, (now - _SHOWN).date())
        return page(
            request,
            "overview.html",
            items=attention.items(
                session, event_silence=parts.settings.tracking.event_silence, now=now
            ),
            steps=(todo := steps(session, parts) if visitor.role.covers(Role.OWNER) else []),
            greeting=first_owner.greeting(session, visitor.email) if todo else None,
            under_way=send_list.active(session, limit=5),
            coming=send_list.scheduled(session),
            next_up=schedules.next_up(session),
            last=last[0] if last else None,
            done=send_rates.of_send(session, last[0].send.id) if last else None,
            audience=status_counts.status_counts(session, now=now),
            days=days,
            grown=_grown(days, now),
            stamp=_stamp,
        )


def _grown(days: list[AudienceDay], now: datetime) -> int | None:
    """Change of active subscribers in 30 days; None without a count that old."""
    before = [one for one in days if one.day <= (now - _MONTH).date().isoformat()]
    return days[-1].active - before[-1].active if before else None


def _stamp(day: str) -> int:
    """A day as a Unix time for the chart: noon in UTC, the same day in nearly every time zone."""
    return int(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp())
