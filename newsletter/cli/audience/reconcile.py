"""`newsletter reconcile`: synchronize suppressions with the provider's lists."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, rows, shown
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.operations import maintenance
from newsletter.settings.load import load
from newsletter.tracking.suppression_sync import ReconcileReport

_COLUMNS = ["list", "listed", "known", "new_here", "removed_there", "unreadable"]


def reconcile(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would change; change nothing.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Read the complete lists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Synchronize suppressions with SendGrid's lists.

    Addresses on SendGrid's lists of bounces, invalid addresses, spam reports and unsubscribes
    are suppressed here, too. Addresses that opted in here later are removed from SendGrid's
    lists. `newsletter serve` does this regularly (tracking.reconcile_every).
    """
    container = Container(load())
    with container.writing_departure_log():
        report = maintenance.reconcile(
            container,
            by=who(),
            now=datetime.now(UTC),
            wait=_slept,
            whole=whole,
            dry_run=dry_run,
        )
    records = [{"list": str(name), **asdict(found)} for name, found in report.lists.items()]
    rows(records, _COLUMNS, as_json=as_json, empty="")
    err.print(_summary(report))


def _slept(seconds: float) -> bool:
    if seconds > 1:
        err.print(f"SendGrid does not answer; next attempt in {seconds:,.0f} s")
    time.sleep(seconds)
    return False


def _summary(report: ReconcileReport) -> str:
    new = sum(found.new_here for found in report.lists.values())
    back = sum(found.removed_there for found in report.lists.values())
    pushed = "" if report.pushed is None else f", added {report.pushed:,} to SendGrid's lists"
    since = f"since {shown(report.since)}" if report.since else "from the beginning"
    would = "nothing was changed; it would have " if report.dry_run else ""
    return f"Read {since}: {would}suppressed {new:,} here, removed {back:,} there{pushed}."
