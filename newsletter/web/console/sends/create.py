"""Making a send of an approved issue: the wish, what would become of it, and then the send.

The page in between shows how many people get it and who does not, and asks once more. What
it was made of travels with it: when the issue, or its sends, are others by then, nothing is
made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.checking.finding import refuse
from newsletter.checking.planned_send import Plan
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import IssueError, SendError, UserError
from newsletter.issues import store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.states import IssueState
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.sending_windows import (
    first_moment,
    local_moment,
    parse_time,
    require_future,
    require_year,
)
from newsletter.sending.planning import estimate
from newsletter.sending.planning.estimate import SendEstimate, SendOptions
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.queries import send_list
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends.pace_form import Pace, tracking_of
from newsletter.web.console.sends.views import HOME, in_words
from newsletter.web.dependencies import Parts
from subscribers.segments import store as segment_store

router = APIRouter()
Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]

_Word = Annotated[str, Form(max_length=100)]
_Names = Annotated[Sequence[str], Form(max_length=200)]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was chosen in the form."""

    issue: _Word = ""
    segment: _Names = ()
    excluded: _Names = ()
    #: ``now`` or ``at``.
    when: _Word = "now"
    #: A time of the site's zone, as <input type=datetime-local> writes it.
    at: _Word = ""
    local_time: _Word = ""
    #: ``yes``, ``no``, or empty: as the issue says.
    clicks: _Word = ""
    opens: _Word = ""
    #: ``yes`` for words that are others than those sent before under the issue's slug.
    same_issue: _Word = ""
    #: The revision and the issue's latest send, as the page in between showed them.
    revision: _Word = ""
    latest: _Word = ""

    def start(self, zone: ZoneInfo, now: datetime) -> tuple[datetime, date | None]:
        """When it starts, and the day of its local time if there is one."""
        if self.when != "at":
            return now, None
        try:
            wanted = datetime.fromisoformat(self.at)
        except ValueError:
            wanted = None
        if wanted is None or wanted.tzinfo is not None:
            raise SendError("choose a day and a time", place="At a time")
        require_year(wanted, place="At a time")
        day = wanted.date() if self.local_time else None
        if day is not None:
            clock = parse_time(self.local_time, place="Time of day")
            start = first_moment(day, clock)
        else:
            start = local_moment(wanted.date(), wanted.time(), zone)
        require_future(start, now, place="At a time", is_local=day is not None)
        return start, day


@router.api_route(f"{HOME}/new", methods=["GET", "HEAD"])
def ask(
    request: Request,
    parts: Parts,
    _visitor: Approver,
    issue: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The form."""
    return _form(request, parts, Wish(issue=issue.replace("\0", "")), Pace())


@router.post(f"{HOME}/new")
def make(
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    wish: Annotated[Wish, Depends()],
    pace: Annotated[Pace, Depends()],
    step: Annotated[str, Form(max_length=10)] = "check",
) -> Response:
    """Show what would become of it, go back to the form, or make it."""
    if step == "edit":
        return _form(request, parts, wish, pace)
    try:
        if step == "send":
            number = _make(request, parts, visitor, wish, pace)
            return go(f"{HOME}/{number}?done=made")
        return _confirm(request, parts, wish, pace)
    except UserError as error:
        return _form(request, parts, wish, pace, problem=error)


def _form(
    request: Request,
    parts: Container,
    wish: Wish,
    pace: Pace,
    *,
    problem: UserError | None = None,
) -> Response:
    with reading(parts.database) as session:
        issues = list(store.listed(session, state=IssueState.APPROVED, limit=50))
        sent = send_list.send_ids_by_issue(session, [one.id for one in issues])
        segments = segment_store.rows(session, limit=500)
    return page(
        request,
        "send_new.html",
        status=400 if problem else 200,
        issues=issues,
        sent=sent,
        segments=segments,
        wish=wish,
        pace=pace,
        quiet_hours=parts.settings.sending.quiet_hours,
        zone=parts.settings.site.timezone,
        problem=problem,
    )


def _confirm(request: Request, parts: Container, wish: Wish, pace: Pace) -> Response:
    now = datetime.now(UTC)
    start, terms = _terms(parts, wish, pace, now)
    with reading(parts.database) as session:
        issue, revision = _approved(session, wish)
    examined = parts.text_workers(
        parts.checker.examine_text, revision.source, name=f"{issue.slug}.md"
    )
    draft = examined.draft
    with reading(parts.database) as session:
        foreseen: SendEstimate = estimate.estimate(
            session, draft, wish.segment, issue_id=issue.id, start=start, now=now, terms=terms
        )
        if not terms.same_issue:
            send_lifecycle.refuse_other_words(session, draft, issue.id)
        sends = send_list.send_ids_by_issue(session, [issue.id]).get(issue.id, [])
        archive = issue.publicity if draft.archive is None else draft.archive
        plan = replace(_plan(session, wish, terms), counted=foreseen.counted)
        # Nobody outside is asked for a page: domain and links are when it is made.
        findings = parts.checker.check(
            draft, examined.rendered, now=now, plan=plan, examined=examined
        )
    refuse(findings, name=draft.name)
    return page(
        request,
        "send_confirm.html",
        findings=findings,
        wish=wish,
        pace=pace,
        issue=issue,
        subject=draft.subject,
        revision=revision.number,
        sends=sends,
        start=start,
        foreseen=foreseen,
        is_public=parts.settings.archive.enabled
        and archive_queries.will_be_public(archive, to_all=foreseen.is_for_all),
        timetable=in_words(terms.timetable.to_json()),
        tracked=terms.tracked(draft),
    )


def _make(request: Request, parts: Container, visitor: Visitor, wish: Wish, pace: Pace) -> int:
    now = datetime.now(UTC)
    start, terms = _terms(parts, wish, pace, now)
    # Whatever a send needs is looked at before anything is written.
    _ = parts.gateway, parts.links
    with reading(parts.database) as session:
        issue, revision = _approved(session, wish)
    examined = parts.text_workers(
        parts.checker.examine_text, revision.source, name=f"{issue.slug}.md"
    )
    draft, rendered = examined.draft, examined.rendered
    found = parts.checker.before_sending(
        draft,
        rendered,
        parts.database,
        lambda session: _plan(session, wish, terms),
        now=now,
        dns=parts.dns,
        examined=examined,
    )
    refuse(found, name=draft.name)
    with transaction(parts.database) as session:
        issue = store.find(session, wish.issue, lock=True)
        _refuse_surprises(session, issue, wish, revision.number)
        return send_lifecycle.create(
            session,
            draft,
            rendered,
            wish.segment,
            by=actor(request, visitor),
            at=start,
            now=now,
            terms=terms,
        ).id


def _plan(session: Session, wish: Wish, terms: SendOptions) -> Plan:
    return Plan(
        session, wish.segment, wish.excluded, terms.timetable, terms.batch_size, terms.warm_up
    )


def _refuse_surprises(session: Session, issue: Issue, wish: Wish, rendered: int) -> None:
    """What is made is what was shown: of this revision, and not twice by two clicks."""
    latest = store.revision_of(session, issue).number
    if str(latest) != wish.revision or latest != rendered:
        raise IssueError(
            "it was edited meanwhile", place=f"issue {issue.slug}", hint="Look at it once more."
        )
    sends = send_list.send_ids_by_issue(session, [issue.id]).get(issue.id, [])
    if str(sends[0] if sends else "") != wish.latest:
        raise SendError(
            f"send {sends[0]} of this issue was made meanwhile",
            place=f"issue {issue.slug}",
            hint="If that was you, all is well: look at it under Sends.",
        )


def _approved(session: Session, wish: Wish) -> tuple[Issue, Revision]:
    """The issue and its latest revision; IssueError when it is not approved."""
    if not wish.issue:
        raise IssueError("choose an issue", place="Issue")
    if not wish.segment:
        raise SendError("choose at least one segment", place="Recipients")
    if any("\0" in name for name in (*wish.segment, *wish.excluded)):
        raise SendError("there is no such segment", place="Recipients")
    issue = store.find(session, wish.issue)
    if issue.state != IssueState.APPROVED:
        raise IssueError(
            "it is not approved", place=f"issue {issue.slug}", hint="Have it approved first."
        )
    return issue, store.revision_of(session, issue)


def _terms(parts: Container, wish: Wish, pace: Pace, now: datetime) -> tuple[datetime, SendOptions]:
    start, day = wish.start(ZoneInfo(parts.settings.site.timezone), now)
    timetable = pace.timetable(
        parts.settings, quiet_by_default=True, local_time=wish.local_time, local_date=day
    )
    batch_size = parts.settings.sending.batch_size
    return start, SendOptions(
        excluded=wish.excluded,
        timetable=timetable,
        same_issue=wish.same_issue == "yes",
        batch_size=batch_size,
        warm_up=parts.warm_up,
        tracking=tracking_of(wish.clicks, wish.opens),
        publication=parts.tracked,
    )
