"""`newsletter sends`: list and control sends."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter import durations
from newsletter.cli.actor import stopping, who
from newsletter.cli.output import err, facts, out, rows, shown, stream
from newsletter.cli.sending import pacing_options as options
from newsletter.cli.sending.send_progress import (
    exit_by,
    print_unsettled_logs,
    record,
    run_to_rest,
    summary,
)
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SendError
from newsletter.sending.ab_testing import Measure
from newsletter.sending.ledger import restore_gate
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from newsletter.sending.states import DeliveryState
from newsletter.settings.load import load
from newsletter.tracking.events import silent_batches
from newsletter.tracking.events.silent_batches import Silence
from newsletter.tracking.stats import ab_test_results, counters

app = typer.Typer(help="List and control sends.", invoke_without_command=True)

Number = Annotated[int, typer.Argument(metavar="N", help="The send's number.")]
_PEOPLE = ["subscriber", "email", "state", "reason", "batch"]


@app.callback()
def list_sends(context: typer.Context, as_json: AsJson = False) -> None:
    """List the latest sends."""
    if context.invoked_subcommand:
        return
    with reading(Container(load()).database) as session:
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
            for made, slug in send_status.latest_sends(session)
        ]
        waits = restore_gate.unsettled_logs(session)
    columns = ["send", "issue", "segments", "state", "planned", "scheduled for", "reason"]
    rows(records, columns, as_json=as_json, empty="There are no sends yet.")
    print_unsettled_logs(waits)


@app.command("show")
def show(
    number: Number,
    people: Annotated[
        bool, typer.Option("--recipients", help="List all recipients: address, state and reason.")
    ] = False,
    state: Annotated[
        DeliveryState | None,
        typer.Option(
            metavar="STATE", help=f"With --recipients: only those {', '.join(DeliveryState)}."
        ),
    ] = None,
    email: Annotated[str | None, typer.Option(help="With --recipients: only this address.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the status of a send, or of each of its recipients."""
    container = Container(load())
    if people or state or email:
        _list_people(container, number, state, email, as_json=as_json)
        return
    with reading(container.database) as session:
        status = send_status.get_status(session, number)
        uncertain = uncertain_batches.list_uncertain(session, number)
        around = silent_batches.silence_of(session, uncertain)
        happened = counters.of_send(session, number)
    if as_json:
        rows([record(status, uncertain, happened)], (), as_json=True, empty="")
        return
    summary(container, status)
    for one in uncertain:
        out.print(
            f"\nbatch {one.number} is uncertain: {one.people:,} recipients, "
            f"sent {shown(one.departed_at)}, {one.why}.\n{_later_events(around[one.number])}\n"
            f"Wait for events, or resolve it: "
            f"newsletter sends resolve {number} --batch {one.number} --sent|--resend",
        )
    if len(uncertain) > 1:
        out.print(
            f"\nTo resolve all {len(uncertain)}: "
            f"newsletter sends resolve {number} --all --sent|--resend",
        )


def _later_events(known: Silence) -> str:
    """Whether events of later batches have arrived, which helps to resolve an uncertain one."""
    if not known.later_batches:
        return "No events of later batches have arrived either: wait for them before you decide."
    since = f" since {shown(known.since)}" if known.since else ""
    return (
        f"Events of {known.later_batches:,} later batches have arrived{since}, but none of this "
        "one. The longer this lasts, the less likely the provider accepted it. It is no proof."
    )


def _list_people(
    container: Container,
    number: int,
    state: DeliveryState | None,
    email: str | None,
    *,
    as_json: bool,
) -> None:
    with reading(container.database) as session:
        send_status.find(session, number)
        records = (
            {
                "subscriber": row.id,
                "email": row.email or "(erased)",
                "state": row.state,
                "reason": row.reason,
                "batch": row.batch,
            }
            for row in send_status.stream_recipients(session, number, state=state, email=email)
        )
        stream(records, _PEOPLE, as_json=as_json, empty="No recipient of this send matches.")


@app.command("resolve")
def resolve(
    number: Number,
    *,
    batch: Annotated[
        int | None, typer.Option(help="The batch's number, as shown.", show_default=False)
    ] = None,
    together: Annotated[
        bool, typer.Option("--all", help="All uncertain batches of the send.")
    ] = False,
    sent: Annotated[
        bool, typer.Option("--sent/--resend", help="Mark it as sent, or send it again.")
    ],
) -> None:
    """Resolve uncertain batches of a send. Look in SendGrid's Activity Feed first."""
    if (batch is None) is not together:
        raise SendError(
            "name one batch, or all",
            place="--batch",
            hint=f"newsletter sends resolve {number} --batch B, or --all.",
        )
    container = Container(load())
    now, warm_up = datetime.now(UTC), container.warm_up
    with container.writing_traces(), transaction(container.database) as session:
        send_status.find(session, number)
        if batch is not None:
            uncertain_batches.resolve(
                session, number, batch, by=who(), sent=sent, now=now, warm_up=warm_up
            )
            which = f"Batch {batch}"
        else:
            many = uncertain_batches.resolve_all(
                session, number, by=who(), sent=sent, now=now, warm_up=warm_up
            )
            which = f"{many:,} {'batches' if many > 1 else 'batch'}"
    did = "counted as sent" if sent else "sent again"
    out.print(f"{which} of send {number}: {did}.")


@app.command("pause")
def pause(number: Number) -> None:
    """Pause a send. Requests under way finish."""
    container = Container(load())
    now = datetime.now(UTC)
    with (
        container.writing_departure_log(required=False),
        transaction(container.database) as session,
    ):
        send_lifecycle.pause(session, number, by=who(), now=now)
    out.print(f"Send {number} is paused.")


@app.command("resume")
def resume(number: Number) -> None:
    """Resume a paused send. Its timetable shifts by the length of the pause."""
    container = Container(load())
    with (
        container.writing_traces(),
        container.writing_departure_log(),
        transaction(container.database) as session,
    ):
        send_lifecycle.resume(
            session, number, by=who(), now=datetime.now(UTC), warm_up=container.warm_up
        )
    out.print(f"Send {number} is resumed. `newsletter serve` sends it.")


@app.command("cancel")
def cancel(number: Number) -> None:
    """Cancel a send. Emails already sent cannot be recalled."""
    container = Container(load())
    with (
        container.writing_traces(),
        container.writing_departure_log(required=False),
        transaction(container.database) as session,
    ):
        without = send_lifecycle.cancel(session, number, by=who(), now=datetime.now(UTC))
    out.print(f"Send {number} is cancelled; {without:,} recipients do not get it.")


@app.command("retry")
def retry(number: Number) -> None:
    """Send an ended send's issue to those of its recipients who did not get it."""
    container = Container(load())
    _ = container.gateway, container.links
    container.compare_departures()
    with stopping() as stop, container.writing_traces():
        with (
            container.writing_departure_log(),
            transaction(container.database, snapshot=True) as session,
        ):
            people = send_lifecycle.retry(
                session,
                number,
                by=who(),
                now=datetime.now(UTC),
                batch_size=container.settings.sending.batch_size,
                warm_up=container.warm_up,
            )
        err.print(f"{people:,} recipients did not get it.")
        status = run_to_rest(container, number, stop)
    summary(container, status)
    exit_by(status)


@app.command("continue")
def go_on(number: Number) -> None:
    """Finish an interrupted send in this process; `newsletter serve` does this without a command.

    Nobody gets it twice, even if the service sends it at the same time.
    """
    container = Container(load())
    _ = container.gateway, container.links
    container.compare_departures()
    with reading(container.database) as session:
        restore_gate.require_open(session)
        send_lifecycle.require_work(session, number, now=datetime.now(UTC))
    with stopping() as stop, container.writing_traces():
        status = run_to_rest(container, number, stop)
    summary(container, status)
    exit_by(status)


@app.command("pace")
def pace(
    number: Number,
    rate: options.Rate = None,
    per_hour: options.PerHour = None,
    per_day: options.PerDay = None,
    quiet: options.Quiet = None,
    window: options.Window = None,
) -> None:
    """Change the pace of a send. Omitted options are removed."""
    container = Container(load())
    wanted = options.timetable(
        container, rate=rate, per_hour=per_hour, per_day=per_day, quiet=quiet, window=window
    )
    now = datetime.now(UTC)
    with transaction(container.database) as session:
        send_lifecycle.change_pace(
            session,
            number,
            wanted,
            by=who(),
            now=now,
            batch_size=container.settings.sending.batch_size,
            warm_up=container.warm_up,
        )
        outlook = send_status.throughput(session, number, now=now)
    last = f"; the last leave {shown(outlook.last_at)}" if outlook.last_at else ""
    out.print(f"Send {number} has a new pace{last}.")


@app.command("test")
def show_test(number: Number) -> None:
    """Show the results of a send's A/B test."""
    with reading(Container(load()).database) as session:
        found = ab_test_results.report(session, number)
    for variant in found.variants:
        facts(
            [
                ("accepted", variant.recipients),
                *(
                    (
                        done,
                        _share(variant.share(measure), count)
                        if found.measures(measure)
                        else "not measured",
                    )
                    for measure, done, count in (
                        (Measure.OPENS, "opened", variant.opened),
                        (Measure.CLICKS, "clicked", variant.clicked),
                    )
                ),
                ("unsubscribed", variant.unsubscribed),
            ],
            title=f"{variant.label}: {variant.subject}",
        )
    for compared in found.comparisons:
        out.print(f"{compared.sentence}.")
    if found.winner:
        out.print(f"The other recipients get {found.winner}.")
    elif found.decides_at:
        out.print(f"The winner is chosen at {shown(found.decides_at)}.")
    elif found.test.by is not Measure.OPERATOR:
        if found.waiting:
            waiting = f"{found.waiting:,} recipients of the sample"
            out.print(f"{waiting} are not sent to yet, or are uncertain.")
        wait = durations.period(found.test.wait)
        out.print(f"The winner is chosen {wait} after the whole sample was sent.")
    else:
        out.print(f"To choose it yourself: newsletter sends winner {number} LABEL")


def _share(share: ab_test_results.Share | None, count: int) -> str:
    if share is None:
        return "–"
    low, high = share.low * 100, share.high * 100
    return f"{count:,}, {share.rate * 100:.1f} % (95 %: {low:.1f} to {high:.1f})"


@app.command("winner")
def winner(
    number: Number,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="The variant, e.g. B.")],
) -> None:
    """Choose the winner of an A/B test and send it to the other recipients."""
    container = Container(load())
    with transaction(container.database) as session:
        people = send_lifecycle.choose_winner(
            session,
            number,
            label.upper(),
            by=who(),
            now=datetime.now(UTC),
            warm_up=container.warm_up,
        )
    out.print(f"{people:,} recipients get variant {label.upper()} of send {number}.")
