"""`newsletter sends`: see and control sends."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.assembly import Assembly
from newsletter.cli import pace as options
from newsletter.cli.output import err, facts, out, rows, shown, stream
from newsletter.cli.settings import AsJson
from newsletter.cli.terminal import stopping
from newsletter.cli.watching import exit_by, record, run_to_rest, say_what_waits, summary
from newsletter.database import reading, transaction
from newsletter.errors import SendError
from newsletter.sending import control, doubt, gate, holding, retiming, standing
from newsletter.sending.states import DeliveryState
from newsletter.sending.timetable import Timetable
from newsletter.sending.variants import Measure
from newsletter.settings import load
from newsletter.tracking import counts, silence, trial
from newsletter.tracking.silence import Silence

app = typer.Typer(help="See and control sends.", invoke_without_command=True)

Number = Annotated[int, typer.Argument(metavar="N", help="The send's number.")]
_PEOPLE = ["subscriber", "email", "state", "reason", "batch"]


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
            for made, slug in standing.listed(session)
        ]
        waits = gate.waited_for(session)
    columns = ["send", "issue", "segments", "state", "planned", "scheduled for", "reason"]
    rows(records, columns, as_json=as_json, empty="There are no sends yet.")
    say_what_waits(waits)


@app.command("show")
def show(
    number: Number,
    people: Annotated[
        bool, typer.Option("--people", help="List everybody: address, state and reason.")
    ] = False,
    state: Annotated[
        DeliveryState | None,
        typer.Option(
            metavar="STATE", help=f"With --people: only those {', '.join(DeliveryState)}."
        ),
    ] = None,
    email: Annotated[str | None, typer.Option(help="With --people: only this address.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show where a send stands, or where each of its people does."""
    assembly = Assembly(load())
    if people or state or email:
        _list_people(assembly, number, state, email, as_json=as_json)
        return
    with reading(assembly.database) as session:
        stands = standing.of(session, number)
        doubtful = doubt.listed(session, number)
        around = silence.around(session, doubtful)
        happened = counts.of_send(session, number)
    if as_json:
        rows([record(stands, doubtful, happened)], (), as_json=True, empty="")
        return
    summary(assembly, stands)
    for one in doubtful:
        out.print(
            f"\nbatch {one.number} is in doubt: {one.people:,} people, "
            f"left {shown(one.departed_at)}, {one.why}.\n{_beside(around[one.number])}\n"
            f"An event will settle it, or you: "
            f"newsletter sends resolve {number} --batch {one.number} --sent|--resend",
        )
    if len(doubtful) > 1:
        out.print(
            f"\nAll {len(doubtful)} of them alike: "
            f"newsletter sends resolve {number} --all --sent|--resend",
        )


def _beside(known: Silence) -> str:
    """What helps to decide, and what it is worth."""
    if not known.heard:
        return "No events of what left later have come either: wait for them before you decide."
    since = f" since {shown(known.since)}" if known.since else ""
    return (
        f"Events of {known.heard:,} batches that left later have come{since}, and none of this "
        "one. The longer that lasts, the surer it was not taken; it is no proof."
    )


def _list_people(
    assembly: Assembly,
    number: int,
    state: DeliveryState | None,
    email: str | None,
    *,
    as_json: bool,
) -> None:
    with reading(assembly.database) as session:
        standing.find(session, number)
        records = (
            {
                "subscriber": row.id,
                "email": row.email or "(erased)",
                "state": row.state,
                "reason": row.reason,
                "batch": row.batch,
            }
            for row in standing.people(session, number, state=state, email=email)
        )
        stream(records, _PEOPLE, as_json=as_json, empty="There is nobody like that in this send.")


@app.command("resolve")
def resolve(
    number: Number,
    *,
    batch: Annotated[
        int | None, typer.Option(help="The batch's number, as shown.", show_default=False)
    ] = None,
    together: Annotated[
        bool, typer.Option("--all", help="All doubtful batches of the send, alike.")
    ] = False,
    sent: Annotated[
        bool, typer.Option("--sent/--resend", help="It was sent, or it is to be sent again.")
    ],
) -> None:
    """Settle a doubtful batch, or all of a send, by your word. Look into SendGrid's activity
    first."""
    if (batch is None) is not together:
        raise SendError(
            "say which",
            place="--batch",
            hint=f"newsletter sends resolve {number} --batch B, or --all.",
        )
    assembly = Assembly(load())
    now, warm_up = datetime.now(UTC), assembly.warm_up
    with transaction(assembly.database) as session:
        standing.find(session, number)
        if batch is not None:
            doubt.resolve(session, number, batch, sent=sent, now=now, warm_up=warm_up)
            which = f"Batch {batch}"
        else:
            many = doubt.resolve_all(session, number, sent=sent, now=now, warm_up=warm_up)
            which = f"{many:,} {'batches' if many > 1 else 'batch'}"
    did = "counted as sent" if sent else "sent again"
    out.print(f"{which} of send {number}: {did}.")


@app.command("pause")
def pause(number: Number) -> None:
    """Let no further batch leave; requests under way end as they end."""
    assembly = Assembly(load())
    now = datetime.now(UTC)
    with assembly.journaling(required=False), transaction(assembly.database) as session:
        control.pause(session, number, reason="paused by the operator", now=now)
        hold_id = standing.find(session, number).hold_id
    out.print(f"Send {number} is paused.")
    if hold_id:
        holding.keep_back(assembly.database, assembly.provider, number, hold_id)
        out.print("SendGrid keeps what it holds of it, for up to 72 hours.")


@app.command("resume")
def resume(number: Number) -> None:
    """Go on with a paused send, where it stopped; a timetable is shifted by the pause."""
    assembly = Assembly(load())
    with assembly.journaling(), transaction(assembly.database) as session:
        control.resume(session, number, now=datetime.now(UTC), warm_up=assembly.warm_up)
        hold_id = standing.find(session, number).hold_id
    if hold_id:
        holding.let_go(assembly.database, assembly.gateway, number, hold_id)
    out.print(f"Send {number} goes on. `newsletter serve` does the work.")


@app.command("cancel")
def cancel(number: Number) -> None:
    """End a send; what had left has left, but what SendGrid holds of it is called back."""
    assembly = Assembly(load())
    with assembly.journaling(required=False), transaction(assembly.database) as session:
        hold_id = standing.find(session, number).hold_id
        without = control.cancel(session, number, now=datetime.now(UTC))
    if hold_id:
        without += holding.call_back(assembly.database, assembly.provider, number, hold_id)
    out.print(f"Send {number} is cancelled; {without:,} people stay without it.")


@app.command("retry")
def retry(number: Number) -> None:
    """Send to those who missed the issue in an ended send, and to nobody else."""
    assembly = Assembly(load())
    _ = assembly.gateway, assembly.links
    assembly.compare_departures()
    hold_id = holding.new_hold(assembly.database, assembly.gateway, number)
    with stopping() as stop:
        with (
            assembly.journaling(),
            transaction(assembly.database, snapshot=True) as session,
        ):
            people = control.retry(
                session,
                number,
                now=datetime.now(UTC),
                batch_size=assembly.settings.sending.batch_size,
                warm_up=assembly.warm_up,
                hold_id=hold_id,
            )
        err.print(f"{people:,} people missed it.")
        stands = run_to_rest(assembly, number, stop)
    summary(assembly, stands)
    exit_by(stands)


@app.command("continue")
def go_on(number: Number) -> None:
    """Work on a send that was broken off, here and until its end; `newsletter serve` does, too.

    Nobody gets it twice, also where the service works on it meanwhile.
    """
    assembly = Assembly(load())
    _ = assembly.gateway, assembly.links
    assembly.compare_departures()
    with reading(assembly.database) as session:
        gate.require_open(session)
        control.require_work(session, number, now=datetime.now(UTC))
    with stopping() as stop:
        stands = run_to_rest(assembly, number, stop)
    summary(assembly, stands)
    exit_by(stands)


@app.command("pace")
def pace(
    number: Number,
    rate: options.Rate = None,
    per_hour: options.PerHour = None,
    per_day: options.PerDay = None,
    quiet: options.Quiet = None,
    window: options.Window = None,
) -> None:
    """Change how fast a send goes on; what is not named has no limit any more."""
    assembly = Assembly(load())
    wanted = options.timetable(
        assembly, rate=rate, per_hour=per_hour, per_day=per_day, quiet=quiet, window=window
    )
    now = datetime.now(UTC)
    with transaction(assembly.database) as session:
        before = Timetable.from_json(standing.find(session, number).timetable)
        kept = replace(
            wanted,
            local_time=before.local_time,
            local_date=before.local_date,
            ahead=before.ahead,
        )
        control.change_pace(
            session,
            number,
            kept,
            now=now,
            batch_size=assembly.settings.sending.batch_size,
            warm_up=assembly.warm_up,
        )
        outlook = standing.outlook(session, number, now=now)
    last = f"; the last leave {shown(outlook.last_at)}" if outlook.last_at else ""
    out.print(f"Send {number} goes on at another pace{last}.")


@app.command("test")
def show_test(number: Number) -> None:
    """Show what a send's test of variants has found."""
    with reading(Assembly(load()).database) as session:
        found = trial.report(session, number)
    for arm in found.arms:
        facts(
            [
                ("handed over", arm.people),
                *(
                    (
                        f"{done} by",
                        _share(arm.share(measure), count)
                        if found.measures(measure)
                        else "not measured",
                    )
                    for measure, done, count in (
                        (Measure.OPENS, "opened", arm.opened),
                        (Measure.CLICKS, "clicked", arm.clicked),
                    )
                ),
                ("left", arm.unsubscribed),
            ],
            title=f"{arm.label}: {arm.subject}",
        )
    for compared in found.comparisons:
        out.print(f"{compared.sentence}.")
    if found.winner:
        out.print(f"The rest gets {found.winner}.")
    elif found.decides_at:
        out.print(f"The winner is chosen at {shown(found.decides_at)}.")
    elif found.test.by is not Measure.OPERATOR:
        if found.waiting:
            waiting = f"{found.waiting:,} people of the sample"
            out.print(f"{waiting} have not got it yet, or whether they have it is in doubt.")
        out.print(f"The winner is chosen {found.test.wait} after the last of the sample has left.")
    else:
        out.print(f"You choose: newsletter sends winner {number} LABEL")


def _share(share: trial.Share | None, count: int) -> str:
    if share is None:
        return "–"
    low, high = share.low * 100, share.high * 100
    return f"{count:,}, {share.rate * 100:.1f} % (95 %: {low:.1f} to {high:.1f})"


@app.command("winner")
def winner(
    number: Number,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="The variant, e.g. B.")],
) -> None:
    """Give the rest of a test this variant, now."""
    assembly = Assembly(load())
    with transaction(assembly.database) as session:
        standing.find(session, number)
        people = retiming.crown(
            session, number, label.upper(), now=datetime.now(UTC), warm_up=assembly.warm_up
        )
    out.print(f"{people:,} people get variant {label.upper()} of send {number}.")
