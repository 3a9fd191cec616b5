"""`newsletter worker`: an additional sending worker, on this machine or another."""

import logging
import os
from contextlib import ExitStack
from typing import Annotated

import typer

from newsletter.cli.actor import stopping
from newsletter.cli.output import err
from newsletter.cli.service import open_files, repeated_logs
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.sending.queries import send_status
from newsletter.settings.load import load


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Requests under way at once (sending.concurrency)."),
    ] = None,
) -> None:
    """Run an additional sending worker beside `newsletter serve`.

    Start as many as you want: with PostgreSQL on as many machines, with SQLite on the one
    where its file is, for more cores. Each batch is sent by one of them, and when one dies
    the others go on. It also stands by to take the clock over. SIGTERM, Ctrl-C and
    a terminal that is closed let it finish the requests under way.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("newsletter").setLevel(logging.INFO)
    repeated_logs.install()
    open_files.raise_limit()
    environment = dict(os.environ)
    if concurrency is not None:
        environment["NEWSLETTER_SENDING__CONCURRENCY"] = str(concurrency)
    settings = load(environment)
    container = Container(settings, text_process=True)
    # What it cannot work without is told before it begins.
    _ = container.gateway, container.links, container.address_key
    workers = container.workers()
    with stopping() as told_to_stop, ExitStack() as running:
        # The workers before the clock: they make the tables of jobs that it feeds.
        for part in (workers, container.clock()):
            part.start()
            running.callback(part.stop)
        # Before the clock, which may be waiting for it.
        running.callback(container.text_workers.stop)
        err.print(
            f"worker {workers.name} sends up to {settings.sending.concurrency} requests at once"
            " · Ctrl-C stops it orderly"
        )
        told_to_stop.wait()
        err.print("stopping: the requests under way end first")
    err.print(f"stopped orderly · {_sent(container, workers.name):,} batches sent")


def _sent(container: Container, name: str) -> int:
    """The number of batches that this process sent."""
    with reading(container.database) as session:
        return send_status.accepted_by(session, name)
