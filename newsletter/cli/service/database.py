"""`newsletter db`."""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, facts, out, rows
from newsletter.cli.progress import progress
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db import engine as db
from newsletter.db.dialect import is_postgresql
from newsletter.errors import DatabaseError
from newsletter.operations import maintenance
from newsletter.settings.load import load

database = typer.Typer(help="Upgrade, prune and copy the database.", no_args_is_help=True)


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


@database.command("copy")
def copy(
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="An empty database of either kind.")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy the database into an empty one, to move between SQLite and PostgreSQL.

    Stop the service and all workers first. Ids, keys and sequences stay, and at the end all rows
    of both databases are compared. After an interruption, the same command continues. Then set
    database_url to the new database (docs/guides/move-to-postgresql.md).
    """
    settings = load()
    url = load({**os.environ, "NEWSLETTER_DATABASE_URL": to}).database_url
    if db.is_missing_file(settings.database_url):
        raise DatabaseError("there is no database", place=f"database_url: {settings.database_url}")
    # Imported late: it needs all tables of the program.
    from newsletter.backups.database_copy import copy_database, open_target  # noqa: PLC0415

    source = db.open_database(settings.database_url)
    try:
        with open_target(url) as target, progress() as display:
            task = display.add_task("Copying", said="", total=None)

            def show(table: str, done: int, total: int) -> None:
                said = f"{table}: {done:,} of {total:,} rows"
                display.update(task, completed=done, total=total, said=said)

            report = copy_database(source, target, show)
    finally:
        source.dispose()
    if as_json:
        rows([asdict(report)], [], as_json=True, empty="")
        return
    resumed = f", {report.resumed:,} of them by an earlier run" if report.resumed else ""
    out.print(
        f"{report.rows:,} rows of {report.tables} tables are copied{resumed}, and the same in "
        "both databases."
    )
    if report.lost_indexes:
        err.print(
            f"{len(report.lost_indexes)} indexes of segments have to be created again with "
            "`newsletter segment index`."
        )
