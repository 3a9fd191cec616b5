"""Review and approval of issues: request a review, approve a revision, return it for changes.

An approval names the revision that the approver read. It is refused when a newer revision
exists, so nobody approves text that they have not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from newsletter.accounts import audit, operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db import webhook_queue
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import IssueError
from newsletter.issues import store
from newsletter.issues.models import Issue, Review, Revision
from newsletter.issues.parsing.issue_file import Draft
from newsletter.issues.states import ISSUE_NEXT, LEADS_TO, IssueState, Step

_issue, _revision, _review = table_of(Issue), table_of(Revision), table_of(Review)


@dataclass(frozen=True, slots=True)
class ApprovedIssue:
    """An issue that may be sent, with the approved text."""

    issue_id: int
    slug: str
    title: str
    series: str
    revision_id: int
    number: int
    source: str
    approved_at: datetime

    @property
    def draft(self) -> Draft:
        """The parsed text."""
        return store.draft_from(self.slug, self.source)


def next_approved(
    session: Session, series: str, *, taken: Select[Any] | None = None
) -> ApprovedIssue | None:
    """The issue of a series that was approved first; None when no issue is approved.

    ``taken`` selects the ids of issues to skip: those that already have a send.
    """
    latest = (
        select(_revision.c.issue_id, func.max(_revision.c.number).label("number"))
        .group_by(_revision.c.issue_id)
        .subquery()
    )
    query = (
        select(_issue, _revision.c.id.label("revision_id"), _revision.c.number, _revision.c.source)
        .join(latest, latest.c.issue_id == _issue.c.id)
        .join(
            _revision,
            (_revision.c.issue_id == _issue.c.id) & (_revision.c.number == latest.c.number),
        )
        .where(_issue.c.series == series, _issue.c.state == IssueState.APPROVED)
        .order_by(_issue.c.since, _issue.c.id)
        .limit(1)
    )
    if taken is not None:
        query = query.where(_issue.c.id.not_in(taken))
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    return ApprovedIssue(
        issue_id=row.id,
        slug=row.slug,
        title=row.title,
        series=row.series,
        revision_id=row.revision_id,
        number=row.number,
        source=row.source,
        approved_at=row.since,
    )


def approved(session: Session, slug: str) -> ApprovedIssue:
    """The approved issue of this slug; IssueError when it does not exist or is not approved."""
    issue = store.find(session, slug)
    latest = store.revision_of(session, issue)
    require_approved(store.SavedRevision(issue, latest, is_new=False))
    return ApprovedIssue(
        issue_id=issue.id,
        slug=issue.slug,
        title=issue.title,
        series=issue.series,
        revision_id=latest.id,
        number=latest.number,
        source=latest.source,
        approved_at=issue.since,
    )


def request(session: Session, slug: str, *, by: Actor, now: datetime, note: str = "") -> Revision:
    """Request a review of the latest revision, which this returns."""
    issue = store.find(session, slug, lock=True)
    revision = store.revision_of(session, issue)
    _record_step(session, issue, revision, Step.REQUESTED, by=by, now=now, note=note)
    operator_messages.post(
        session,
        MessageKind.REVIEW_ASKED,
        slug,
        now=now,
        occasion=now.isoformat(),
        detail=note,
    )
    audit.record(session, by, "review requested", now=now, subject=slug, revision=revision.number)
    return revision


def approve(
    session: Session,
    slug: str,
    *,
    revision: int,
    by: Actor,
    now: datetime,
    note: str = "",
    second_person: bool = False,
) -> Revision:
    """Approve a revision, so that the issue may be sent with its text.

    Raises IssueError when ``revision`` is not the latest, when no review was requested, and,
    with ``second_person``, when ``by`` wrote the revision or requested the review.
    """
    issue = store.find(session, slug, lock=True)
    latest = store.revision_of(session, issue)
    if latest.number != revision:
        raise IssueError(
            f"revision {revision} is not the latest: {latest.author or 'someone'} saved "
            f"revision {latest.number} at {latest.created_at:%Y-%m-%d %H:%M} UTC",
            place=f"issue {slug}",
            hint=f"Read revision {latest.number}, then approve that one.",
        )
    if second_person and (why := second_person_conflict(session, issue, latest, by)):
        raise IssueError(
            f"{by.name} {why}, so another user has to approve it",
            place=f"issue {slug}",
            hint="The setting review.second_person requires that.",
        )
    _record_step(session, issue, latest, Step.APPROVED, by=by, now=now, note=note)
    audit.record(session, by, "issue approved", now=now, subject=slug, revision=revision)
    return latest


def return_to_draft(
    session: Session, slug: str, *, by: Actor, now: datetime, note: str
) -> Revision:
    """Ask for changes, or withdraw an approval. Existing sends of the issue keep their text."""
    issue = store.find(session, slug, lock=True)
    revision = store.revision_of(session, issue)
    _record_step(session, issue, revision, Step.RETURNED, by=by, now=now, note=note)
    audit.record(session, by, "issue returned", now=now, subject=slug, revision=revision.number)
    return revision


def approve_by_sending(
    session: Session, saved: store.SavedRevision, *, by: Actor, now: datetime
) -> None:
    """Approve a revision on behalf of the person who sends it, unless it is approved already."""
    if saved.issue.state == IssueState.APPROVED:
        return
    if saved.issue.state == IssueState.DRAFT:
        _record_step(session, saved.issue, saved.revision, Step.REQUESTED, by=by, now=now, note="")
    _record_step(
        session, saved.issue, saved.revision, Step.APPROVED, by=by, now=now, note="by sending it"
    )


def text_to_send(
    session: Session, draft: Draft, *, by: Actor | None, now: datetime, base: int | None
) -> Revision:
    """The approved revision with exactly this text; a new text is saved as a new revision.

    With ``by``, sending a file approves it. A saved text (``base`` is its revision number) has
    to be approved before; IssueError when it is not.
    """
    saved = store.add_revision(session, draft, by=by or store.COMMAND_LINE, now=now, base=base)
    if by is not None and base is None:
        approve_by_sending(session, saved, by=by, now=now)
    else:
        require_approved(saved)
    return saved.revision


def require_approved(saved: store.SavedRevision) -> None:
    """Raise IssueError unless exactly this text is approved."""
    if saved.issue.state != IssueState.APPROVED:
        slug, number = saved.issue.slug, saved.revision.number
        raise IssueError(
            f"revision {number} is not approved" if not saved.is_new else "nobody approved it",
            place=f"issue {slug}",
            hint=f"Request a review of {slug}; an approver reads and approves revision {number}.",
        )


def approved_revision(session: Session, draft: Draft) -> Revision | None:
    """The approved revision that says exactly this; None if there is none."""
    issue = session.scalar(
        select(Issue).where(_issue.c.slug == draft.slug, _issue.c.state == IssueState.APPROVED)
    )
    if issue is None:
        return None
    latest = store.revision_of(session, issue)
    if latest.source != draft.source:
        return None
    # A variant of an A/B test may have a subject that is not in its source.
    is_same = store.draft_from(issue.slug, latest.source).subject == draft.subject
    return latest if is_same else None


def second_person_conflict(session: Session, issue: Issue, revision: Revision, by: Actor) -> str:
    """Why ``by`` may not approve as the second person; empty when they may."""
    if _is_same(by, revision.author, revision.author_id):
        return "wrote this revision"
    asked = session.scalar(
        select(Review)
        .where(_review.c.issue_id == issue.id, _review.c.step == Step.REQUESTED)
        .order_by(_review.c.id.desc())
        .limit(1)
    )
    return "asked for the review" if asked and _is_same(by, asked.actor, asked.user_id) else ""


def history(session: Session, issue: Issue) -> Sequence[tuple[Review, int]]:
    """Each step of an issue's review with the number of its revision, oldest first."""
    rows = session.execute(
        select(Review, _revision.c.number)
        .join(_revision, _revision.c.id == _review.c.revision_id)
        .where(_review.c.issue_id == issue.id)
        .order_by(_review.c.id)
    )
    return [(row[0], row[1]) for row in rows]


def _is_same(by: Actor, name: str, user_id: int | None) -> bool:
    """Whether the actor is this person: by user id if both are known, else by name."""
    if by.user_id is not None and user_id is not None:
        return by.user_id == user_id
    return by.name.casefold() == name.casefold()


def _record_step(
    session: Session,
    issue: Issue,
    revision: Revision,
    step: Step,
    *,
    by: Actor,
    now: datetime,
    note: str,
) -> None:
    """Record a review step; IssueError when ISSUE_NEXT does not allow it in this state."""
    target = LEADS_TO[step]
    if target not in ISSUE_NEXT[IssueState(issue.state)]:
        raise IssueError(
            f"it is {STATE_LABELS[IssueState(issue.state)]} and cannot become "
            f"{STATE_LABELS[target]}",
            place=f"issue {issue.slug}",
            hint="First request a review."
            if step is Step.APPROVED and issue.state == IssueState.DRAFT
            else None,
        )
    issue.state, issue.since = target, now
    session.add(
        Review(
            issue_id=issue.id,
            revision_id=revision.id,
            step=step,
            actor=by.name,
            user_id=by.user_id,
            note=note[:2000],
            at=now,
        )
    )
    if step is Step.APPROVED:
        approved = {
            "slug": issue.slug,
            "title": issue.title,
            "series": issue.series,
            "revision": revision.number,
            "approved_by": by.name,
        }
        webhook_queue.report(
            session, WebhookEvent.ISSUE_APPROVED, lambda: {"issue": approved}, now=now
        )
    session.flush()


#: The states as they read in a sentence.
STATE_LABELS = {
    IssueState.DRAFT: "a draft",
    IssueState.REVIEW: "in review",
    IssueState.APPROVED: "approved",
}
