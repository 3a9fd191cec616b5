"""Runs a schedule that is due: creates a send, or records why there is none.

The row of the schedule is locked, and each due time has one row by its key, so two clocks create
one send. Of the times that came while the service did not run, the last one runs late if it is
not too late; the others are recorded as missed.
"""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from newsletter import durations
from newsletter.accounts import audit, operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import MessageKind
from newsletter.checking.checker import ExaminedIssue
from newsletter.checking.finding import blocking
from newsletter.checking.planned_send import Plan
from newsletter.db.orm import Session, table_of
from newsletter.errors import BusyError, MachineError, NothingToDoError, SendError, UserError
from newsletter.issues import store
from newsletter.issues.approval import ApprovedIssue
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.scheduling import next_run, schedules
from newsletter.scheduling.models import RunOutcome, Schedule, ScheduleRun, ScheduleState
from newsletter.scheduling.prepared_issue import IssueRenderer, PreparedIssue, examined, next_issue
from newsletter.scheduling.recurrence import Occurrence
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import AlreadySentError, SendOptions

_log = logging.getLogger(__name__)
_schedule, _run = table_of(Schedule), table_of(ScheduleRun)


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of one due time."""

    schedule: str
    due: datetime
    outcome: RunOutcome
    reason: str = ""
    send_id: int | None = None

    def __str__(self) -> str:
        what = f"send {self.send_id}" if self.outcome is RunOutcome.SENT else self.outcome.value
        return f"{self.schedule}, due {self.due:%Y-%m-%d %H:%M} UTC: {what} {self.reason}".strip()


def run_schedule(
    session: Session,
    schedule_id: int,
    renderer: IssueRenderer,
    *,
    now: datetime,
    prepared: PreparedIssue | None = None,
) -> list[RunResult]:
    """Run a schedule for all its times that are due by now, in the caller's transaction.

    Creates one send at most. Returns an empty list when another process was faster. Raises
    BusyError when ``prepared`` is not the next issue any more.
    """
    schedule = session.scalar(
        select(Schedule)
        .where(
            _schedule.c.id == schedule_id,
            _schedule.c.state == ScheduleState.ACTIVE,
            _schedule.c.next_at <= now,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if schedule is None or schedule.next_at is None:
        return []
    due: list[Occurrence] = []
    following = None
    for one in next_run.from_next(schedule):
        if one.due > now:
            following = one
            break
        due.append(one)
    due = _without_sent(session, schedule.id, due)
    last = next((one for one in reversed(due) if not next_run.skips(schedule, one)), None)
    results = []
    for one in due:
        if next_run.skips(schedule, one):
            outcome, reason, send_id = RunOutcome.SKIPPED, "the schedule skips this day", None
        elif one is not last:
            outcome, reason, send_id = RunOutcome.MISSED, _PASSED, None
        elif now - one.due > renderer.late_limit:
            outcome, reason, send_id = RunOutcome.MISSED, _too_late(schedule, one, now=now), None
        else:
            outcome, reason, send_id = _send_next(
                session, schedule, one, renderer, now=now, prepared=prepared
            )
        results.append(RunResult(schedule.name, one.due, outcome, reason, send_id))
    next_run.set_next_run(schedule, following)
    if not results:
        return []  # the zone's rules or the machine's clock changed since next_at was computed
    session.execute(
        insert(_run),
        [
            {
                "schedule_id": schedule.id,
                "due_at": one.due,
                "at": now,
                "outcome": one.outcome,
                "reason": one.reason[:1000],
                "send_id": one.send_id,
            }
            for one in results
        ],
    )
    _record(session, schedule, results, now)
    return results


def _without_sent(session: Session, schedule_id: int, due: list[Occurrence]) -> list[Occurrence]:
    """The times that have created no send yet. A clock that was set back may bring a time again.

    Deletes the recorded runs of the others, because they run again.
    """
    if not due:
        return []
    recorded = (
        _run.c.schedule_id == schedule_id,
        _run.c.due_at.between(due[0].due, due[-1].due),
    )
    session.execute(delete(_run).where(*recorded, _run.c.outcome != RunOutcome.SENT))
    sent = set(session.scalars(select(_run.c.due_at).where(*recorded)))
    return [one for one in due if one.due not in sent]


def _send_next(
    session: Session,
    schedule: Schedule,
    one: Occurrence,
    renderer: IssueRenderer,
    *,
    now: datetime,
    prepared: PreparedIssue | None,
) -> tuple[RunOutcome, str, int | None]:
    before = forgotten_sends.slug_of_run(session, schedule.name, one.due)
    issue = _lock_next_issue(session, schedule.series)
    if issue is None:
        return RunOutcome.NOTHING, f"no approved issue in series {schedule.series}", None
    if before is not None and not forgotten_sends.has_issue(session, issue.issue_id):
        return RunOutcome.NOTHING, f"issue {before} {_BEFORE}", None
    try:
        # A failure undoes the send, and not the record of this run.
        with session.begin_nested():
            created = _create_send(
                session, schedule, one, examined(issue, renderer, prepared), renderer, now=now
            )
    except AlreadySentError:
        # The restored database forgot that send. Continue with the next issue of the series.
        forgotten_sends.mark_finished(session, issue.issue_id, now=now)
        if before == issue.slug:
            return RunOutcome.NOTHING, f"issue {before} {_BEFORE}", None
        return _send_next(session, schedule, one, renderer, now=now, prepared=None)
    except NothingToDoError as error:
        return RunOutcome.NOTHING, _reason_of(issue, error), None
    except (BusyError, MachineError):
        raise  # not the issue's fault; the next tick tries again
    except UserError as error:
        return RunOutcome.FAILED, _reason_of(issue, error), None
    except SQLAlchemyError:
        raise  # a failure of the database; the next tick tries again
    except Exception as error:  # noqa: BLE001 (recorded, or each tick would fail again)
        _log.exception("schedule %s cannot send %s", schedule.name, issue.slug)
        return RunOutcome.FAILED, f"issue {issue.slug}: {type(error).__name__}: {error}", None
    late = now - one.due
    reason = f"{durations.in_words(late)} late: {_why_late(schedule, one)}" if late >= _LATE else ""
    return RunOutcome.SENT, reason, created


def _create_send(
    session: Session,
    schedule: Schedule,
    one: Occurrence,
    issue: ExaminedIssue,
    renderer: IssueRenderer,
    *,
    now: datetime,
) -> int:
    draft, rendered = issue.draft, issue.rendered
    audience = schedules.audience(session, schedule.id)
    timetable = Timetable.from_json(schedule.timetable)
    if schedule.own_clock:
        timetable = replace(timetable, local_time=one.wall.time(), local_date=one.wall.date())
    options = SendOptions(
        excluded=audience.excluded,
        timetable=timetable,
        batch_size=renderer.batch_size,
        warm_up=renderer.warm_up,
        tracking=TrackingChoice(schedule.track_clicks, schedule.track_opens),
        publication=renderer.publication,
    )
    plan = Plan(
        session,
        audience.segments,
        audience.excluded,
        timetable,
        renderer.batch_size,
        renderer.warm_up,
    )
    # Without DNS and links: no requests over the network inside this transaction.
    findings = renderer.checker.check(
        draft, rendered, now=now, plan=plan, blocking_only=True, examined=issue
    )
    if errors := blocking(findings):
        messages = "; ".join(one.message for one in errors)
        hint = "The page of the issue lists all findings."
        raise SendError(f"checks found errors: {messages}", hint=hint)
    return send_lifecycle.create(
        session,
        draft,
        rendered,
        audience.segments,
        by=Actor(None, f"schedule {schedule.name}"),
        at=one.due,
        now=now,
        options=options,
        occasion={"schedule": schedule.name, "due": one.due.astimezone(UTC).isoformat()},
    ).id


def _lock_next_issue(session: Session, series: str) -> ApprovedIssue | None:
    """Lock the next issue, so that no one edits or sends it before this transaction ends."""
    while issue := next_issue(session, series):
        store.find(session, issue.slug, lock=True)
        # Another schedule of the series, or an editor, may have come before the lock.
        if next_issue(session, series) == issue:
            return issue
    return None


def _record(session: Session, schedule: Schedule, results: list[RunResult], now: datetime) -> None:
    """Write an audit entry for each outcome, with its last run and the number of runs."""
    actor = Actor(None, f"schedule {schedule.name}")
    for outcome in dict.fromkeys(one.outcome for one in results):
        alike = [one for one in results if one.outcome is outcome]
        last = alike[-1]
        detail = {"reason": last.reason} if last.reason else {}
        if last.send_id:
            detail["send"] = str(last.send_id)
        if len(alike) > 1:
            detail["times"] = str(len(alike))
        subject = f"due {last.due:%Y-%m-%d %H:%M} UTC"
        if outcome in {RunOutcome.MISSED, RunOutcome.FAILED}:
            operator_messages.post(
                session,
                MessageKind.SCHEDULE_FAILED,
                schedule.id,
                now=now,
                occasion=last.due.isoformat(),
                detail=last.reason,
            )
        audit.record(session, actor, _AUDIT_ACTIONS[outcome], now=now, subject=subject, **detail)


_AUDIT_ACTIONS = {
    RunOutcome.SENT: "created a send",
    RunOutcome.NOTHING: "sent nothing",
    RunOutcome.SKIPPED: "skipped a day",
    RunOutcome.MISSED: "missed its time",
    RunOutcome.FAILED: "could not send",
}
_BEFORE = "was sent at this time before the database was restored"
_PASSED = "the service did not run when it was due, and a later time has come since"
#: A run that is later than this gets a reason.
_LATE = timedelta(minutes=1)


def _too_late(schedule: Schedule, one: Occurrence, *, now: datetime) -> str:
    return (
        f"{_why_late(schedule, one)}, {durations.in_words(now - one.due)} ago, "
        "which is more than sending.late_limit; the issue waits for the next run"
    )


def _why_late(schedule: Schedule, one: Occurrence) -> str:
    if schedule.next_at is not None and one.due < schedule.next_at:
        return "the rules of its time zone changed after this time was computed"
    return "the service did not run when it was due"


def _reason_of(issue: ApprovedIssue, error: UserError) -> str:
    hint = f" {error.hint}" if error.hint else ""
    return f"issue {issue.slug}: {error.message}.{hint}"
