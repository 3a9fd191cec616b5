"""The tasks that the clock runs.

A task has no arguments. It finds what is due in the database and claims it there, so that running
twice or late does no harm. If nothing is due, it writes nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from newsletter import metrics
from newsletter.accounts import operator_messages, sessions
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import ignore_serialization_conflict, reading, transaction
from newsletter.db.orm import Session
from newsletter.doctor.service import low_space
from newsletter.errors import BusyError, MachineError, ProviderError, UserError
from newsletter.provider.account import StoppedError
from newsletter.scheduling import next_run
from newsletter.scheduling.models import RunOutcome
from newsletter.sending import heartbeat
from newsletter.sending.delivery import outbox
from newsletter.sending.ledger import restore_gate, sends
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.planning.planner import plan
from newsletter.sending.reasons import PauseCause
from newsletter.sending.recovery import uncertain_batches
from newsletter.tracking import circuit_breaker, event_silence, list_removal, send_report
from newsletter.tracking.breaker_rules import Rule
from newsletter.tracking.list_removal import ListRemover
from newsletter.tracking.retention.prune import RetentionPolicy, prune
from newsletter.tracking.stats import ab_test_results
from newsletter.tracking.suppression_sync import Reconciler
from newsletter.webhooks import deliveries as webhook_deliveries
from subscribers import rate_limit
from subscribers.consent import records as consent_records
from subscribers.directory import growth_history, status_counts
from subscribers.segments import store as segment_store
from subscribers.signup import double_opt_in

if TYPE_CHECKING:
    from newsletter.scheduling.prepared_issue import IssueRenderer

_log = logging.getLogger(__name__)
#: Single emails contain an address and a link. They are kept to show whether they were sent.
_KEEP_OUTBOX_EMAILS = timedelta(days=30)
_KEEP_MESSAGES = timedelta(days=90)
#: The least time between two counts of a segment.
_MIN_COUNT_AGE = timedelta(minutes=15)
#: The share of the time that counting a large list may take.
_COUNTING_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The dependencies of the tasks."""

    database: Engine
    batch_size: int
    late_limit: timedelta
    uncertain_grace: timedelta
    uncertain_policy: str
    keep_network_data: timedelta
    warm_up: WarmUp | None = None
    breaker_rules: tuple[Rule, ...] = ()
    #: None without an API key.
    reconciler: Reconciler | None = None
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    #: Makes the renderer of scheduled issues when a schedule is due. None in processes that create
    #: no sends; schedules then wait for one that does.
    make_issue_renderer: "Callable[[], IssueRenderer] | None" = None
    #: Puts emails to operators into the outbox (newsletter.scheduling.operator_emails).
    tell_operators: Callable[[Session, datetime], int] | None = None
    #: Whether it has morning emails to write.
    digest_is_due: Callable[[Session, datetime], bool] = lambda _session, _now: False
    #: The longest time without events after emails left; zero for any.
    event_silence: timedelta = timedelta(0)
    #: Folders whose disks must not get full, each with a name.
    written_folders: Sequence[tuple[str, Path]] = ()
    #: Makes a backup if one is due (newsletter.backups.scheduled). The second argument tells when
    #: to stop.
    back_up: Callable[[datetime, Callable[[], bool]], None] | None = None


_context: list[TaskContext] = []
#: When a large list may be counted again, by ``time.monotonic``.
_count_again = [0.0]
#: Set when the clock stops: tasks that wait for the provider end after the current answer.
stopping = threading.Event()


def configure_tasks(context: TaskContext) -> None:
    """Set the dependencies of the tasks in this process."""
    _context[:] = [context]


def start_due_sends() -> None:
    """Plan every send that is due, and queue its batches; pause those that are too late."""
    start_due(_context[0])


def run_schedules() -> None:
    """Run all due schedules: create their sends, or record why there is none."""
    run_due_schedules(_context[0], now=datetime.now(UTC))


def choose_winners() -> None:
    """Choose the winner of every A/B test that is due."""
    context = _context[0]
    with transaction(context.database) as session:
        decided = ab_test_results.decide_due(
            session, now=datetime.now(UTC), warm_up=context.warm_up
        )
    for send_id, label, why in decided:
        _log.info(
            "send %s: variant %s is the winner (%s)", send_id, label, why, extra={"send": send_id}
        )


def check_circuit_breakers() -> None:
    """Pause every send for which a rule opens the circuit breaker."""
    context = _context[0]
    with transaction(context.database) as session:
        paused = circuit_breaker.check_sends(session, context.breaker_rules, now=datetime.now(UTC))
    for send_id, why in paused:
        _log.error(
            "send %s was paused by the circuit breaker: %s", send_id, why, extra={"send": send_id}
        )
    metrics.BREAKER_TRIPS.add(len(paused))


def queue_due_batches() -> None:
    """On PostgreSQL, queue due batches for the workers of all machines."""
    _queue_due(_context[0])


def _queue_due(context: TaskContext) -> None:
    if is_postgresql(context.database):
        with transaction(context.database) as session:
            _procrastinate_queue().queue_due(session, now=datetime.now(UTC))


def resolve_uncertain() -> None:
    """Recover batches of dead workers, and resolve old uncertain ones by uncertain_policy."""
    recover_abandoned(_context[0])


def recover_abandoned(context: TaskContext) -> None:
    """``resolve_uncertain`` for a process without a clock."""
    with transaction(context.database) as session:
        report = uncertain_batches.recover(
            session,
            now=datetime.now(UTC),
            grace=context.uncertain_grace,
            policy=context.uncertain_policy,
            warm_up=context.warm_up,
        )
        outbox.recover_abandoned(session, now=datetime.now(UTC))
        heartbeat.delete_dead(session, now=datetime.now(UTC))
    if is_postgresql(context.database):
        with transaction(context.database) as session:
            _procrastinate_queue().delete_old_jobs(session)
    if report.requeued or report.uncertain or report.resent:
        _log.warning("abandoned batches: %s", report)


def delete_expired() -> None:
    """Delete expired data: rate limits, links, emails, webhooks, network data of consents."""
    context, now = _context[0], datetime.now(UTC)
    with transaction(context.database) as session:
        rate_limit.sweep(session, now=now)
        double_opt_in.sweep(session, now=now)
        list_removal.delete_old(session, now=now)
        operator_messages.sweep(session, before=now - _KEEP_MESSAGES)
        sessions.sweep(session, now=now)
        outbox.delete_old(session, settled_before=now - _KEEP_OUTBOX_EMAILS)
        webhook_deliveries.delete_old(session, now=now)
        consent_records.erase_network_data(session, before=now - context.keep_network_data)


def count_subscribers() -> None:
    """Count all subscribers for the pages, and the segment with the oldest count.

    It counts in a reading transaction, so that no writer waits. A large list is counted so rarely
    that it takes half a percent of the time: a million subscribers about every three minutes.
    """
    began = time.monotonic()
    if _count(_context[0], rests=began < _count_again[0]):
        took = time.monotonic() - began
        _count_again[0] = began + took / _COUNTING_SHARE


def _count(context: TaskContext, *, rests: bool) -> bool:
    """Count, unless it is not due or ``rests``; returns whether a large list was counted."""
    segment, counted, now = None, None, datetime.now(UTC)
    with reading(context.database) as session:
        is_small, growth_is_due = (
            status_counts.is_small(session),
            growth_history.is_due(session, now=now),
        )
        # Pages count small audiences themselves.
        if not growth_is_due and (is_small or rests):
            return False
        counts = status_counts.count(session, now=now)
        if not is_small:
            segment, counted = segment_store.count_stalest(session, now=now, stale=_MIN_COUNT_AGE)
            stored = status_counts.status_counts(session, now=now)
            if stored == counts and segment is None and not growth_is_due:
                return True
    with transaction(context.database) as session:
        growth_history.save_day(session, counts, now=now)
        if not is_small:
            status_counts.save_counts(session, counts, now=now)
        if segment is not None and counted is not None:
            segment_store.save_count(session, segment.id, segment.expression, counted, now=now)
    return not is_small


def _procrastinate_queue() -> ModuleType:
    """The queue adapter, imported only on PostgreSQL because its libraries take 10 MB."""
    from newsletter.sending.workers import procrastinate_queue  # noqa: PLC0415

    return procrastinate_queue


def prune_old_data() -> None:
    """Delete the events and deliveries of old sends; their counters stay."""
    context = _context[0]
    pruned = prune(
        context.database,
        context.retention,
        now=datetime.now(UTC),
        may_continue=lambda: not stopping.is_set(),
    )
    if pruned.events or pruned.deliveries:
        _log.info("deleted data of old sends: %s", pruned)


def reconcile() -> None:
    """Compare our suppressions with the provider's lists when due, and repair both."""
    reconciler, now = _context[0].reconciler, datetime.now(UTC)
    if reconciler is None or not reconciler.due(now=now):
        return
    try:
        report = reconciler.run(now=now, wait=stopping.wait)
    except StoppedError as error:
        _log.info("%s", error)
    except ProviderError as error:
        _log.error("the provider's lists could not be compared with ours: %s", error)
    else:
        _log.info("compared with the provider's lists: %s", report.as_json())


def post_messages() -> None:
    """Write the messages that only time brings: figures, rates, missing events, full disks."""
    context, now = _context[0], datetime.now(UTC)
    with reading(context.database) as session:
        found = operator_messages.not_posted(
            session,
            [
                *send_report.occasions(session, now=now),
                *circuit_breaker.occasions(session, context.breaker_rules, now=now),
                *event_silence.occasions(session, limit=context.event_silence, now=now),
                *low_space(context.written_folders, now=now),
            ],
        )
    if not found:
        return
    with transaction(context.database) as session:
        operator_messages.post_all(session, found, now=now)


def tell_operators() -> None:
    """Email users about what happened and what needs their decision."""
    context, now = _context[0], datetime.now(UTC)
    if context.tell_operators is None:
        return
    # One message per day about uncertain batches, until they are resolved.
    with reading(context.database) as session:
        overdue = uncertain_batches.count_overdue(session, before=now - context.uncertain_grace)
        new = operator_messages.not_posted(
            session,
            [
                Occasion(MessageKind.SEND_UNCERTAIN, send_id, now.date(), f"Batches: {batches}")
                for send_id, batches in overdue.items()
            ],
        )
        waits = new or operator_messages.not_emailed(session, limit=1)
        if not waits and not context.digest_is_due(session, now):
            return
    with transaction(context.database) as session:
        operator_messages.post_all(session, new, now=now)
        context.tell_operators(session, now)


def back_up() -> None:
    """Make a backup if the settings want one now."""
    if (make := _context[0].back_up) is not None:
        make(datetime.now(UTC), stopping.is_set)


def remove_from_provider_lists() -> None:
    """Remove addresses that can be emailed again from the provider's suppression lists."""
    reconciler = _context[0].reconciler
    if reconciler is None:
        return
    remover = ListRemover(reconciler.database, reconciler.ask)
    try:
        removed = remover.run(now=datetime.now(UTC), wait=stopping.wait)
    except StoppedError as error:
        _log.info("%s", error)
    except ProviderError as error:
        _log.error("addresses stay on the provider's suppression lists for now: %s", error)
    else:
        if removed:
            _log.info("%s addresses removed from the provider's suppression lists", removed)


def run_due_schedules(context: TaskContext, *, now: datetime) -> None:
    """Run each due schedule in its own transaction."""
    if context.make_issue_renderer is None:
        return
    with reading(context.database) as session:
        due = next_run.due(session, now=now)
        waits = bool(due and restore_gate.unsettled_logs(session))
    if not due or waits:
        return
    # Imported here: rendering takes 10 MB, which processes without due schedules do not need.
    from newsletter.scheduling import prepared_issue, trigger  # noqa: PLC0415

    renderer = context.make_issue_renderer()
    for schedule_id in due:
        try:
            with reading(context.database) as session:
                prepare = prepared_issue.prepare(session, schedule_id, renderer)
            prepared = prepare() if prepare else None
            with transaction(context.database) as session:
                results = trigger.run_schedule(
                    session, schedule_id, renderer, now=now, prepared=prepared
                )
        except (BusyError, MachineError) as error:
            _log.warning("schedule %s waits for the next tick: %s", schedule_id, error.message)
            continue
        except Exception:  # noqa: BLE001 (an error must not stop the other schedules)
            _log.exception("schedule %s could not run", schedule_id)
            metrics.SCHEDULE_RUNS.add(result="error")
            continue
        for one in results:
            metrics.SCHEDULE_RUNS.add(result=one.outcome.value)
            _log.log(logging.INFO if one.outcome is RunOutcome.SENT else logging.WARNING, "%s", one)


def start_due(context: TaskContext) -> list[int]:
    """Start or pause each due send; returns those that stay due because of an error.

    The batches are queued, too. All stay due until the departure logs are compared; only then is
    their lateness checked.
    """
    now, still_due = datetime.now(UTC), []
    with transaction(context.database) as session:
        due = send_lifecycle.due(session, now=now)
        if due and restore_gate.unsettled_logs(session):
            return [send_id for send_id, _ in due]
    for send_id, scheduled_for in due:
        try:
            with ignore_serialization_conflict(f"the start of send {send_id}"):
                _start(context, send_id, now=now, late=now - scheduled_for)
                continue
        except restore_gate.NotComparedError as error:
            _log.info("send %s: %s", send_id, error, extra={"send": send_id})
        except Exception:  # noqa: BLE001 (whatever it is, the other sends must start)
            _log.exception(
                "send %s could not be started; the next tick tries again",
                send_id,
                extra={"send": send_id},
            )
        still_due.append(send_id)
    if len(still_due) < len(due):
        # Now, because the job that does so may have run a moment ago, and pauses then.
        _queue_due(context)
    return still_due


def _start(context: TaskContext, send_id: int, *, now: datetime, late: timedelta) -> None:
    try:
        # One transaction, so that a failed plan leaves nothing behind: a sending send without
        # recipients would count as sent.
        with transaction(context.database, snapshot=True) as session:
            if late > context.late_limit:
                send_lifecycle.pause_late(session, send_id, now=now)
                _log.error(
                    "send %s is too late, and is paused for an operator",
                    send_id,
                    extra={"send": send_id},
                )
                return
            planned = plan(
                session, send_id, now=now, batch_size=context.batch_size, warm_up=context.warm_up
            )
    except restore_gate.NotComparedError:
        raise
    except UserError as error:
        # Without the excerpt for terminals that the error of a segment has.
        message = error.message.partition("\n")[0]
        why = " ".join(f"{message}. {error.hint or ''}".split())
        reason = f"could not start: {why}"
        with transaction(context.database) as session:
            paused = sends.pause_scheduled(
                session, send_id, PauseCause.START, reason=reason, now=now
            )
        if paused:
            _log.error("send %s %s", send_id, reason, extra={"send": send_id})
        else:
            # Another process was faster, or an operator cancelled it a moment ago.
            _log.info("%s", error)
    else:
        _log.info("send %s started: %s recipients", send_id, planned, extra={"send": send_id})
