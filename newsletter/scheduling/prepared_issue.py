"""Renders and checks the next issue of a schedule, before the transaction that sends it.

This takes seconds for a long issue. Inside the transaction, no other process could write to an
SQLite database meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from newsletter.checking.checker import Checker, ExaminedIssue
from newsletter.db.orm import Session, table_of
from newsletter.errors import BusyError, UserError
from newsletter.issues import approval
from newsletter.issues.approval import ApprovedIssue
from newsletter.issues.parsing.tracking_flags import TRACK_EVERYTHING, Tracked
from newsletter.scheduling.models import Schedule
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.models import Send, Variant
from newsletter.sending.pacing.quotas import WarmUp

_schedule, _send, _variant = table_of(Schedule), table_of(Send), table_of(Variant)


@dataclass(frozen=True, slots=True)
class IssueRenderer:
    """Renders and checks issues of schedules, and has the settings of their sends."""

    checker: Checker
    late_limit: timedelta
    batch_size: int
    warm_up: WarmUp | None = None
    #: What the publication tracks by default.
    publication: Tracked = TRACK_EVERYTHING
    #: Calls a function in a text worker (newsletter.text_workers); None calls it here.
    text_workers: Callable[..., Any] | None = None

    def examine(self, issue: ApprovedIssue) -> ExaminedIssue:
        """Read, render and check an issue; raises UserError."""
        examine, name = self.checker.examine_text, f"{issue.slug}.md"
        if self.text_workers is None:
            return examine(issue.source, name=name)
        examined_issue: ExaminedIssue = self.text_workers(examine, issue.source, name=name)
        return examined_issue


def next_issue(session: Session, series: str) -> ApprovedIssue | None:
    """The next approved issue of a series that no send has used, also not as a variant.

    Sends that a restored database has forgotten count, too, once they have no recipients left.
    """
    taken = (
        select(_send.c.issue_id)
        .union(
            select(_variant.c.issue_id).where(_variant.c.issue_id.is_not(None)),
            forgotten_sends.finished_issues(),
        )
        .subquery()
    )
    return approval.next_approved(session, series, taken=select(taken.c.issue_id))


@dataclass(frozen=True, slots=True)
class PreparedIssue:
    """A revision, rendered and checked, or the error that this raised."""

    revision_id: int
    result: ExaminedIssue | UserError


def prepare(
    session: Session, schedule_id: int, renderer: IssueRenderer
) -> Callable[[], PreparedIssue] | None:
    """Find the next issue of a schedule; returns a function that renders it, without a transaction.

    None where there is no issue.
    """
    series = session.scalar(select(_schedule.c.series).where(_schedule.c.id == schedule_id))
    issue = next_issue(session, series) if series is not None else None
    if issue is None:
        return None

    def render() -> PreparedIssue:
        try:
            return PreparedIssue(issue.revision_id, renderer.examine(issue))
        except UserError as error:
            return PreparedIssue(issue.revision_id, error)

    return render


def examined(
    issue: ApprovedIssue, renderer: IssueRenderer, prepared: PreparedIssue | None
) -> ExaminedIssue:
    """The prepared issue; without one, it is rendered now.

    Raises BusyError when another issue has become the next one since it was prepared.
    """
    if prepared is None:
        return renderer.examine(issue)
    if prepared.revision_id != issue.revision_id:
        raise BusyError(f"issue {issue.slug} has become the next one meanwhile")
    if isinstance(prepared.result, UserError):
        raise prepared.result
    return prepared.result
