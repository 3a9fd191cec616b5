"""What an operator does with sends: create, pause, resume, cancel, retry, change the pace.

Each operation writes its audit entry in the same transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select, update

from newsletter import durations
from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import IssueError, NothingToDoError, SendError
from newsletter.issues import approval, store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import Draft
from newsletter.rendering.rendered import Rendered
from newsletter.sending import ab_testing, traces
from newsletter.sending.ledger import batches, interventions, provider_backoff, restore_gate, sends
from newsletter.sending.ledger.reschedule import reschedule
from newsletter.sending.models import Send
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import SendOptions, estimate, require_finite
from newsletter.sending.planning.planner import plan_missed
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.queries.send_status import find, send_subject
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import ENDED, SEND_NEXT, SendState
from subscribers.models import Segment

_send, _issue, _revision = table_of(Send), table_of(Issue), table_of(Revision)
#: What webhook endpoints are told when an operator moves a send to a state.
_EVENTS: Final[Mapping[SendState, WebhookEvent]] = {
    SendState.SCHEDULED: WebhookEvent.SEND_SCHEDULED,
    SendState.SENDING: WebhookEvent.SEND_RESUMED,
    SendState.CANCELLED: WebhookEvent.SEND_CANCELLED,
}


class DifferentTextError(SendError):
    """The issue was sent before with another text."""


@dataclass(frozen=True, slots=True)
class CreatedSend:
    """A new send, and when its last batch leaves by its timetable."""

    id: int
    people: int
    last_at: datetime
    #: Whether the issue will be in the public archive once it is sent.
    is_public: bool


def create(
    session: Session,
    draft: Draft,
    rendered: Rendered,
    segment_names: Sequence[str],
    *,
    by: Actor,
    at: datetime,
    now: datetime,
    options: SendOptions = SendOptions(),  # noqa: B008 (frozen)
    approved_by: Actor | None = None,
    base: int | None = None,
    occasion: Mapping[str, str] | None = None,
) -> CreatedSend:
    """Schedule the issue, as it is rendered now, for these segments.

    Only an approved revision can be sent; ``approved_by`` approves a file by sending it. A
    stored draft gives its revision as ``base``; a schedule gives itself and the due time as
    ``occasion``. Raises IssueError if the revision is not approved, or is not the latest.

    Raises DifferentTextError if another text was sent under the same slug, because its recipients
    would be excluded; ``options.same_issue`` allows that. Raises SegmentError or TopicError for an
    unknown one, and NothingToDoError if there are no recipients. Raises SendError if the
    timetable needs more than a year, if the A/B test needs a measure that is not tracked, if
    the deliveries of the issue were deleted, and while a departure log is not compared.
    """
    restore_gate.require_open(session)
    revision = _approved(session, draft, options, approved_by, now, base=base)
    if not options.same_issue:
        require_same_text(session, draft, revision.issue_id)
    estimated = estimate(
        session,
        draft,
        segment_names,
        issue_id=revision.issue_id,
        start=max(at, now),
        now=now,
        options=options,
    )
    tracked = options.tracked(draft)
    send = Send(
        issue_id=revision.issue_id,
        revision_id=revision.id,
        segments=[_segment_snapshot(one) for one in estimated.segments],
        excluded=[_segment_snapshot(one) for one in estimated.excluded],
        topics=list(draft.topics),
        state=SendState.SCHEDULED,
        scheduled_for=at,
        created_at=now,
        timetable=options.timetable.to_json(),
        test=options.test.to_json() if options.test else {},
        track_clicks=tracked.clicks,
        track_opens=tracked.opens,
        occasion=dict(occasion or {}),
    )
    session.add(send)
    session.flush()
    sends.report(session, WebhookEvent.SEND_SCHEDULED, send.id, now=now)
    variants: list[tuple[Rendered, int | None]] = [(rendered, None)]
    for other, other_rendered in options.others:
        saved = approval.approved_revision(session, other)
        is_other = saved is not None and saved.issue_id != revision.issue_id
        variants.append((other_rendered, saved.issue_id if saved and is_other else None))
    ab_testing.write(session, send.id, variants)
    issue = session.get_one(Issue, revision.issue_id)
    is_public = archive_queries.will_be_public(issue.publicity, to_all=estimated.is_for_all)
    _audit(
        session,
        by,
        "send created",
        send.id,
        now=now,
        people=estimated.people,
        segments=", ".join(segment_names)[:300],
        starts=f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        **({"variants": len(variants)} if options.test else {}),
        **({"checks": "errors ignored"} if options.despite_findings else {}),
    )
    traces.created(session, send, issue.slug, by=by, people=estimated.people)
    return CreatedSend(send.id, estimated.people, estimated.last_at, is_public)


def _segment_snapshot(segment: Segment) -> dict[str, Any]:
    """The segment as the send stores it; its name and expression may change later."""
    return {"id": segment.id, "name": segment.name, "expression": segment.expression}


def find_differing_send(session: Session, draft: Draft, issue_id: int) -> int | None:
    """The latest send of an issue, if all its sends have another text than the draft.

    None if there is no send, or if one of them has this text: new subscribers may get it.
    """
    sent = session.execute(
        select(_send.c.id, _revision.c.source)
        .join(_revision, _revision.c.id == _send.c.revision_id)
        .where(
            _send.c.issue_id == issue_id,
            (_send.c.state != SendState.CANCELLED) | (_send.c.started_at.is_not(None)),
        )
        .order_by(_send.c.id.desc())
    ).all()
    if any(one.source == draft.source for one in sent):
        return None
    text = _visible_text(draft)
    for one in sent:
        try:
            before = store.draft_from(draft.slug, one.source)
        except IssueError:
            continue  # valid when it was sent, but no longer
        if _visible_text(before) == text:
            return None
    return sent[0].id if sent else None


def _visible_text(draft: Draft) -> tuple[str, ...]:
    """The text of a draft that recipients see, with white space collapsed."""
    parts = (draft.subject, draft.preheader, draft.title, draft.body)
    return tuple(" ".join(part.split()) for part in parts)


def require_same_text(session: Session, draft: Draft, issue_id: int) -> None:
    """Raise DifferentTextError if an issue was sent with another text than this draft."""
    if (before := find_differing_send(session, draft, issue_id)) is not None:
        raise DifferentTextError(
            f"send {before} of this issue has a different text; its recipients would be excluded",
            place=f"issue {draft.slug}",
            hint="If this is another issue, give it its own slug: a line “slug: …” in its front "
            "matter. If it is the same issue, and only subscribers without it should get this "
            "text, choose “This is the same issue” in the form, or add --same-issue.",
        )


def _approved(
    session: Session,
    draft: Draft,
    options: SendOptions,
    by: Actor | None,
    now: datetime,
    *,
    base: int | None,
) -> Revision:
    revision = approval.text_to_send(session, draft, by=by, now=now, base=base)
    require_approved_variants(session, options, by)
    return revision


def require_approved_variants(
    session: Session, options: SendOptions, approved_by: Actor | None
) -> None:
    """Raise IssueError if a variant is not approved; ``approved_by`` approves it by sending."""
    if approved_by is not None:
        return
    for other, _ in options.others:
        if approval.approved_revision(session, other) is None:
            raise IssueError(
                f"nobody approved the variant “{other.subject}” of the A/B test",
                place=f"issue {other.slug}",
                hint="Save it as an issue of its own, and have that approved. Then choose it as a "
                "variant.",
            )


def pause(session: Session, send_id: int, *, by: Actor, now: datetime, reason: str = "") -> None:
    """Pause a send: no further batch leaves. The default reason names ``by``."""
    _move(
        session,
        send_id,
        SendState.PAUSED,
        now=now,
        paused_by=PauseCause.OPERATOR,
        reason=reason or f"paused by {by.name}",
        paused_at=now,
    )
    _audit(session, by, "send paused", send_id, now=now)


def resume(
    session: Session, send_id: int, *, by: Actor, now: datetime, warm_up: WarmUp | None = None
) -> None:
    """Resume a paused send, or schedule it again if it was not planned yet.

    Batches that were due during the pause are rescheduled, so that they keep the pace.
    """
    send = find(session, send_id)
    resumed: dict[str, Any] = {"reason": "", "paused_at": None}
    provider_backoff.restart_duration(session, now=now)
    if send.started_at is None:
        # A time in the future stays; a missed one becomes now.
        at = max(send.scheduled_for, now)
        _move(
            session,
            send_id,
            SendState.SCHEDULED,
            now=now,
            only=SendState.PAUSED,
            scheduled_for=at,
            **resumed,
        )
        _audit(session, by, "send resumed", send_id, now=now)
        return
    if (send.timetable or warm_up) and send.state == SendState.PAUSED:
        reschedule(session, send_id, now=now, warm_up=warm_up)
    _move(session, send_id, SendState.SENDING, now=now, only=SendState.PAUSED, **resumed)
    sends.finish(session, now=now)
    _audit(session, by, "send resumed", send_id, now=now)


def cancel(session: Session, send_id: int, *, by: Actor, now: datetime) -> int:
    """Cancel the send; returns how many of its recipients will not get the issue.

    Emails that the provider has already accepted cannot be recalled.
    """
    _move(session, send_id, SendState.CANCELLED, now=now, reason="cancelled", finished_at=now)
    dropped = batches.drop_pending(session, send_id, now=now, reason="cancelled")
    _audit(session, by, "send cancelled", send_id, now=now)
    traces.ended(session, send_id, now=now)
    return dropped


def retry(
    session: Session,
    send_id: int,
    *,
    by: Actor,
    now: datetime,
    batch_size: int,
    warm_up: WarmUp | None = None,
) -> int:
    """Send an ended send again to recipients who missed the issue; returns how many.

    Missed means rejected, dropped by the provider, or skipped; they get it if they are active
    now. Raises NothingToDoError if there are none.
    """
    reopened: dict[str, Any] = {"finished_at": None, "reason": ""}
    _move(session, send_id, SendState.SENDING, now=now, ended=True, **reopened)
    timetable = Timetable.from_json(find(session, send_id).timetable)
    if timetable.local_time is not None and timetable.local_date is None:
        # Otherwise a pause would compute their local time from the start of the send.
        _set_timetable(session, send_id, replace(timetable, since=now))
    people = plan_missed(session, send_id, now=now, batch_size=batch_size, warm_up=warm_up)
    if not people:
        raise NothingToDoError(
            "no recipient who missed the issue can be emailed now",
            place=f"send {send_id}",
            hint="The list of its recipients has the reason of each.",
        )
    _audit(session, by, "send retried for those who missed it", send_id, now=now, people=people)
    return people


def require_work(session: Session, send_id: int, *, now: datetime) -> None:
    """Raise NothingToDoError or SendError, with the next step, unless workers can send it."""
    send = find(session, send_id)
    place = f"send {send_id}"
    if send.state in ENDED:
        hint = f"To send it to recipients who missed it: newsletter sends retry {send_id}"
        raise NothingToDoError(f"it is {send.state} already", place=place, hint=hint)
    if send.state == SendState.PAUSED:
        hint = f"First: newsletter sends resume {send_id}"
        raise SendError(f"it is paused: {send.reason}", place=place, hint=hint)
    if send.state == SendState.SCHEDULED and send.scheduled_for > now:
        hint = "`newsletter serve` starts it at its time."
        raise SendError("it is scheduled for a later time", place=place, hint=hint)
    if send.test and not send.winner:
        hint = "`newsletter serve` chooses the winner and continues the send."
        raise SendError("its A/B test has no winner yet", place=place, hint=hint)


def change_pace(
    session: Session,
    send_id: int,
    timetable: Timetable,
    *,
    by: Actor,
    now: datetime,
    batch_size: int = 1000,
    warm_up: WarmUp | None = None,
) -> int:
    """Give a send another timetable; returns how many batches were rescheduled.

    The local time of the send stays unless the new timetable has another. Raises SendError if
    the send has ended, or would take more than a year.
    """
    send = find(session, send_id)
    state = SendState(send.state)
    if state not in {SendState.SCHEDULED, SendState.SENDING, SendState.PAUSED}:
        raise SendError(f"it is {state}: its pace cannot be changed", place=f"send {send_id}")
    before = Timetable.from_json(send.timetable)
    timetable = replace(timetable, since=before.since)
    if timetable.local_time is None:
        timetable = replace(timetable, local_time=before.local_time, local_date=before.local_date)
    moved = 0
    if send.started_at is None:
        require_finite(session, send, timetable, now=now, batch_size=batch_size, warm_up=warm_up)
    _set_timetable(session, send_id, timetable)
    if send.started_at is not None:
        moved = reschedule(session, send_id, now=now, warm_up=warm_up)
    _audit(session, by, "pace changed", send_id, now=now)
    return moved


def choose_winner(
    session: Session,
    send_id: int,
    label: str,
    *,
    by: Actor,
    now: datetime,
    warm_up: WarmUp | None = None,
) -> int:
    """Send the variant of this label to the rest of an A/B test; returns how many recipients.

    Raises SendError if the send has no test, no such variant, or a winner already.
    """
    people = ab_testing.set_winner(session, send_id, label)
    reschedule(session, send_id, now=now, warm_up=warm_up)
    _audit(session, by, f"variant {label} chosen", send_id, now=now, people=people)
    return people


def _set_timetable(session: Session, send_id: int, timetable: Timetable) -> None:
    session.execute(
        update(_send).where(_send.c.id == send_id).values(timetable=timetable.to_json())
    )


def pause_late(session: Session, send_id: int, *, now: datetime) -> None:
    """Pause a scheduled send that was not started in time, so that an operator decides."""
    late = now - find(session, send_id).scheduled_for
    reason = (
        f"due {durations.in_words(late)} ago while the service did not run, which is later than "
        "sending.late_limit allows"
    )
    sends.pause_scheduled(session, send_id, PauseCause.LATE, reason=reason, now=now)


def due(session: Session, *, now: datetime) -> list[tuple[int, datetime]]:
    """Scheduled sends that are due: (id, due time), the earliest first."""
    rows = session.execute(
        select(_send.c.id, _send.c.scheduled_for)
        .where(_send.c.state == SendState.SCHEDULED, _send.c.scheduled_for <= now)
        .order_by(_send.c.scheduled_for, _send.c.id)
    )
    return [(row.id, row.scheduled_for) for row in rows]


def _move(
    session: Session,
    send_id: int,
    target: SendState,
    *,
    now: datetime,
    only: SendState | None = None,
    ended: bool = False,
    paused_by: PauseCause | None = None,
    **values: object,
) -> None:
    send = find(session, send_id)
    sources = ENDED if ended else [only] if only else None
    moved = sends.move_send(
        session, send_id, target, only_from=sources, paused_by=paused_by, **values
    )
    if moved:
        interventions.record(session, send, target, now=now)
        if (event := _EVENTS.get(target)) is not None:
            sends.report(session, event, send_id, now=now)
        elif target is SendState.PAUSED and paused_by is not None:
            reason = str(values.get("reason", ""))
            sends.report_pause(session, send_id, paused_by, reason=reason, now=now)
    else:
        possible = ", ".join(sorted(SEND_NEXT[SendState(send.state)])) or "nothing more"
        raise SendError(
            f"it is {send.state} and cannot become {target} in this way",
            place=f"send {send_id}",
            hint=f"From here it can become: {possible}.",
        )


def _audit(
    session: Session, by: Actor, action: str, send_id: int, *, now: datetime, **detail: str | int
) -> None:
    audit.record(session, by, action, now=now, subject=send_subject(session, send_id), **detail)
