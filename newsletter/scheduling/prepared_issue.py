"""What a schedule sends next, rendered and checked before the transaction that sends it.

That takes seconds where an issue is long, and on SQLite nobody else could write meanwhile.
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
from newsletter.sending.models import Send
from newsletter.sending.pacing.quotas import WarmUp

_schedule, _send = table_of(Schedule), table_of(Send)


@dataclass(frozen=True, slots=True)
class IssueRenderer:
    """What a firing makes sends with."""

    checker: Checker
    late_limit: timedelta
    batch_size: int
    warm_up: WarmUp | None = None
    #: What the publication has measured.
    publication: Tracked = TRACK_EVERYTHING
    #: Calls a function that works on what an author wrote; by itself, where nobody else waits.
    on_text: Callable[..., Any] | None = None

    def examine(self, issue: ApprovedIssue) -> ExaminedIssue:
        """Read, render and check what is to be sent; raises UserError."""
        examine, name = self.checker.examine_text, f"{issue.slug}.md"
        if self.on_text is None:
            return examine(issue.source, name=name)
        found: ExaminedIssue = self.on_text(examine, issue.source, name=name)
        return found


def next_issue(session: Session, series: str) -> ApprovedIssue | None:
    """What goes out next of a series: approved, and named by no send so far.

    Nor by one that was forgotten when the database was restored, once nobody is left for it.
    """
    taken = select(_send.c.issue_id).union(forgotten_sends.over()).subquery()
    return approval.next_approved(session, series, taken=select(taken.c.issue_id))


@dataclass(frozen=True, slots=True)
class PreparedIssue:
    """A revision's text, rendered and checked before the transaction that sends it, or why not."""

    revision_id: int
    made: ExaminedIssue | UserError


def prepare(
    session: Session, schedule_id: int, press: IssueRenderer
) -> Callable[[], PreparedIssue] | None:
    """Find what a schedule would send next; what is returned renders it, without a transaction.

    None where there is nothing.
    """
    series = session.scalar(select(_schedule.c.series).where(_schedule.c.id == schedule_id))
    issue = next_issue(session, series) if series is not None else None
    if issue is None:
        return None

    def made() -> PreparedIssue:
        try:
            return PreparedIssue(issue.revision_id, press.examine(issue))
        except UserError as error:
            return PreparedIssue(issue.revision_id, error)

    return made


def examined(
    issue: ApprovedIssue, press: IssueRenderer, prepared: PreparedIssue | None
) -> ExaminedIssue:
    """What was prepared; made now where nothing was."""
    if prepared is None:
        return press.examine(issue)
    if prepared.revision_id != issue.revision_id:
        raise BusyError(f"issue {issue.slug} has become the next meanwhile")
    if isinstance(prepared.made, UserError):
        raise prepared.made
    return prepared.made
