"""The command line: one root, a module for each noun, and one place where errors end."""

import logging
import sys

import typer
from sqlalchemy.exc import OperationalError

from newsletter.cli import (
    demo,
    issues,
    sandbox,
    segments,
    send,
    sends,
    serve,
    settings,
    subscribers,
    topics,
    worker,
)
from newsletter.cli.output import complain, err
from newsletter.errors import DatabaseError, UserError

app = typer.Typer(
    name="newsletter",
    help="Send newsletters that everyone gets exactly once, and no one who left.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(issues.app, name="issue")
app.command("render")(issues.render_issue)
app.command("send")(send.send)
app.add_typer(sends.app, name="sends")
app.add_typer(subscribers.app, name="subscribers")
app.add_typer(segments.app, name="segment")
app.add_typer(topics.app, name="topic")
app.add_typer(settings.database, name="db")
app.command("settings")(settings.show)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("sandbox")(sandbox.sandbox)
app.command("demo")(demo.demo)


def run() -> None:
    """The console script. A user's mistake ends in words and an exit code, never in a traceback."""
    logging.basicConfig(
        level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        app()
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
