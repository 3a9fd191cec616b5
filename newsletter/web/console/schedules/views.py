"""Schedules: all of them, one with what comes and what became of it, and what is done to it."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.scheduling import next_run, prepared_issue, recurrence, schedules
from newsletter.scheduling.models import Schedule, ScheduleState
from newsletter.sending.pacing.timetable import Timetable
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]

HOME = "/console/schedules"
_COMING = 10
_PAST = 50


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, visitor: Viewer, done: str = "") -> Response:
    """All schedules."""
    with reading(parts.database) as session:
        found = [
            {
                "schedule": one,
                "words": next_run.rule_of(one).description,
                "audience": audience,
                "next": next_run.next_send(one),
                "last": last,
            }
            for one, audience, last in schedules.list_all(session)
        ]
        return page(request, "schedules.html", found=found, done=done, may_edit=may_edit(visitor))


@router.api_route(f"{HOME}/{{schedule_id:int}}", methods=["GET", "HEAD"])
def show(
    schedule_id: int, request: Request, parts: Parts, visitor: Viewer, done: str = ""
) -> Response:
    """One schedule."""
    return _show(request, parts, visitor, schedule_id, done=done)


@router.post(f"{HOME}/{{schedule_id:int}}/pause")
def pause(schedule_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Let nothing come due."""

    def change(session: Session, one: Schedule, by: Actor, now: datetime) -> None:
        schedules.pause(session, one.name, by=by, now=now)

    return _change(request, parts, visitor, schedule_id, change, done="paused")


@router.post(f"{HOME}/{{schedule_id:int}}/resume")
def resume(schedule_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Go on with what comes from now on."""

    def change(session: Session, one: Schedule, by: Actor, now: datetime) -> None:
        schedules.resume(session, one.name, by=by, now=now)

    return _change(request, parts, visitor, schedule_id, change, done="resumed")


@router.post(f"{HOME}/{{schedule_id:int}}/skip")
def skip(
    schedule_id: int,
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    day: Annotated[str, Form(max_length=20)] = "",
    undo: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Leave out a day, or send on it after all."""

    def change(session: Session, one: Schedule, by: Actor, now: datetime) -> None:
        days: list[date] = recurrence.parse_dates(day, place="day")
        if undo:
            schedules.unskip(session, one.name, days, by=by, now=now)
        else:
            schedules.skip(session, one.name, days, by=by, now=now)

    return _change(request, parts, visitor, schedule_id, change, done="days")


@router.post(f"{HOME}/{{schedule_id:int}}/delete")
def delete(schedule_id: int, request: Request, parts: Parts, visitor: Approver) -> Response:
    """Remove it; its sends stay."""

    def change(session: Session, one: Schedule, by: Actor, now: datetime) -> None:
        schedules.remove(session, one.name, by=by, now=now)

    answer = _change(request, parts, visitor, schedule_id, change, done="")
    return go(f"{HOME}?done=deleted") if answer.status_code == 303 else answer


def may_edit(visitor: Visitor) -> bool:
    """Whether to offer what changes something."""
    return visitor.role.covers(Role.APPROVER)


def find(session: Session, schedule_id: int) -> Schedule:
    """The schedule of an address; no page where there is none."""
    schedule = session.get(Schedule, schedule_id)
    if schedule is None:
        raise HTTPException(404)
    return schedule


def _change(
    request: Request,
    parts: Container,
    visitor: Visitor,
    schedule_id: int,
    change: Callable[[Session, Schedule, Actor, datetime], None],
    *,
    done: str,
) -> Response:
    try:
        with transaction(parts.database) as session:
            one = find(session, schedule_id)
            change(session, one, actor(request, visitor), datetime.now(UTC))
    except UserError as error:
        return _show(request, parts, visitor, schedule_id, problem=error)
    return go(f"{HOME}/{schedule_id}?done={done}")


def _show(
    request: Request,
    parts: Container,
    visitor: Visitor,
    schedule_id: int,
    *,
    done: str = "",
    problem: UserError | None = None,
) -> Response:
    with reading(parts.database) as session:
        one = find(session, schedule_id)
        coming = []
        if one.state == ScheduleState.ACTIVE:
            since = min(one.next_at or datetime.now(UTC), datetime.now(UTC))
            upcoming = next_run.upcoming(one, after=since - next_run.INSTANT)
            coming = recurrence.first(upcoming, _COMING)
        return page(
            request,
            "schedule.html",
            status=400 if problem else 200,
            problem=problem,
            done=done,
            schedule=one,
            words=next_run.rule_of(one).description,
            audience=schedules.audience(session, one.id),
            has_archive=parts.settings.archive.enabled,
            goes_to_all=schedules.goes_to_all(session, one.id),
            issue=prepared_issue.next_issue(session, one.series),
            pace=Timetable.from_json(one.timetable),
            coming=[(each, next_run.skips(one, each)) for each in coming],
            zone=ZoneInfo(one.zone),
            past=schedules.runs(session, one.id, limit=_PAST),
            may_edit=may_edit(visitor),
        )
