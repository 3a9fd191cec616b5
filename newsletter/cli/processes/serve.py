"""`newsletter serve`: web, clock and workers in one process."""

import signal
import socket
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated

import typer
import uvicorn

from newsletter.cli import schema_versions
from newsletter.cli.actor import STOPS
from newsletter.cli.local_provider import warn_if_silent
from newsletter.cli.processes import log_format, open_files
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.errors import MachineError
from newsletter.http_server import HttpServer
from newsletter.monitoring.listener import MonitorListener
from newsletter.monitoring.process_monitor import ProcessMonitor
from newsletter.operations import first_owner
from newsletter.settings.load import load
from newsletter.web import connections
from newsletter.web.app import create_app


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (web.host).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on (web.port).")
    ] = None,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            help="Also run the stand-in for SendGrid, at sendgrid.host of this machine.",
        ),
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="First back up and upgrade an older database.")
    ] = False,
) -> None:
    """Run the service: pages, webhooks, the clock and the sending.

    With --sandbox, no email leaves this machine: a mailbox shows them. With --upgrade, a database
    of an earlier release is backed up and upgraded first; of several services that start at once,
    one does this and the others wait (docs/guides/upgrade.md).
    """
    with ExitStack() as opened:
        settings, mailbox = load(), None
        log_format.install(settings.logging.format)
        if sandbox:
            # Only here, because a service in production does not load it.
            from newsletter.cli.processes.own_sandbox import own_sandbox  # noqa: PLC0415

            mailbox, settings = opened.enter_context(own_sandbox(settings))
        if upgrade:
            schema_versions.upgrade(
                settings.database_url, backups=settings.backup.folder, say=log_format.say
            )
        container = Container(settings, text_process=True)
        # Check what the service needs before it listens.
        _ = container.gateway, container.links, container.address_key, container.verifier
        _ = container.database
        opened.enter_context(container.writing_traces())
        web, metrics = settings.web, settings.metrics
        listening = listen(host or web.host, web.port if port is None else port)
        bound = listening.getsockname()
        address = f"http://{bound[0]}:{bound[1]}"
        monitor = ProcessMonitor(container)
        if metrics.port:
            opened.enter_context(MonitorListener(monitor, metrics.host, metrics.port))
        server = server_of(container, monitor)
        outdated = schema_versions.Outdated(lambda: setattr(server, "should_exit", True))
        container.wakeups.observers.append(outdated)
        # Already now, because a signal before the server installs its handlers would kill the
        # process.
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, server.handle_exit)
        log_format.say(f"newsletter is at {address} · health: {address}/healthz · Ctrl-C stops it")
        with reading(container.database) as session:
            link = first_owner.link(session, container, now=datetime.now(UTC))
        if link is not None:
            log_format.say(f"first visit, for the owner; works once, within an hour: {link}")
        if mailbox is not None:
            here = "127.0.0.1" if bound[0] == "0.0.0.0" else bound[0]  # noqa: S104
            mailbox.set_webhook_url(f"http://{here}:{bound[1]}/webhooks/sendgrid/events")
            log_format.say(f"mailbox: {mailbox.url} · SANDBOX: emails reach no real inbox")
        else:
            warn_if_silent(settings, log_format.say)
        server.run(sockets=[listening])
        outdated.raise_if_noticed()


def server_of(container: Container, monitor: ProcessMonitor | None = None) -> HttpServer:
    """The web server of the service; web/connections.py limits how long it waits for clients."""
    app = create_app(container, background=True, monitor=monitor)
    most = open_files.connections_within(
        open_files.raise_limit(), most=container.settings.web.max_connections
    )
    server = HttpServer(
        uvicorn.Config(
            app,
            log_level="warning",
            # uvicorn's own handlers would bypass the filter of repeated lines.
            log_config=None,
            access_log=False,
            server_header=False,
            http=connections.limited_to(most),
            ws="none",
            timeout_keep_alive=connections.IDLE_TIMEOUT,
            backlog=open_files.BACKLOG,
            # Only web.trusted_proxies decides which proxies are trusted.
            proxy_headers=False,
            lifespan="on",
        )
    )
    app.state.stopping = lambda: server.should_exit
    container.text_workers.stopping = lambda: server.should_exit
    return server


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; MachineError when the port is in use."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise MachineError(
            f"cannot listen there: {error.strerror or error}",
            place=f"{host}:{port}",
            hint="Stop what uses it, or choose another with --port.",
        ) from None
