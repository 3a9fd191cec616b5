"""`newsletter worker`: an additional sending worker, on this machine or another."""

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from newsletter.cli import schema_versions
from newsletter.cli.actor import stopping
from newsletter.cli.processes import log_format, open_files
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.sending.queries import send_status
from newsletter.settings.load import load

if TYPE_CHECKING:
    from newsletter.scheduling.leader_clock import Clock
    from newsletter.sending.workers.thread_pool import WorkerPool


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Requests under way at once (sending.concurrency)."),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve /healthz, /readyz and /metrics on this port of metrics.host; 0 for a free "
            "one.",
        ),
    ] = None,
) -> None:
    """Run an additional sending worker beside `newsletter serve`.

    With PostgreSQL, start any number of workers on any number of machines. With SQLite, start
    them on the machine with the file, to use more cores. One worker sends each batch; when one
    dies, the others continue. A worker also takes over the clock if the service stops. SIGTERM,
    Ctrl-C and a closed terminal let it finish the requests under way.
    """
    open_files.raise_limit()
    if concurrency is not None:
        os.environ["NEWSLETTER_SENDING__CONCURRENCY"] = str(concurrency)
    settings = load()
    log_format.install(settings.logging.format)
    container = Container(settings, text_process=True)
    # Check what the worker needs before it begins.
    _ = container.gateway, container.links, container.address_key
    workers, clock = container.workers(), container.clock()
    webhooks = container.webhook_sender()
    with stopping() as stop, container.writing_traces(), ExitStack() as running:
        outdated = schema_versions.Outdated(lambda: stop.set(signal.SIGTERM))
        container.wakeups.observers.append(outdated)
        if health_port is not None:
            _serve_health(container, workers, clock, port=health_port, running=running)
        # Start the workers before the clock, because they create the job tables that it needs.
        for part in (workers, clock, webhooks):
            part.start()
            running.callback(part.stop)
        # Stop this before the clock, which may be waiting for it.
        running.callback(container.text_workers.stop)
        log_format.say(
            f"worker {workers.name} sends up to {settings.sending.concurrency} requests at once"
            " · Ctrl-C stops it"
        )
        stop.wait()
        log_format.say("stopping when the requests under way have finished")
    log_format.say(f"stopped · {_sent(container, workers.name):,} batches sent")
    outdated.raise_if_noticed()


def _serve_health(
    container: Container, workers: "WorkerPool", clock: "Clock", *, port: int, running: ExitStack
) -> None:
    """Answer the monitoring until the process ends."""
    # Imported here, because few workers have a port.
    from newsletter.monitoring.listener import MonitorListener  # noqa: PLC0415
    from newsletter.monitoring.process_monitor import ProcessMonitor  # noqa: PLC0415

    monitor = ProcessMonitor(container, has_metrics=True)
    monitor.watch(workers, clock)
    listener = MonitorListener(monitor, container.settings.metrics.host, port)
    running.enter_context(listener)
    log_format.say(f"health and metrics: {listener.url}")


def _sent(container: Container, name: str) -> int:
    """The number of batches that this process sent."""
    with reading(container.database) as session:
        return send_status.accepted_by(session, name)
