"""`newsletter settings` and `newsletter db`."""

from typing import Annotated

import typer

from newsletter import database as db
from newsletter.cli.output import out, rows
from newsletter.settings import load, load_with_origins

database = typer.Typer(help="Look after the database.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object to a line.")]


def show(as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from, secrets masked."""
    _, origins = load_with_origins()
    records = [{"setting": o.key, "value": o.shown, "from": o.source} for o in origins]
    rows(records, ["setting", "value", "from"], as_json=as_json, empty="")


@database.command("upgrade")
def upgrade() -> None:
    """Bring the database to this program's version. Take a backup first."""
    engine = db.open_database(load().database_url)
    before, after = db.upgrade(engine)
    if engine.dialect.name == "postgresql":
        from newsletter.sending import distributed  # noqa: PLC0415

        distributed.install(engine)
    if before == after:
        out.print(f"The database is of version {after} already.")
    else:
        out.print(f"The database went from version {before or 'nothing'} to {after}.")
