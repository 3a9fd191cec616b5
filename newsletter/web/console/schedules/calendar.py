"""The month at a glance: what goes out on which day, what did, and what did not."""

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response

from newsletter.db.engine import reading
from newsletter.errors import SendError
from newsletter.scheduling.upcoming import upcoming_entries
from newsletter.web.console.base.layout import page
from newsletter.web.console.schedules.views import HOME, Viewer, may_edit
from newsletter.web.dependencies import Parts

router = APIRouter()
_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
#: Entries of a day that are shown; a schedule can be due each hour.
_MOST = 8
_WEEKS = calendar.Calendar(firstweekday=calendar.MONDAY)


@router.api_route(f"{HOME}/calendar", methods=["GET", "HEAD"])
def month(request: Request, parts: Parts, visitor: Viewer, month: str = "") -> Response:
    """One month, this one unless named."""
    zone, now = ZoneInfo(parts.settings.site.timezone), datetime.now(UTC)
    today = now.astimezone(zone).date()
    first = _first_day(month) if month else today.replace(day=1)
    weeks = _WEEKS.monthdatescalendar(first.year, first.month)
    with reading(parts.database) as session:
        entries = upcoming_entries(session, weeks[0][0], weeks[-1][-1], zone=zone, now=now)
    by_day = {
        day: list(those) for day, those in groupby(entries, key=lambda entry: entry.wall.date())
    }
    return page(
        request,
        "schedule_calendar.html",
        first=first,
        before=first - timedelta(days=1),
        after=(first + timedelta(days=31)).replace(day=1),
        weeks=[[(day, by_day.get(day, [])) for day in week] for week in weeks],
        today=today,
        empty=not by_day,
        limit=_MOST,
        zone=zone.key,
        may_edit=may_edit(visitor),
    )


def _first_day(text: str) -> date:
    match = _MONTH.fullmatch(text)
    if match is None:
        raise SendError("that is no month of this calendar", hint="Write it like 2026-12.")
    return date(int(match[1]), int(match[2]), 1)
