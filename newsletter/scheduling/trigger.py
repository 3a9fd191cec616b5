"""From a due time to a send, or to the reason why there is none.

What is due is claimed from its row, which only one clock can, and each due time has one
row by its key: two clocks make one send of it. Of times that came while nothing ran, the
last one is made up for if it is not too late; the others are written down as missed.
"""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

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
_schedule, _firing = table_of(Schedule), table_of(ScheduleRun)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of one due time."""

    schedule: str
    due: datetime
    outcome: RunOutcome
    reason: str = ""
    send_id: int | None = None

    def __str__(self) -> str:
        said = f"send {self.send_id}" if self.outcome is RunOutcome.SENT else self.outcome.value
        return f"{self.schedule}, due {self.due:%Y-%m-%d %H:%M} UTC: {said} {self.reason}".strip()


def run_schedule(
    session: Session,
    schedule_id: int,
    press: IssueRenderer,
    *,
    now: datetime,
    prepared: PreparedIssue | None = None,
) -> list[RunResult]:
    """Deal with all that is due of a schedule by now, in this transaction.

    One send at most comes of it. Empty when another process was faster. What was ``prepared``
    has to be the next still: BusyError where somebody was faster than that.
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
    came: list[Occurrence] = []
    following = None
    for one in next_run.coming(schedule):
        if one.due > now:
            following = one
            break
        came.append(one)
    came = _without_sent(session, schedule.id, came)
    last = next((one for one in reversed(came) if not next_run.skips(schedule, one)), None)
    fired = []
    for one in came:
        if next_run.skips(schedule, one):
            outcome, reason, send_id = RunOutcome.SKIPPED, "on the list of days to leave out", None
        elif one is not last:
            outcome, reason, send_id = RunOutcome.MISSED, _PASSED, None
        elif now - one.due > press.late_limit:
            outcome, reason, send_id = RunOutcome.MISSED, _too_late(schedule, one, now=now), None
        else:
            outcome, reason, send_id = _send_next(
                session, schedule, one, press, now=now, prepared=prepared
            )
        fired.append(RunResult(schedule.name, one.due, outcome, reason, send_id))
    next_run.set_next_run(schedule, following)
    if not fired:
        return []  # a government, or somebody, moved clocks since this time was worked out
    session.execute(
        insert(_firing),
        [
            {
                "schedule_id": schedule.id,
                "due_at": one.due,
                "at": now,
                "outcome": one.outcome,
                "reason": one.reason[:1000],
                "send_id": one.send_id,
            }
            for one in fired
        ],
    )
    _tell(session, schedule, fired, now)
    return fired


def _without_sent(session: Session, schedule_id: int, came: list[Occurrence]) -> list[Occurrence]:
    """Those of which no send was made. A clock that was set back may bring a time once more.

    What is known of the others goes: they come now.
    """
    if not came:
        return []
    those = (
        _firing.c.schedule_id == schedule_id,
        _firing.c.due_at.between(came[0].due, came[-1].due),
    )
    session.execute(delete(_firing).where(*those, _firing.c.outcome != RunOutcome.SENT))
    sent = set(session.scalars(select(_firing.c.due_at).where(*those)))
    return [one for one in came if one.due not in sent]


def _send_next(
    session: Session,
    schedule: Schedule,
    one: Occurrence,
    press: IssueRenderer,
    *,
    now: datetime,
    prepared: PreparedIssue | None,
) -> tuple[RunOutcome, str, int | None]:
    before = forgotten_sends.of_occasion(session, schedule.name, one.due)
    issue = _claimed(session, schedule.series)
    if issue is None:
        return RunOutcome.NOTHING, f"no approved issue in series {schedule.series}", None
    if before is not None and not forgotten_sends.is_of(session, issue.issue_id):
        return RunOutcome.NOTHING, f"issue {before} {_BEFORE}", None
    try:
        # What fails leaves nothing of the send behind, and the reason is kept.
        with session.begin_nested():
            made = _make(session, schedule, one, examined(issue, press, prepared), press, now=now)
    except AlreadySentError:
        # The series goes on as it had gone on then.
        forgotten_sends.end(session, issue.issue_id, now=now)
        if before == issue.slug:
            return RunOutcome.NOTHING, f"issue {before} {_BEFORE}", None
        return _send_next(session, schedule, one, press, now=now, prepared=None)
    except NothingToDoError as error:
        return RunOutcome.NOTHING, _said(issue, error), None
    except (BusyError, MachineError):
        raise  # that is not the issue's fault, and the next tick finds it due again
    except UserError as error:
        return RunOutcome.FAILED, _said(issue, error), None
    except SQLAlchemyError:
        raise  # the database's own trouble passes, and the next tick finds it due again
    except Exception as error:  # noqa: BLE001 (whatever it is, the schedule must not spin)
        _log.exception("schedule %s cannot send %s", schedule.name, issue.slug)
        return RunOutcome.FAILED, f"issue {issue.slug}: {type(error).__name__}: {error}", None
    late = now - one.due
    reason = f"{_hours(late)} late: {_why_late(schedule, one)}" if late >= _LATE else ""
    return RunOutcome.SENT, reason, made


def _make(
    session: Session,
    schedule: Schedule,
    one: Occurrence,
    issue: ExaminedIssue,
    press: IssueRenderer,
    *,
    now: datetime,
) -> int:
    draft, rendered = issue.draft, issue.rendered
    audience = schedules.audience(session, schedule.id)
    timetable = Timetable.from_json(schedule.timetable)
    if schedule.own_clock:
        timetable = replace(timetable, local_time=one.wall.time(), local_date=one.wall.date())
    terms = SendOptions(
        excluded=audience.excluded,
        timetable=timetable,
        batch_size=press.batch_size,
        warm_up=press.warm_up,
        tracking=TrackingChoice(schedule.track_clicks, schedule.track_opens),
        publication=press.publication,
    )
    plan = Plan(
        session,
        audience.segments,
        audience.excluded,
        timetable,
        press.batch_size,
        press.warm_up,
    )
    # Neither DNS nor links: nobody outside is asked while this transaction lasts.
    findings = press.checker.check(
        draft, rendered, now=now, plan=plan, blocking_only=True, examined=issue
    )
    if found := blocking(findings):
        said = "; ".join(one.message for one in found)
        hint = f"Everything: newsletter check {draft.slug}."
        raise SendError(f"checks found what must be mended first: {said}", hint=hint)
    return send_lifecycle.create(
        session,
        draft,
        rendered,
        audience.segments,
        by=Actor(None, f"schedule {schedule.name}"),
        at=one.due,
        now=now,
        terms=terms,
        occasion={"schedule": schedule.name, "due": one.due.astimezone(UTC).isoformat()},
    ).id


def _claimed(session: Session, series: str) -> ApprovedIssue | None:
    """The next issue, which nobody edits or sends before this transaction ends."""
    while issue := next_issue(session, series):
        store.find(session, issue.slug, lock=True)
        # Another schedule of the series, or an editor, may have been faster than the lock.
        if next_issue(session, series) == issue:
            return issue
    return None


def _tell(session: Session, schedule: Schedule, fired: list[RunResult], now: datetime) -> None:
    """Into the log that operators read: the last of each kind, and how often it came."""
    who = Actor(None, f"schedule {schedule.name}")
    for outcome in dict.fromkeys(one.outcome for one in fired):
        those = [one for one in fired if one.outcome is outcome]
        detail = {"reason": those[-1].reason} if those[-1].reason else {}
        if those[-1].send_id:
            detail["send"] = str(those[-1].send_id)
        if len(those) > 1:
            detail["times"] = str(len(those))
        subject = f"due {those[-1].due:%Y-%m-%d %H:%M} UTC"
        if outcome in {RunOutcome.MISSED, RunOutcome.FAILED}:
            operator_messages.post(
                session,
                MessageKind.SCHEDULE_FAILED,
                schedule.id,
                now=now,
                occasion=those[-1].due.isoformat(),
                detail=those[-1].reason,
            )
        audit.record(session, who, _LOGGED[outcome], now=now, subject=subject, **detail)


_LOGGED = {
    RunOutcome.SENT: "made a send",
    RunOutcome.NOTHING: "sent nothing",
    RunOutcome.SKIPPED: "skipped a day",
    RunOutcome.MISSED: "missed its time",
    RunOutcome.FAILED: "could not send",
}
_BEFORE = "was sent at this time before the database was restored"
_PASSED = "nothing ran when it was due, and a later time has come since"
#: What is later than this is said to be late.
_LATE = timedelta(minutes=1)


def _too_late(schedule: Schedule, one: Occurrence, *, now: datetime) -> str:
    return (
        f"{_why_late(schedule, one)}, {_hours(now - one.due)} ago, "
        "which is later than sending.late_limit allows; the issue waits for the next time"
    )


def _why_late(schedule: Schedule, one: Occurrence) -> str:
    if schedule.next_at is not None and one.due < schedule.next_at:
        return "the clocks of its zone were moved after this time was worked out"
    return "nothing ran when it was due"


def _said(issue: ApprovedIssue, error: UserError) -> str:
    hint = f" {error.hint}" if error.hint else ""
    return f"issue {issue.slug}: {error.message}.{hint}"


def _hours(late: timedelta) -> str:
    minutes = int(late.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min"
