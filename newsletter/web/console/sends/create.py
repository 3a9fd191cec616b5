"""Makes a send of an approved issue: the form, the preview of its recipients, then the send.

The preview shows how many subscribers get the issue and who does not, and asks once more. It
carries the revisions and the latest send that it showed. If the issue, a variant or its sends
are others by then, no send is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter import durations
from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.checking.checker import ExaminedIssue
from newsletter.checking.finding import Finding, FindingsError, blocking, refuse
from newsletter.checking.planned_send import Plan
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import IssueError, SendError, UserError
from newsletter.issues import approval, store
from newsletter.issues.approval import ApprovedIssue
from newsletter.issues.parsing.issue_file import with_subject
from newsletter.issues.states import IssueState
from newsletter.sending import ab_testing
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.sending_windows import clock_note
from newsletter.sending.planning import estimate
from newsletter.sending.planning.estimate import SendEstimate, SendOptions
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.queries import send_list
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends.pace_form import Pace, mistakes, tracking_of
from newsletter.web.console.sends.send_form import FIELDS, LABELS, SendForm, hidden_fields
from newsletter.web.console.sends.views import HOME
from newsletter.web.dependencies import Parts
from subscribers.segments import store as segment_store

router = APIRouter()
Approver = Annotated[Visitor, Depends(role(Role.APPROVER))]


@router.api_route(f"{HOME}/new", methods=["GET", "HEAD"])
def ask(
    request: Request,
    parts: Parts,
    _visitor: Approver,
    issue: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The form."""
    form = SendForm(issue=issue.replace("\0", ""))
    return _form(request, parts, form, Pace(quiet=parts.settings.sending.quiet_hours))


@router.post(f"{HOME}/new")
def make(
    request: Request,
    parts: Parts,
    visitor: Approver,
    *,
    form: Annotated[SendForm, Depends()],
    pace: Annotated[Pace, Depends()],
    step: Annotated[str, Form(max_length=10)] = "check",
) -> Response:
    """Preview the recipients, go back to the form, or make the send."""
    if step == "edit":
        return _form(request, parts, form, pace)
    try:
        if step == "send":
            number = _make(request, parts, visitor, form, pace)
            return go(f"{HOME}/{number}?done=made")
        return _preview(request, parts, visitor, form, pace)
    except UserError as error:
        return _form(request, parts, form, pace, problem=error)


def _form(
    request: Request,
    parts: Container,
    form: SendForm,
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
        form=form,
        pace=pace,
        zone=parts.settings.site.timezone,
        problem=problem,
        mistakes=mistakes(problem, LABELS, FIELDS),
        labels=LABELS,
        is_blocked=isinstance(problem, FindingsError),
        text_differs=isinstance(problem, send_lifecycle.DifferentTextError),
        needs_review=parts.settings.review.required or parts.settings.review.second_person,
        most_variants=len(ab_testing.LABELS),
    )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A send that can be made: its issue, its start, its options, and all texts examined."""

    issue: ApprovedIssue
    start: datetime
    options: SendOptions
    #: The issue, and each variant after it.
    texts: Sequence[ExaminedIssue]
    #: The revisions of variants that are issues of their own.
    variant_revisions: str

    @property
    def names(self) -> list[str]:
        """What errors call each text."""
        first, *others = (one.draft.name for one in self.texts)
        labels = ab_testing.LABELS[1:]
        return [
            first,
            *(f"{name} (variant {one})" for one, name in zip(labels, others, strict=False)),
        ]


def _prepare(parts: Container, form: SendForm, pace: Pace, now: datetime) -> _Prepared:
    """Read the form and examine the texts; raises UserError."""
    if not form.issue:
        raise IssueError("choose an issue", place=LABELS["issue"])
    if not form.segment:
        raise SendError("choose at least one segment", place=LABELS["segment"])
    start, day = form.start(ZoneInfo(parts.settings.site.timezone), now)
    timetable = pace.timetable(parts.settings, local_time=form.local_time, local_date=day)
    test = form.test()
    with reading(parts.database) as session:
        issue, *others = (approval.approved(session, slug) for slug in (form.issue, *form.variant))
    first = _examine(parts, issue)
    texts = [
        first,
        *(
            parts.text_workers(
                parts.checker.examine, with_subject(first.draft, words, place=LABELS["subject"])
            )
            for words in form.other_subjects
        ),
        *(_examine(parts, other) for other in others),
    ]
    options = SendOptions(
        excluded=form.excluded,
        timetable=timetable,
        others=[(one.draft, one.rendered) for one in texts[1:]],
        test=test,
        same_issue=form.same_issue == "yes",
        despite_findings=form.despite_findings == "yes",
        batch_size=parts.settings.sending.batch_size,
        warm_up=parts.warm_up,
        tracking=tracking_of(form.clicks, form.opens),
        publication=parts.tracked,
    )
    return _Prepared(issue, start, options, texts, ",".join(str(one.number) for one in others))


def _examine(parts: Container, issue: ApprovedIssue) -> ExaminedIssue:
    return parts.text_workers(parts.checker.examine_text, issue.source, name=f"{issue.slug}.md")


def _preview(
    request: Request, parts: Container, visitor: Visitor, form: SendForm, pace: Pace
) -> Response:
    now = datetime.now(UTC)
    ready = _prepare(parts, form, pace, now)
    start, options, draft = ready.start, ready.options, ready.texts[0].draft
    with reading(parts.database) as session:
        foreseen: SendEstimate = estimate.estimate(
            session,
            draft,
            form.segment,
            issue_id=ready.issue.issue_id,
            start=start,
            now=now,
            options=options,
        )
        approver = parts.approver(actor(request, visitor))
        send_lifecycle.require_approved_variants(session, options, approver)
        if not options.same_issue:
            send_lifecycle.require_same_text(session, draft, ready.issue.issue_id)
        sends = send_list.send_ids_by_issue(session, [ready.issue.issue_id])
        publicity = store.find(session, ready.issue.slug).publicity
        archive = publicity if draft.archive is None else draft.archive
        plan = replace(_plan(session, form, options), counted=foreseen.counted)
        findings = _findings(parts, ready, plan, now)
    if form.despite_findings != "yes":
        for name, found in zip(ready.names, findings, strict=True):
            refuse(found, name=name)
    latest = sends.get(ready.issue.issue_id, [])
    shown = replace(
        form,
        revision=str(ready.issue.number),
        variant_revisions=ready.variant_revisions,
        latest=str(latest[0]) if latest else "",
    )
    zone = ZoneInfo(parts.settings.site.timezone)
    return page(
        request,
        "send_confirm.html",
        findings=_labeled(findings),
        has_errors=any(blocking(found) for found in findings),
        form=shown,
        hidden=list(hidden_fields(shown, pace)),
        issue=ready.issue,
        subject=draft.subject,
        sends=latest,
        start=start,
        clock_note=clock_note(form.at, zone) if form.when == "at" and not form.local_time else "",
        foreseen=foreseen,
        is_public=parts.settings.archive.enabled
        and archive_queries.will_be_public(archive, to_all=foreseen.is_for_all),
        timetable=options.timetable.description,
        tracked=options.tracked(draft),
        test=options.test,
        wait=durations.period(options.test.wait) if options.test else "",
        variants=_samples(ready, foreseen.people),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """A variant of the A/B test, and how many recipients get it before the winner is chosen."""

    label: str
    subject: str
    slug: str
    people: int


def _samples(ready: _Prepared, people: int) -> list[_Sample]:
    if ready.options.test is None:
        return []
    sizes = ready.options.test.sizes(people, len(ready.texts))
    return [
        _Sample(label, one.draft.subject, one.draft.slug, size)
        for label, one, size in zip(ab_testing.LABELS, ready.texts, sizes, strict=False)
    ]


def _findings(
    parts: Container, ready: _Prepared, plan: Plan, now: datetime
) -> list[Sequence[Finding]]:
    """The findings of each text. Links and DNS are not requested: the last step does that."""
    return [
        parts.checker.check(one.draft, one.rendered, now=now, plan=plan, examined=one)
        for one in ready.texts
    ]


def _labeled(findings: Sequence[Sequence[Finding]]) -> list[tuple[str, Finding]]:
    """Each finding once, with the labels of its variants unless it is in all of them."""
    labels = dict[tuple[str, str, int | None], list[str]]()
    first = dict[tuple[str, str, int | None], Finding]()
    for label, found in zip(ab_testing.LABELS, findings, strict=False):
        for one in found:
            key = (one.check, one.message, one.line)
            labels.setdefault(key, []).append(label)
            first.setdefault(key, one)
    return [
        ("" if len(labels[key]) == len(findings) else ", ".join(labels[key]), one)
        for key, one in first.items()
    ]


def _make(request: Request, parts: Container, visitor: Visitor, form: SendForm, pace: Pace) -> int:
    now, by = datetime.now(UTC), actor(request, visitor)
    ready = _prepare(parts, form, pace, now)
    # Whatever a send needs is checked before anything is written.
    _ = parts.gateway, parts.links
    if form.despite_findings != "yes":
        for name, one in zip(ready.names, ready.texts, strict=True):
            found = parts.checker.before_sending(
                one.draft,
                one.rendered,
                parts.database,
                lambda session: _plan(session, form, ready.options),
                now=now,
                dns=parts.dns,
                examined=one,
            )
            refuse(found, name=name)
    first = ready.texts[0]
    with transaction(parts.database) as session:
        store.find(session, form.issue, lock=True)
        _refuse_surprises(session, form, ready)
        return send_lifecycle.create(
            session,
            first.draft,
            first.rendered,
            form.segment,
            by=by,
            at=ready.start,
            now=now,
            options=ready.options,
            approved_by=parts.approver(by),
            base=ready.issue.number,
        ).id


def _plan(session: Session, form: SendForm, options: SendOptions) -> Plan:
    return Plan(
        session, form.segment, form.excluded, options.timetable, options.batch_size, options.warm_up
    )


def _refuse_surprises(session: Session, form: SendForm, ready: _Prepared) -> None:
    """What is made is what was shown: of these revisions, and not twice by two clicks."""
    slug = ready.issue.slug
    latest, *others = (
        approval.approved(session, one).number for one in (form.issue, *form.variant)
    )
    if str(latest) != form.revision or latest != ready.issue.number:
        raise IssueError(
            "it was edited meanwhile", place=f"issue {slug}", hint="Look at it once more."
        )
    if not ready.variant_revisions == form.variant_revisions == ",".join(map(str, others)):
        raise IssueError(
            "a variant was edited meanwhile", place=f"issue {slug}", hint="Look at it once more."
        )
    sends = send_list.send_ids_by_issue(session, [ready.issue.issue_id])
    made = sends.get(ready.issue.issue_id, [])
    if str(made[0] if made else "") != form.latest:
        raise SendError(
            f"send {made[0]} of this issue was made meanwhile",
            place=f"issue {slug}",
            hint="If that was you, all is well: look at it under Sends.",
        )
