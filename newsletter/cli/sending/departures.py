"""`newsletter departures`: departure logs, and sends that a restored database does not know."""

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
        # A send without recipients was resolved by the operator as not sent.
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
                f"Nothing is sent until this is resolved. {one.remedy}\n"
                f"  newsletter departures recheck {one.log.id} --reason …\n"
                f"  newsletter departures set-aside {one.log.id} --reason …\n{known_logs.RISK}",
            )
    for slug, number, people in sends:
        err.print(
            f"\nissue {slug} was sent to {people:,} recipients by a send (here {number}) that this "
            "database has lost. No other send sends it to them.",
        )
    for request in unanswered:
        err.print(
            f"issue {request.slug}, batch {request.batch} of the send {request.send}, made "
            f"{request.made}, is uncertain: the provider may have accepted it ({request.people:,} "
            "recipients). Wait for events, or resolve it: newsletter departures resolve "
            f"{request.slug} --batch {request.batch} --send {request.send} --sent|--resend",
        )


@app.command("compare")
def look() -> None:
    """Compare this machine's log with the database now, and report the result.

    Processes that send also do this when they start. After a restore, run this before them.
    """
    report = Container(load()).compare_departures()
    changes = [
        (report.accepted, "batches were accepted"),
        (report.uncertain, "batches are uncertain"),
        (report.forgotten, "recipients are in sends that the database has lost"),
        (report.suppressed, "subscribers are suppressed"),
        (report.stopped, "sends were paused or cancelled, and wait for you"),
    ]
    listed = "; ".join(f"{number:,} {what}" for number, what in changes if number)
    out.print(f"Missing in the database: {listed or 'nothing'}.")
    _list(as_json=False)


@app.command("set-aside")
def set_aside(log: Log, reason: Reason) -> None:
    """Continue sending without a log that is lost or unusable."""
    with transaction(Container(load()).database) as session:
        known_logs.set_aside(session, log, reason=reason, by=who(), now=datetime.now(UTC))
    out.print(f"Sending continues without {log} within a minute. {known_logs.RISK}")


@app.command("recheck")
def compare(log: Log, reason: Reason) -> None:
    """Request that the service on a log's machine compares the whole log again."""
    with transaction(Container(load()).database) as session:
        known_logs.compare_again(session, log, reason=reason, by=who(), now=datetime.now(UTC))
    out.print(f"The service on its machine compares {log} within a minute.")


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
    result = "count as sent" if sent else "get it from the next send of the issue"
    out.print(f"The {people:,} recipients of batch {batch} {result}.")
