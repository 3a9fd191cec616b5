"""`newsletter settings` and `newsletter db`."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, facts, out, rows
from newsletter.container import Container
from newsletter.db import engine as db
from newsletter.db.backup import backup
from newsletter.db.dialect import is_postgresql
from newsletter.errors import NothingToDoError, UserError
from newsletter.settings.load import load

settings = typer.Typer(
    help="Show all settings, and change those of the publication.", invoke_without_command=True
)
database = typer.Typer(help="Back up, upgrade and prune the database.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


Key = Annotated[str, typer.Argument(metavar="KEY", help="The setting, like site.name.")]


@settings.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Print all settings and their origins; secrets are masked."""
    from newsletter.settings import publication  # noqa: PLC0415 (other commands need no tables)

    if context.invoked_subcommand:
        return
    loaded = load()
    try:
        changes = publication.peek(loaded)
    except UserError as error:
        err.print(f"Without the settings in the database: {error.message}")
        changes = {}
    records = [
        {"setting": one.key, "value": one.shown, "from": one.source}
        for one in publication.all_origins(loaded, changes)
    ]
    rows(records, ["setting", "value", "from"], as_json=as_json, empty="")


@settings.command("set")
def set_value(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value; '' for none.")],
) -> None:
    """Change a setting of the publication in the database, as the console does.

    All running processes use it within a second. A file or an environment variable that sets it
    wins, so this refuses such a setting.
    """
    _change(key, value)
    out.print(f"{key} is changed. Running processes use it within a second.")


@settings.command("unset")
def unset(key: Key) -> None:
    """Remove a setting from the database, so that its default applies again."""
    _change(key, None)
    out.print(f"{key} has its default again.")


def _change(key: str, value: str | None) -> None:
    from newsletter.operations import settings as operations  # noqa: PLC0415 (as above)

    container = Container(load())
    with db.transaction(container.database) as session:
        changed = operations.change(
            session, container, {key: value}, by=who(), now=datetime.now(UTC)
        )
    if not changed:
        raise NothingToDoError("it has this value already", place=key)


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
    from newsletter.operations import maintenance  # noqa: PLC0415 (as above)

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
