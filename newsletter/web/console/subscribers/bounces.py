"""Lifts the bounces of a period in which a receiving server refused working mailboxes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import UserError
from newsletter.numbers import whole_number
from newsletter.sending.pacing.sending_windows import parse_moment
from newsletter.tracking import list_removal
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.subscribers.subscriber_list import HOME
from newsletter.web.dependencies import Parts

router = APIRouter()
_Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]
_PATH = f"{HOME}/bounces"
_SAMPLE = 20


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which bounces: between two times in the site's zone, with a text in the server's answer."""

    since: str
    until: str
    text: str

    def times(self, zone: ZoneInfo) -> tuple[datetime, datetime | None]:
        """Both times; UserError names the field that cannot be parsed."""
        return (
            parse_moment(self.since, zone, place="From"),
            parse_moment(self.until, zone, place="Until") if self.until else None,
        )


@router.api_route(_PATH, methods=["GET", "HEAD"])
def show(
    request: Request,
    parts: Parts,
    _visitor: _Approver,
    *,
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
    lifted: Annotated[str, Query(max_length=18)] = "",
) -> Response:
    """The form, and the bounces that it would lift."""
    return _show(request, parts, _Choice(since, until, text), lifted=lifted)


@router.post(_PATH)
def lift(
    request: Request,
    parts: Parts,
    visitor: _Approver,
    *,
    since: Annotated[str, Form(max_length=40)] = "",
    until: Annotated[str, Form(max_length=40)] = "",
    text: Annotated[str, Form(max_length=200)] = "",
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Lift them, with the reason in the audit log."""
    choice = _Choice(since, until, text)
    try:
        first, last = choice.times(ZoneInfo(parts.settings.site.timezone))
        with transaction(parts.database) as session:
            number = list_removal.lift_bounces(
                session,
                by=actor(request, visitor),
                why=reason,
                now=datetime.now(UTC),
                since=first,
                until=last,
                text=text,
            )
    except UserError as error:
        return _show(request, parts, choice, problem=error, reason=reason)
    return go(f"{_PATH}?lifted={number}")


def _show(
    request: Request,
    parts: Container,
    choice: _Choice,
    *,
    problem: UserError | None = None,
    reason: str = "",
    lifted: str = "",
) -> Response:
    found = None
    if choice.since and problem is None:
        try:
            first, last = choice.times(ZoneInfo(parts.settings.site.timezone))
            with reading(parts.database) as session:
                found = list_removal.bounced(session, since=first, until=last, text=choice.text)
        except UserError as error:
            problem = error
    return page(
        request,
        "bounces.html",
        status=400 if problem else 200,
        choice=choice,
        zone=parts.settings.site.timezone,
        found=None if found is None else len(found),
        sample=(found or [])[:_SAMPLE],
        problem=problem,
        reason=reason,
        lifted=whole_number(lifted),
    )
