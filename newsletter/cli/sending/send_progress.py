"""Shows the progress of a send, and its status at the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from rich.progress import Progress, TaskID

from newsletter import durations
from newsletter.cli.actor import Stop, StoppedError
from newsletter.cli.output import err, facts, shown
from newsletter.cli.progress import progress
from newsletter.container import Container
from newsletter.db.engine import SQLAlchemyError, reading
from newsletter.errors import MachineError, ProviderError
from newsletter.scheduling import schedules
from newsletter.scheduling.tasks import recover_abandoned, start_due
from newsletter.sending import heartbeat, reasons
from newsletter.sending.ledger import provider_backoff, restore_gate
from newsletter.sending.models import DepartureLog, ProviderBackoff, Send
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.queries import recipient_list, send_status
from newsletter.sending.queries.send_status import SendStatus, Throughput
from newsletter.sending.recovery.uncertain_batches import UncertainBatch
from newsletter.sending.states import ENDED, BatchState, DeliveryState, SendState
from newsletter.tracking.stats import ab_test_results, counters
from newsletter.tracking.stats import rates as send_rates

#: States in which a send waits for the operator or is finished.
_RESTING = frozenset({SendState.SENT, SendState.PAUSED, SendState.CANCELLED})
_STARTS = 5
#: Seconds between two searches for batches of dead workers.
_RECOVER_EVERY = 5.0
_TELLING = frozenset({BatchState.UNCERTAIN, BatchState.REJECTED, BatchState.PENDING})


def run_to_rest(container: Container, send_id: int, stop: Stop) -> SendStatus:
    """Send in this process until the send is paused or over; a service may send it as well.

    If a signal or an error ends this earlier, the requests under way finish, and the command
    prints how to continue. Raises StoppedError when ``stop`` was set.
    """
    try:
        # After a restore, the departure log must be compared before anything is planned.
        container.compare_departures()
        _start(container, send_id)
        workers = container.workers(alone=True)
        workers.start()
        try:
            return watch(
                container, send_id, stop, recover=partial(recover_abandoned, container.task_context)
            )
        finally:
            workers.stop()
    except BaseException:
        _print_how_to_continue(container, send_id)
        raise


def _start(container: Container, send_id: int) -> None:
    for _ in range(_STARTS):
        if send_id not in start_due(container.task_context):
            return
        # Another process may have changed the same rows first.
        time.sleep(0.2)
    # This process runs no clock, so nothing else would start the send.
    raise MachineError(
        "the send is due and could not be started",
        place=f"send {send_id}",
        hint="The log says why. `newsletter serve` tries again each second.",
    )


def watch(
    container: Container,
    send_id: int,
    stop: Stop | None = None,
    *,
    recover: Callable[[], object] = lambda: None,
) -> SendStatus:
    """Show progress until the send is paused or over; returns its status.

    ``recover`` is called every few seconds. Raises StoppedError when ``stop`` is set.
    """
    stop, recovered_at = stop or Stop(), time.monotonic()
    with progress() as bar:
        task = bar.add_task(f"Send {send_id}", total=None, said="planning")
        while True:
            if stop.is_set():
                err.print("\nstopping when the requests under way have finished")
                raise StoppedError(stop.signal)
            if time.monotonic() - recovered_at > _RECOVER_EVERY:
                recover()
                recovered_at = time.monotonic()
            now = datetime.now(UTC)
            with reading(container.database) as session:
                current = send_status.find(session, send_id)
                batches = send_status.recipients_by_batch_state(session, send_id)
                if not bar.disable:
                    outlook = send_status.throughput(session, send_id, now=now)
                    waits = provider_backoff.in_force(session, now=now)
                    _advance(bar, task, current, batches, _pace(outlook, waits, now))
            if current.state in _RESTING or _is_only_uncertain_left(batches):
                break
            stop.wait(0.2)
    with reading(container.database) as session:
        return send_status.get_status(session, send_id)


def _print_how_to_continue(container: Container, send_id: int) -> None:
    """Print the status of a send that this process stops working on, and how to continue."""
    again = f"newsletter sends continue {send_id}"
    try:
        with reading(container.database) as session:
            send, has_worker = (
                send_status.find(session, send_id),
                heartbeat.alive(session, datetime.now(UTC)),
            )
            batches = send_status.recipients_by_batch_state(session, send_id)
    except SQLAlchemyError:
        err.print(f"Send {send_id} may not be finished. See: newsletter sends show {send_id}")
        return
    if send.state in ENDED:
        return
    if send.started_at is None:
        err.print(f"Send {send_id} has not begun.")
    else:
        err.print(
            f"Send {send_id} is not finished: {_settled(batches):,} of {send.planned:,} "
            "recipients are done."
        )
    if uncertain := batches.get(BatchState.UNCERTAIN):
        err.print(
            f"{uncertain:,} recipients are in uncertain batches. See: "
            f"newsletter sends show {send_id}"
        )
    if send.state == SendState.PAUSED:
        err.print(f"It is paused. To resume it: newsletter sends resume {send_id}")
    elif has_worker:
        err.print("Another process continues it: see newsletter sends.")
    else:
        err.print(f"`newsletter serve` continues it; or run: {again}")


def _settled(batches: Mapping[str, int]) -> int:
    return sum(
        batches.get(state, 0)
        for state in (BatchState.ACCEPTED, BatchState.REJECTED, BatchState.SKIPPED)
    )


def _pace(outlook: Throughput, waits: ProviderBackoff | None, now: datetime) -> str:
    """The throughput and the remaining time, by the rate or the timetable."""
    if waits is not None and waits.failures:
        return f"stopped since {shown(waits.since)}: {waits.reason}; {_next_probe(waits, now)}"
    if waits is not None:
        return f"waiting until {shown(waits.until)}: {waits.reason}"
    if not outlook.waiting:
        return f"{outlook.rate:,.0f}/s"
    by_rate = outlook.waiting / outlook.rate if outlook.rate else 0.0
    by_plan = (outlook.last_at - now).total_seconds() if outlook.last_at else 0.0
    left = timedelta(seconds=max(by_rate, by_plan))
    return f"{outlook.rate:,.0f}/s, {durations.in_words(left)} left"


def _next_probe(waits: ProviderBackoff, now: datetime) -> str:
    if waits.until <= now:
        return "a probe of a few emails is sent now"
    return f"the next probe of a few emails is at {shown(waits.until)}"


def _advance(bar: Progress, task: TaskID, send: Send, batches: dict[str, int], pace: str) -> None:
    settled = _settled(batches)
    if send.started_at is not None:
        said = f"{settled:,} of {send.planned:,} · {pace}"
        bar.update(task, total=send.planned, completed=settled, said=said)


def _is_only_uncertain_left(batches: dict[str, int]) -> bool:
    open_states = (BatchState.PENDING, BatchState.CLAIMED, BatchState.IN_FLIGHT)
    return BatchState.UNCERTAIN in batches and not any(batches.get(s) for s in open_states)


def summary(container: Container, status: SendStatus) -> None:
    """Print the status of a send in counts that add up."""
    send, now = status.send, datetime.now(UTC)
    with reading(container.database) as session:
        happened = counters.of_send(session, send.id)
        maker = schedules.creator_of(session, send.id)
        outlook = send_status.throughput(session, send.id, now=now)
        waits = provider_backoff.in_force(session, now=now)
        unsent = recipient_list.problem_counts(session, send).get(recipient_list.NOT_SENT, 0)
        logs = restore_gate.unsettled_logs(session)
        has_worker = heartbeat.alive(session, now)
        winner = send.winner or (
            _undecided(*ab_test_results.decision(session, send.id)) if send.test else ""
        )
    took = send.finished_at - send.started_at if send.finished_at and send.started_at else None
    excluded = [f"not {segment['name']}" for segment in send.excluded]
    facts(
        [
            ("issue", status.slug),
            *((("schedule", maker.name),) if maker else ()),
            ("segments", ", ".join([*(segment["name"] for segment in send.segments), *excluded])),
            ("state", f"{send.state}{': ' + send.reason if send.reason else ''}"),
            *((("what to do", reasons.remedy(send.paused_by)),) if send.paused_by else ()),
            *(
                (("pace", pace),)
                if (pace := Timetable.from_json(send.timetable).description)
                else ()
            ),
            *((("winner", winner),) if winner else ()),
            ("tracked", send_rates.tracked_of(send).words),
            ("planned", send.planned),
            *((f"  {word}", number) for word, number in sorted(_people(status, unsent).items())),
            *((("  transferred to another send", send.transferred),) if send.transferred else ()),
            *((f"excluded: {why}", number) for why, number in sorted(send.excluded_counts.items())),
            *(
                (f"in {state} batches", number - (unsent if state == BatchState.REJECTED else 0))
                for state, number in status.in_batches.items()
                if state in _TELLING and (state != BatchState.REJECTED or number > unsent)
            ),
            *((f"events: {kind}", number) for kind, number in sorted(happened.items())),
            *(
                (("throughput", _pace(outlook, waits, now)),)
                if send.state == SendState.SENDING and outlook.waiting
                else ()
            ),
            *(
                (("worker", f"none: newsletter serve, or newsletter sends continue {send.id}"),)
                if not has_worker and _wants_work(send, outlook, now)
                else ()
            ),
            ("took", took),
        ],
        title=f"Send {send.id}",
    )
    print_unsettled_logs(logs)


def record(
    status: SendStatus, uncertain: Sequence[UncertainBatch], happened: Mapping[str, int]
) -> dict[str, object]:
    """The facts for ``sends show --json``, under stable names."""
    send = status.send
    return {
        "send": send.id,
        "issue": status.slug,
        "state": send.state,
        "paused_by": send.paused_by,
        "reason": send.reason,
        "segments": [segment["name"] for segment in send.segments],
        "excluded": [segment["name"] for segment in send.excluded],
        "timetable": send.timetable,
        "scheduled_for": send.scheduled_for,
        "started_at": send.started_at,
        "finished_at": send.finished_at,
        "planned": send.planned,
        "recipients": status.recipients,
        "transferred": send.transferred,
        "excluded_counts": send.excluded_counts,
        "recipients_in_batches": status.in_batches,
        "events": happened,
        "uncertain": [
            {
                "batch": one.number,
                "recipients": one.people,
                "departed_at": one.departed_at,
                "why": one.why,
            }
            for one in uncertain
        ],
    }


def print_unsettled_logs(logs: Sequence[DepartureLog]) -> None:
    """Print that these departure logs block all sending, if there are any."""
    for one in logs:
        err.print(
            f"Nothing is sent: the departure log of {one.host} is {one.state}. "
            "See newsletter departures.",
        )


def _people(status: SendStatus, unsent: int) -> dict[str, int]:
    """Recipients by state; those of a cancelled send are not sent, not rejected."""
    people = dict(status.recipients)
    if unsent := min(unsent, people.get(DeliveryState.REJECTED, 0)):
        people["not sent"] = unsent
        people[DeliveryState.REJECTED] -= unsent
    return {word: number for word, number in people.items() if number}


def _wants_work(send: Send, outlook: Throughput, now: datetime) -> bool:
    if send.state == SendState.SCHEDULED:
        return send.scheduled_for <= now
    return send.state == SendState.SENDING and outlook.waiting > 0


def _undecided(at: datetime | None, waiting: int) -> str:
    if waiting:
        return f"not chosen yet; {waiting:,} recipients of the sample are still open"
    return f"chosen at {shown(at)}" if at else "not chosen yet"


def exit_by(status: SendStatus) -> None:
    """Exit with a code that tells scripts whether every recipient has the issue."""
    send = status.send
    if send.state == SendState.PAUSED:
        hint = reasons.remedy(send.paused_by)
        raise ProviderError(send.reason, place=f"send {send.id}", hint=hint)
    if rejected := status.recipients.get("rejected", 0):
        raise ProviderError(
            f"{rejected:,} recipients did not get it",
            place=f"send {send.id}",
            hint=f"Who and why: newsletter sends show {send.id} --recipients --state rejected",
        )
    if BatchState.UNCERTAIN in status.in_batches:
        raise ProviderError(
            f"{status.in_batches[BatchState.UNCERTAIN]:,} recipients are in uncertain batches: "
            "the provider did not confirm them",
            place=f"send {send.id}",
            hint="Events of SendGrid confirm them; `newsletter serve` receives these.",
        )
