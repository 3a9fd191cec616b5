"""The command line: one root, a module for each noun, and one place where errors end."""

import io
import logging
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

import typer
import typer.main
from sqlalchemy.exc import OperationalError

from newsletter.cli.output import complain, err, out
from newsletter.cli.terminal import StoppedError
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
#: Longer lines of help are hard to read.
_WIDEST = 100


def application(only: Collection[str] = ()) -> typer.Typer:
    """The root with all commands, or with those named, if they exist.

    To import them all takes a second, most of it for libraries that one command needs.
    """
    app = typer.Typer(
        name="newsletter",
        help="Send newsletters that everyone gets exactly once, and no one who left.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain help wraps on every terminal; panels cut the options' names off on a narrow one.
        rich_markup_mode=None,
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


class _Help(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Help whose first column leaves room for the second one."""

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


class _Context(typer.Context):
    formatter_class = _Help


def command_line(only: Collection[str] = ()) -> Callable[[], object]:
    """The same, to be called: help as wide as the terminal, and no description cut short."""
    root = typer.main.get_command(application(only))
    root.context_settings["terminal_width"] = min(out.width, _WIDEST)
    _fit(root)
    return root


def _fit(command: Any) -> None:  # noqa: ANN401 (a command, or a group of them)
    command.context_class = _Context
    for child in getattr(command, "commands", {}).values():
        child.short_help = " ".join((child.help or "").partition("\n\n")[0].split())
        _fit(child)


def run() -> None:
    """The console script. A user's mistake ends in words and an exit code, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding, or a file's name that is no text, is no failure.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        # With the offset: a log is read on machines of other zones.
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    try:
        command_line(sys.argv[1:2])()
    except UserError as error:
        complain(error)
        sys.exit(error.exit_code)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        complain(DatabaseError(f"the database failed: {reason}", place="database_url"))
        sys.exit(DatabaseError.exit_code)
    except StoppedError as error:
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(128 + signal.SIGINT)
