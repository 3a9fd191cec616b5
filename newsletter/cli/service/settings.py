"""`newsletter settings` and `newsletter db`."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import facts, out, rows
from newsletter.container import Container
from newsletter.db import engine as db
from newsletter.db.backup import backup
from newsletter.db.dialect import is_postgresql
from newsletter.operations import maintenance
from newsletter.settings.load import load, load_with_origins

database = typer.Typer(help="Back up, upgrade and prune the database.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def show(as_json: AsJson = False) -> None:
    """Print all settings and their origins; secrets are masked."""
    _, origins = load_with_origins()
    records = [{"setting": o.key, "value": o.shown, "from": o.source} for o in origins]
    rows(records, ["setting", "value", "from"], as_json=as_json, empty="")


@database.command("backup")
def make_backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the copy.")],
) -> None:
    """Copy the SQLite database to a file while the service runs.

    Only this user can read the file. Other parts of a backup: docs/guides/backup-and-restore.md.
    """
    size = backup(load().database_url, file)
    out.print(f"{file}: {size:,} bytes, verified. Keep the keys and uploads with it.")


@database.command("prune")
def fold_old(as_json: AsJson = False) -> None:
    """Delete events and deliveries past their retention time.

    The running service does this each hour. The totals of sends stay
    (docs/how-it-works/privacy.md).
    """
    container = Container(load())
    folded = maintenance.prune_now(container, by=who(), now=datetime.now(UTC))
    if as_json:
        rows([asdict(folded)], [], as_json=True, empty="")
        return
    events = "months of events" if is_postgresql(container.database) else "events"
    facts([(events, folded.events), ("issues", folded.issues), ("deliveries", folded.deliveries)])


@database.command("upgrade")
def upgrade() -> None:
    """Bring the database to this program's version. Take a backup first.

    `newsletter serve --upgrade` takes one itself (docs/guides/upgrade.md).
    """
    engine = db.open_database(load().database_url)
    before, after = db.upgrade(engine)
    if is_postgresql(engine):
        from newsletter.sending.workers import procrastinate_queue  # noqa: PLC0415

        procrastinate_queue.install(engine)
    if before == after:
        out.print(f"The database is of version {after} already.")
    else:
        out.print(f"The database went from version {before or 'nothing'} to {after}.")
