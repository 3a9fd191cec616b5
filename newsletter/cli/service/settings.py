"""`newsletter settings`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.errors import NothingToDoError, UserError
from newsletter.settings.load import load

settings = typer.Typer(
    help="Show all settings, and change those of the publication.", invoke_without_command=True
)

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
    with transaction(container.database) as session:
        changed = operations.change(
            session, container, {key: value}, by=who(), now=datetime.now(UTC)
        )
    if not changed:
        raise NothingToDoError("it has this value already", place=key)
