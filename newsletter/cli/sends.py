"""`newsletter send` and `newsletter sends`: make a send, watch it, stop it."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from newsletter.assembly import Assembly
from newsletter.cli.issues import read_and_render
from newsletter.cli.output import err, facts, out, rows, shown
from newsletter.cli.settings import AsJson
from newsletter.database import reading, transaction
from newsletter.errors import ProviderError, SendError
from newsletter.scheduling.jobs import start_due
from newsletter.sending import control, doubt
from newsletter.sending.control import Standing
from newsletter.sending.models import Send
from newsletter.sending.states import BatchState, SendState
from newsletter.settings import load
from newsletter.tracking import counts

app = typer.Typer(help="See and control sends.", invoke_without_command=True)

#: A send in one of these goes no further by itself.
_RESTING = frozenset({SendState.SENT, SendState.PAUSED, SendState.CANCELLED})
Number = Annotated[int, typer.Argument(metavar="N", help="The send's number.")]


def send(
    issue: Annotated[Path, typer.Argument(help="The issue file.")],
    segment: Annotated[list[str], typer.Option(help="Segment to send to; may be given again.")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="ISO time, e.g. 2026-04-01T07:00+02:00; local without a zone."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Recipients a second at most.")
    ] = None,
) -> None:
    """Send an issue to segments: now, with progress, or at a time, by the running service."""
    assembly = Assembly(load())
    now = datetime.now(UTC)
    moment = _moment(at, now) if at else now
    # Whatever a send needs is looked at before anything is written.
    _ = assembly.gateway, assembly.links
    draft, rendered = read_and_render(assembly, issue)
    with transaction(assembly.database) as session:
        made = control.create(session, draft, rendered, segment, at=moment, now=now, rate=rate)
        send_id = made.id
    if at:
        out.print(f"Send {send_id} is scheduled for {shown(moment)}. `newsletter serve` starts it.")
        return
    standing = run_to_rest(assembly, send_id)
    summary(assembly, standing)
    _exit_by(standing)


def run_to_rest(assembly: Assembly, send_id: int) -> Standing:
    """Work in this process until the send rests; safe beside a service that works on it too."""
    workers = assembly.workers()
    start_due(assembly.desk)
    workers.start()
    try:
        return watch(assembly, send_id)
    finally:
        workers.stop()


def watch(assembly: Assembly, send_id: int) -> Standing:
    """Show progress until the send rests, then say where it stands."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} · {task.fields[pace]}"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    began = time.monotonic()
    with bar:
        task = bar.add_task(f"Send {send_id}", total=None, pace="planning")
        while True:
            with reading(assembly.database) as session:
                current = control.find(session, send_id)
                batches = control.batch_states(session, send_id)
            _advance(bar, task, current, batches, time.monotonic() - began)
            if current.state in _RESTING or _only_doubt_is_left(batches):
                break
            time.sleep(0.2)
    with reading(assembly.database) as session:
        return control.standing(session, send_id)


def _advance(
    bar: Progress, task: TaskID, send: Send, batches: dict[str, int], seconds: float
) -> None:
    settled = sum(
        batches.get(state, 0)
        for state in (BatchState.ACCEPTED, BatchState.REJECTED, BatchState.SKIPPED)
    )
    if send.started_at is not None:
        bar.update(task, total=send.planned, completed=settled, pace=f"{settled / seconds:,.0f}/s")


def _only_doubt_is_left(batches: dict[str, int]) -> bool:
    open_states = (BatchState.PENDING, BatchState.CLAIMED, BatchState.IN_FLIGHT)
    return BatchState.UNCERTAIN in batches and not any(batches.get(s) for s in open_states)


def summary(assembly: Assembly, standing: Standing) -> None:
    """Where a send stands, in figures that add up."""
    send = standing.send
    with reading(assembly.database) as session:
        happened = counts.of_send(session, send.id)
    took = send.finished_at - send.started_at if send.finished_at and send.started_at else None
    facts(
        [
            ("issue", standing.slug),
            ("segments", ", ".join(segment["name"] for segment in send.segments)),
            ("state", f"{send.state}{': ' + send.reason if send.reason else ''}"),
            ("planned", send.planned),
            *((f"  {state}", number) for state, number in sorted(standing.people.items())),
            *((f"left out: {why}", number) for why, number in sorted(send.left_out.items())),
            *((f"batches {s}", n) for s, n in standing.batches.items() if s in _TELLING),
            *((f"events: {kind}", number) for kind, number in sorted(happened.items())),
            ("took", took),
        ],
        title=f"Send {send.id}",
    )


_TELLING = frozenset({BatchState.UNCERTAIN, BatchState.REJECTED, BatchState.PENDING})


def _exit_by(standing: Standing) -> None:
    """Scripts are told by the exit code whether everybody has the issue."""
    send = standing.send
    if send.state == SendState.PAUSED:
        raise ProviderError(send.reason, place=f"send {send.id}")
    if rejected := standing.people.get("rejected", 0):
        raise ProviderError(
            f"{rejected:,} people did not get it",
            place=f"send {send.id}",
            hint="The batches' reasons: newsletter sends show " + str(send.id),
        )
    if BatchState.UNCERTAIN in standing.batches:
        raise ProviderError(
            f"it is not known whether {standing.batches[BatchState.UNCERTAIN]:,} people have it",
            place=f"send {send.id}",
            hint="An event from SendGrid will tell; `newsletter serve` takes them in.",
        )


def _moment(text: str, now: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SendError(
            "not a time", place=f"--at {text}", hint="Write it like 2026-04-01T07:00+02:00."
        ) from None
    moment = moment.astimezone(UTC)
    if moment < now:
        raise SendError(
            "this time is past", place=f"--at {text}", hint="Leave --at out to send now."
        )
    return moment


@app.callback()
def list_sends(context: typer.Context, as_json: AsJson = False) -> None:
    """List the latest sends."""
    if context.invoked_subcommand:
        return
    with reading(Assembly(load()).database) as session:
        records = [
            {
                "send": made.id,
                "issue": slug,
                "segments": ", ".join(segment["name"] for segment in made.segments),
                "state": made.state,
                "planned": made.planned,
                "scheduled for": made.scheduled_for,
                "reason": made.reason,
            }
            for made, slug in control.listed(session)
        ]
    columns = ["send", "issue", "segments", "state", "planned", "scheduled for", "reason"]
    rows(records, columns, as_json=as_json, empty="There are no sends yet.")


@app.command("show")
def show(number: Number) -> None:
    """Show where a send stands."""
    assembly = Assembly(load())
    with reading(assembly.database) as session:
        standing = control.standing(session, number)
        doubtful = doubt.listed(session, number)
    summary(assembly, standing)
    for one in doubtful:
        out.print(
            f"\nbatch {one.number} is in doubt: {one.people:,} people, "
            f"left {shown(one.departed_at)}, {one.why}.\nAn event will settle it, or you: "
            f"newsletter sends resolve {number} --batch {one.number} --sent|--resend",
            markup=False,
        )


@app.command("resolve")
def resolve(
    number: Number,
    batch: Annotated[int, typer.Option(help="The batch's number, as shown.")],
    sent: Annotated[
        bool, typer.Option("--sent/--resend", help="It was sent, or it is to be sent again.")
    ],
) -> None:
    """Settle a doubtful batch by your word. Look into SendGrid's activity first."""
    with transaction(Assembly(load()).database) as session:
        control.find(session, number)
        doubt.resolve(session, number, batch, sent=sent, now=datetime.now(UTC))
    out.print(f"Batch {batch} of send {number} {'was sent' if sent else 'is sent again'}.")


@app.command("pause")
def pause(number: Number) -> None:
    """Let no further batch leave; requests under way end as they end."""
    with transaction(Assembly(load()).database) as session:
        control.pause(session, number, reason="paused by the operator")
    out.print(f"Send {number} is paused.")


@app.command("resume")
def resume(number: Number) -> None:
    """Go on with a paused send, where it stopped."""
    with transaction(Assembly(load()).database) as session:
        control.resume(session, number, now=datetime.now(UTC))
    out.print(f"Send {number} goes on. `newsletter serve` does the work.")


@app.command("cancel")
def cancel(number: Number) -> None:
    """End a send for good; what has left has left."""
    with transaction(Assembly(load()).database) as session:
        without = control.cancel(session, number, now=datetime.now(UTC))
    out.print(f"Send {number} is cancelled; {without:,} people stay without it.")
