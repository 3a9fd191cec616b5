"""`newsletter suppressions`: lift suppressions of bounced mailboxes that work."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import UserError
from newsletter.sending.pacing.sending_windows import parse_moment
from newsletter.settings.load import load
from newsletter.tracking import list_removal

app = typer.Typer(help="Lift the suppression of bounced mailboxes that work.", no_args_is_help=True)

_COLUMNS = ["email", "at", "evidence"]


@app.callback()
def group() -> None:
    """Makes this a group of commands, although it has only one."""


@app.command("lift")
def lift(
    email: Annotated[str, typer.Argument(help="One address.", show_default=False)] = "",
    since: Annotated[str, typer.Option(help="All bounces since this time.")] = "",
    until: Annotated[str, typer.Option(help="The end of this period; by default now.")] = "",
    text: Annotated[str, typer.Option(help="Only where the server's answer has this text.")] = "",
    reason: Annotated[str, typer.Option(help="Why; the audit log keeps it.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List them, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lift the bounce of one address, or all bounces between two times.

    `newsletter serve` also removes the addresses from SendGrid's bounce list. Subscribers who
    unsubscribed or marked an email as spam stay suppressed.
    """
    if bool(email) == bool(since):
        raise UserError(
            "name one address, or a time with --since",
            hint='newsletter suppressions lift ann@example.org --reason "she called"',
        )
    container = Container(load())
    zone = ZoneInfo(container.settings.site.timezone)
    hashed = container.hash_of(email) if email else None
    if email and hashed is None:
        raise UserError("this is no email address", place=email)
    first = parse_moment(since, zone, place="--since") if since else None
    last = parse_moment(until, zone, place="--until") if until else None
    if dry_run:
        with reading(container.database) as session:
            found = list_removal.bounced(
                session, address_hash=hashed, since=first, until=last, text=text
            )
        rows([one._asdict() for one in found], _COLUMNS, as_json=as_json, empty="no bounce matches")
        return
    with container.writing_departure_log(), transaction(container.database) as session:
        number = list_removal.lift_bounces(
            session,
            by=who(),
            why=reason,
            now=datetime.now(UTC),
            address_hash=hashed,
            since=first,
            until=last,
            text=text,
        )
    out.print(
        f"{number:,} {'subscriber gets' if number == 1 else 'subscribers get'} email again. "
        "The addresses leave SendGrid's lists while newsletter serve runs."
    )
