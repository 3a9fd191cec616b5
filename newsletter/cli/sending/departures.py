"""`newsletter departures`: departure logs, and what they know that a restored database does not."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.recovery import known_logs
from newsletter.settings.load import load

app = typer.Typer(
    help="Show the departure logs, which record what left, and continue after a restore.",
    invoke_without_command=True,
)

Log = Annotated[str, typer.Argument(metavar="LOG", help="The log's name, as listed.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
_COLUMNS = ["log", "machine", "folder", "state", "since", "seen"]


@app.callback()
def list_logs(context: typer.Context, as_json: AsJson = False) -> None:
    """List the departure logs of this database, and the sends that only the logs have."""
    if not context.invoked_subcommand:
        _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    with reading(Container(load()).database) as session:
        logs = known_logs.list_logs(session)
        records = [
            {
                "log": one.log.id,
                "machine": one.log.host,
                "folder": one.log.folder,
                "state": one.log.state,
                "since": one.log.since,
                "seen": one.log.seen_at,
            }
            for one in logs
        ]
        # Of one with nobody left the operator has said that nobody had it.
        sends = [
            (send.slug, send.id, people)
            for send, people in forgotten_sends.list_all(session)
            if people
        ]
        unanswered = forgotten_sends.unanswered(session)
    rows(records, _COLUMNS, as_json=as_json, empty="No process has sent anything yet.")
    for one in logs:
        if one.waits:
            err.print(
                f"\n{one.log.id}: {one.what}{f' ({one.log.detail})' if one.log.detail else ''}. "
                f"Nothing is sent until this is settled. {one.remedy}\n"
                f"  newsletter departures compare {one.log.id} --reason …\n"
                f"  newsletter departures set-aside {one.log.id} --reason …\n{known_logs.RISK}",
            )
    for slug, number, people in sends:
        err.print(
            f"\nissue {slug} went to {people:,} people by a send (here {number}) that this "
            "database has forgotten: they get it from no other send.",
        )
    for request in unanswered:
        err.print(
            f"issue {request.slug}, batch {request.batch} of the send {request.send}, made "
            f"{request.made}: nobody knows whether the provider took it ({request.people:,} "
            f"people). An event will tell, or you: newsletter departures resolve {request.slug} "
            f"--batch {request.batch} --send {request.send} --sent|--resend",
        )


@app.command("look")
def look() -> None:
    """Compare this machine's log with the database now, and report the result.

    Processes that send do so when they start. After a restore, look before you start them.
    """
    found = Container(load()).compare_departures()
    told = [
        (found.accepted, "batches had been sent"),
        (found.uncertain, "batches had left without an answer"),
        (found.forgotten, "people were in sends that the database has forgotten"),
        (found.suppressed, "people had left, or their address had failed"),
        (found.stopped, "sends had been paused or cancelled: they wait for you"),
    ]
    said = "; ".join(f"{number:,} {what}" for number, what in told if number)
    out.print(f"What the database did not know: {said or 'nothing'}.")
    _list(as_json=False)


@app.command("set-aside")
def set_aside(log: Log, reason: Reason) -> None:
    """Continue sending without a log that is lost or unusable."""
    with transaction(Container(load()).database) as session:
        known_logs.set_aside(session, log, reason=reason, by=who(), now=datetime.now(UTC))
    out.print(f"Sending goes on without {log}, within a minute. {known_logs.RISK}")


@app.command("compare")
def compare(log: Log, reason: Reason) -> None:
    """Request that the service on a log's machine compares the whole log again."""
    with transaction(Container(load()).database) as session:
        known_logs.compare_again(session, log, reason=reason, by=who(), now=datetime.now(UTC))
    out.print(f"{log} is compared by the service on its machine, within a minute.")


@app.command("resolve")
def resolve(
    issue: Annotated[str, typer.Argument(metavar="ISSUE", help="The issue's slug, as listed.")],
    batch: Annotated[int, typer.Option(help="The batch's number, as listed.")],
    send: Annotated[
        int | None,
        typer.Option(
            help="The send, as listed; needed if several have an uncertain batch of this number."
        ),
    ] = None,
    *,
    sent: Annotated[
        bool, typer.Option("--sent/--resend", help="Mark it as sent, or send it again.")
    ],
) -> None:
    """Resolve a request of a send that the restored database does not know."""
    with transaction(Container(load()).database) as session:
        people = forgotten_sends.resolve(
            session, issue, batch, send=send, sent=sent, by=who(), now=datetime.now(UTC)
        )
    said = "had it" if sent else "get it from the next send of the issue"
    out.print(f"The {people:,} people of batch {batch} {said}.")
