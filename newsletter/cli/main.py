"""The command line: one root, a module for each noun, and one place where errors end."""

import logging
import sys
from collections.abc import Collection
from importlib import import_module

import typer
from sqlalchemy.exc import OperationalError

from newsletter.cli.output import complain, err
from newsletter.errors import DatabaseError, UserError

#: Name, module of this package, and what stands there: a command, or a Typer with several.
_COMMANDS = (
    ("issue", "issues", "app"),
    ("render", "issues", "render_issue"),
    ("check", "check", "check"),
    ("send", "send", "send"),
    ("sends", "sends", "app"),
    ("departures", "departures", "app"),
    ("schedule", "schedules", "app"),
    ("stats", "stats", "app"),
    ("subscribers", "subscribers", "app"),
    ("suppressions", "suppressions", "app"),
    ("segment", "segments", "app"),
    ("topic", "topics", "app"),
    ("user", "users", "app"),
    ("db", "settings", "database"),
    ("settings", "settings", "show"),
    ("doctor", "doctor", "doctor"),
    ("reconcile", "reconcile", "reconcile"),
    ("serve", "serve", "serve"),
    ("worker", "worker", "worker"),
    ("sandbox", "sandbox", "sandbox"),
    ("demo", "demo", "demo"),
)


def application(only: Collection[str] = ()) -> typer.Typer:
    """The root with all commands, or with those named, if they exist.

    To import them all takes a second, most of it for libraries that one command needs.
    """
    app = typer.Typer(
        name="newsletter",
        help="Send newsletters that everyone gets exactly once, and no one who left.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    # Without a callback, Typer would make a single command the root itself.
    app.callback()(lambda: None)
    named = [one for one in _COMMANDS if one[0] in only]
    for name, module, attribute in named or _COMMANDS:
        found = getattr(import_module(f"newsletter.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def run() -> None:
    """The console script. A user's mistake ends in words and an exit code, never in a traceback."""
    logging.basicConfig(
        level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        application(sys.argv[1:2])()
    except UserError as error:
        complain(error)
        sys.exit(error.exit_code)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        complain(DatabaseError(f"the database failed: {reason}", place="database_url"))
        sys.exit(DatabaseError.exit_code)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
