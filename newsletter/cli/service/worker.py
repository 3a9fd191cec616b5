"""`newsletter worker`: an additional sending worker, on this machine or another."""

import logging
import os
import signal
from contextlib import ExitStack
from typing import Annotated

import typer

from newsletter.cli.actor import stopping
from newsletter.cli.output import err
from newsletter.cli.service import log_rate_limit, open_files, schema_versions
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

    With PostgreSQL, start any number of workers on any number of machines. With SQLite, start
    them on the machine with the file, to use more cores. One worker sends each batch; when one
    dies, the others continue. A worker also takes over the clock if the service stops. SIGTERM,
    Ctrl-C and a closed terminal let it finish the requests under way.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("newsletter").setLevel(logging.INFO)
    log_rate_limit.install()
    open_files.raise_limit()
    environment = dict(os.environ)
    if concurrency is not None:
        environment["NEWSLETTER_SENDING__CONCURRENCY"] = str(concurrency)
    settings = load(environment)
    container = Container(settings, text_process=True)
    # Check what the worker needs before it begins.
    _ = container.gateway, container.links, container.address_key
    workers = container.workers()
    with stopping() as stop, ExitStack() as running:
        outdated = schema_versions.Outdated(lambda: stop.set(signal.SIGTERM))
        container.wakeups.observers.append(outdated)
        # Start the workers before the clock, because they create the job tables that it needs.
        for part in (workers, container.clock()):
            part.start()
            running.callback(part.stop)
        # Stop this before the clock, which may be waiting for it.
        running.callback(container.text_workers.stop)
        err.print(
            f"worker {workers.name} sends up to {settings.sending.concurrency} requests at once"
            " · Ctrl-C stops it"
        )
        stop.wait()
        err.print("stopping when the requests under way have finished")
    err.print(f"stopped · {_sent(container, workers.name):,} batches sent")
    outdated.raise_if_noticed()


def _sent(container: Container, name: str) -> int:
    """The number of batches that this process sent."""
    with reading(container.database) as session:
        return send_status.accepted_by(session, name)
