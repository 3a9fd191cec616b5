"""The command line: the root command, its subcommands, and the handling of errors."""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
import typer.main

from newsletter.cli.actor import StoppedError
from newsletter.cli.output import err, out, print_error
from newsletter.errors import UserError

#: Name, module of this package, attribute (a command, or a Typer with several), and the first
#: paragraph of its help, so that help needs no imports.
COMMANDS = (
    (
        "init",
        "service.init",
        "init",
        "Make the settings and keys of a new installation: newsletter.toml and .env.",
    ),
    ("issue", "content.issues", "app", "Create, save, review and approve issues."),
    (
        "render",
        "content.issues",
        "render_issue",
        "Render an issue to issue.html and issue.txt, with the values of a subscriber (--as).",
    ),
    ("check", "sending.check", "check", "Check an issue before it is sent; change nothing."),
    (
        "send",
        "sending.send",
        "send",
        "Send an issue to segments: now, or at a time through the running service.",
    ),
    ("sends", "sending.sends", "app", "List and control sends."),
    (
        "departures",
        "sending.departures",
        "app",
        "Show the departure logs, which record what left, and continue after a restore.",
    ),
    ("schedule", "sending.schedules", "app", "Send the issues of a series on a schedule."),
    ("alerts", "sending.alerts", "app", "Try rules of the circuit breaker on past sends."),
    ("stats", "sending.stats", "app", "Show the results of sends, and verify the counters."),
    ("subscribers", "audience.subscribers", "app", "Import, export and manage subscribers."),
    (
        "suppressions",
        "audience.suppressions",
        "app",
        "Lift the suppression of bounced mailboxes that work.",
    ),
    ("segment", "audience.segments", "app", "Save and count segments of subscribers."),
    ("webhooks", "service.webhooks", "app", "Tell other programs what happens, by webhooks."),
    ("topic", "audience.topics", "app", "Create and change topics that subscribers opt in to."),
    ("user", "service.users", "app", "Manage the users of the console."),
    (
        "backup",
        "service.backups",
        "backup",
        "Back up the database and the uploaded lists while the service runs.",
    ),
    (
        "restore",
        "service.backups",
        "restore",
        "Restore a backup into an empty database.",
    ),
    ("db", "service.database", "database", "Upgrade, prune and copy the database."),
    (
        "settings",
        "service.settings",
        "settings",
        "Show all settings, and change those of the publication.",
    ),
    (
        "doctor",
        "service.doctor",
        "doctor",
        "Check this machine, the SendGrid account and DNS; change nothing.",
    ),
    (
        "reconcile",
        "audience.reconcile",
        "reconcile",
        "Synchronize suppressions with SendGrid's lists.",
    ),
    (
        "serve",
        "processes.serve",
        "serve",
        "Run the service: pages, webhooks, the clock and the sending.",
    ),
    (
        "worker",
        "processes.worker",
        "worker",
        "Run an additional sending worker beside `newsletter serve`.",
    ),
    (
        "sandbox",
        "processes.sandbox",
        "sandbox",
        "Run a local stand-in for SendGrid, with a mailbox for every email.",
    ),
    (
        "demo",
        "demo.commands",
        "demo",
        "Send two sample issues to 4,000 sample subscribers on this machine; needs no account.",
    ),
)
#: Typer sets it when a shell requests completions.
_COMPLETING: Final = "_NEWSLETTER_COMPLETE"
#: Longer lines of help are hard to read.
_WIDEST = 100


def application(only: Collection[str] | None = None) -> typer.Typer:
    """The root with all commands, or only with some; of the others it has only the help.

    Importing all of them takes a second, mostly for libraries that one command needs.
    """
    app = typer.Typer(
        name="newsletter",
        help="Send newsletters that each subscriber gets exactly once.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain help wraps on every terminal; panels truncate option names on narrow ones.
        rich_markup_mode=None,
    )
    # Without a callback, Typer would make a single command the root itself.
    app.callback()(_root)
    for name, module, attribute, help_text in COMMANDS:
        if only is not None and name not in only:
            app.command(name, help=help_text)(lambda: None)
            continue
        found = getattr(import_module(f"newsletter.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        out.print(f"newsletter {version('newsletter')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options before the command."""


class _Help(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Help whose first column leaves room for the second one."""

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


class _Context(typer.Context):
    formatter_class = _Help


def command_line(only: Collection[str] | None = None) -> Callable[[], object]:
    """The application as a callable, with help as wide as the terminal and no truncated text."""
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
    """The console script. A UserError ends in a message and its exit code, without traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The terminal's encoding may lack a character, and a file name may not be valid text.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        # With the UTC offset, because logs are read in other time zones.
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    try:
        # For completions, the words are not in sys.argv.
        command_line(None if _COMPLETING in os.environ else sys.argv[1:2])()
    except UserError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except StoppedError as error:
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        from newsletter.db.engine import failed  # noqa: PLC0415 (help needs no database)

        explained = failed(error)
        if explained is None:
            raise
        print_error(explained)
        sys.exit(explained.exit_code)
