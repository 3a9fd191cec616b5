"""Sends: the list, one send, its people, and what its test of variants found."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from newsletter import durations
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import Session
from newsletter.errors import SendError, UserError
from newsletter.issues.models import Issue
from newsletter.numbers import whole_number
from newsletter.scheduling import schedules
from newsletter.sending import reasons
from newsletter.sending.ab_testing import Measure
from newsletter.sending.ledger import restore_gate
from newsletter.sending.models import Send
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.queries import recipient_list, send_list
from newsletter.sending.queries.recipient_list import RecipientPosition
from newsletter.sending.queries.send_list import Phase
from newsletter.sending.recovery import uncertain_batches
from newsletter.sending.states import DeliveryState, SendState
from newsletter.tracking.events import silent_batches
from newsletter.tracking.stats import ab_test_results
from newsletter.tracking.stats import rates as send_rates
from newsletter.web.console.base.layout import page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends import progress as send_progress
from newsletter.web.console.sends.pace_form import Pace, mistakes
from newsletter.web.dependencies import Parts

router = APIRouter()
HOME = "/console/sends"
Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_A_PAGE, _PEOPLE_A_PAGE = 50, 100


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(
    request: Request,
    parts: Parts,
    _visitor: Viewer,
    phase: Annotated[str, Query(max_length=20)] = "",
    words: Annotated[str, Query(alias="q", max_length=200)] = "",
    before: Annotated[str, Query(max_length=18)] = "",
) -> Response:
    """The latest, or those of one phase, or whose issue is called like that."""
    wanted = Phase(phase) if phase in set(Phase) else None
    words = words.replace("\0", "")
    with reading(parts.database) as session:
        found = send_list.page(
            session, phase=wanted, words=words, before=whole_number(before), limit=_A_PAGE + 1
        )
        numbers = send_list.counts_by_phase(session)
        waits = restore_gate.unsettled_logs(session)
    return page(
        request,
        "sends.html",
        sends=found[:_A_PAGE],
        numbers=numbers,
        waits=waits,
        phase=wanted,
        words=words,
        first=not before,
        more=found[_A_PAGE - 1].send.id if len(found) > _A_PAGE else None,
    )


@router.api_route(f"{HOME}/{{send_id:int}}", methods=["GET", "HEAD"])
def show(
    send_id: int, request: Request, parts: Parts, _visitor: Viewer, done: str = ""
) -> Response:
    """One send."""
    return show_send(request, parts, send_id, done=done)


@router.api_route(f"{HOME}/{{send_id:int}}/people", methods=["GET", "HEAD"])
def people(
    send_id: int,
    request: Request,
    parts: Parts,
    _visitor: Viewer,
    *,
    state: Annotated[str, Query(max_length=20)] = "",
    address: Annotated[str, Query(alias="q", max_length=320)] = "",
    after: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Everybody in it, or those whom something set apart, or one by address."""
    wanted = DeliveryState(state) if state in recipient_list.FILTERS else None
    with reading(parts.database) as session:
        send, issue = find(session, send_id)
        if send.summarized_at is not None:
            rows = []
        elif address:
            rows = list(recipient_list.find_recipient(session, send, parts.hash_of(address)))
        else:
            start, limit = _place(after), _PEOPLE_A_PAGE + 1
            rows = list(
                recipient_list.page(session, send_id, state=wanted, after=start, limit=limit)
            )
        apart = recipient_list.problem_counts(session, send)
    last = rows[_PEOPLE_A_PAGE - 1] if len(rows) > _PEOPLE_A_PAGE else None
    return page(
        request,
        "send_people.html",
        send=send,
        issue=issue,
        people=rows[:_PEOPLE_A_PAGE],
        state=wanted,
        address=address,
        apart=apart,
        filters=recipient_list.FILTERS,
        first=not after,
        more=f"{last.batch}-{last.id}" if last else None,
    )


@router.api_route(f"{HOME}/{{send_id:int}}/test", methods=["GET", "HEAD"])
def variants(
    send_id: int, request: Request, parts: Parts, _visitor: Viewer, done: str = ""
) -> Response:
    """What its test of variants has found."""
    return show_test(request, parts, send_id, done=done)


def find(session: Session, send_id: int) -> tuple[Send, Issue]:
    """A send and its issue; 404 when there is none of this number."""
    send = session.get(Send, send_id)
    if send is None:
        raise HTTPException(404)
    return send, session.get_one(Issue, send.issue_id)


#: What was done to a send is said as long as it is so.
_SHOWN_WHILE = {
    "paused": {SendState.PAUSED},
    "resumed": send_progress.MOVING,
    "retried": send_progress.MOVING,
    "pace": send_progress.MOVING | {SendState.PAUSED},
}


def show_send(
    request: Request,
    parts: Container,
    send_id: int,
    *,
    done: str = "",
    problem: UserError | None = None,
    pace: Pace | None = None,
) -> Response:
    """The page of a send, with what was done or could not be; ``pace`` is what was typed."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        send, issue = find(session, send_id)
        uncertain = uncertain_batches.list_uncertain(session, send_id)
        shown: dict[str, Any] = {
            "send": send,
            "issue": issue,
            "maker": schedules.creator_of(session, send_id),
            "progress": send_progress.of(session, send, now=now),
            "uncertain": uncertain,
            "around": silent_batches.silence_of(session, uncertain),
            "apart": recipient_list.problem_counts(session, send),
            "done_by_now": send_rates.of_send(session, send_id),
        }
        if send.test:
            shown["decides_at"], shown["sample_waits"] = ab_test_results.decision(session, send_id)
    timetable = Timetable.from_json(send.timetable)
    missed = sum(shown["apart"].get(s, 0) for s in ("rejected", "not_sent", "dropped", "skipped"))
    return page(
        request,
        "send.html",
        status=_status(problem),
        missed=missed,
        moving=send.state in send_progress.MOVING,
        remedy=reasons.remedy(send.paused_by),
        took=_took(send),
        timetable=timetable.description,
        pace=pace or Pace.of(timetable),
        mistakes=mistakes(problem) if pace else {},
        grace=durations.in_words(parts.settings.sending.uncertain_grace),
        resends=parts.settings.sending.uncertain_policy == "resend",
        # A page may be opened again long after what was done.
        done=done if send.state in _SHOWN_WHILE.get(done, {send.state}) else "",
        problem=problem,
        **shown,
    )


def show_test(
    request: Request,
    parts: Container,
    send_id: int,
    *,
    done: str = "",
    problem: UserError | None = None,
) -> Response:
    """The page of a test, with what was done or could not be."""
    report, why_not = None, None
    with reading(parts.database) as session:
        send, issue = find(session, send_id)
        try:
            report = ab_test_results.report(session, send_id)
        except SendError as error:
            why_not = error
    return page(
        request,
        "send_test.html",
        status=_status(problem),
        send=send,
        issue=issue,
        report=report,
        measures={"Opened": Measure.OPENS, "Clicked": Measure.CLICKS},
        why_not=why_not,
        done=done,
        problem=problem,
    )


def _took(send: Send) -> str:
    if send.started_at is None or send.finished_at is None or send.state == SendState.PAUSED:
        return ""
    return durations.in_words(send.finished_at - send.started_at)


def _status(problem: UserError | None) -> int:
    return 400 if problem else 200


def _place(text: str) -> RecipientPosition | None:
    batch, _, person = text.partition("-")
    numbers = whole_number(batch, most=2**31 - 1), whole_number(person)
    if numbers[0] is None or numbers[1] is None:
        return None
    return RecipientPosition(numbers[0], numbers[1])
