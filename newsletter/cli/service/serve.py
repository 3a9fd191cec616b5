"""`newsletter serve`: web, clock and workers in one process."""

import logging
import signal
import socket
from typing import Annotated

import typer
import uvicorn

from newsletter.cli.actor import STOPS
from newsletter.cli.output import err
from newsletter.cli.service import log_rate_limit, open_files, schema_versions
from newsletter.container import Container
from newsletter.errors import MachineError
from newsletter.http_server import HttpServer
from newsletter.settings.load import load
from newsletter.web import connections
from newsletter.web.app import create_app


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (web.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (web.port).")] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="First back up and upgrade an older database.")
    ] = False,
) -> None:
    """Run the service: pages, webhooks, the clock and the sending.

    With --upgrade, a database of an earlier release is backed up and upgraded first; of several
    services that start at once, one does this and the others wait (docs/guides/upgrade.md).
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("newsletter").setLevel(logging.INFO)
    log_rate_limit.install()
    settings = load()
    if upgrade:
        schema_versions.upgrade(settings.database_url)
    container = Container(settings, text_process=True)
    # Check what the service needs before it listens.
    _ = container.gateway, container.links, container.address_key, container.verifier
    _ = container.database
    web = container.settings.web
    listening = listen(host or web.host, web.port if port is None else port)
    bound = listening.getsockname()
    address = f"http://{bound[0]}:{bound[1]}"
    server = server_of(container)
    outdated = schema_versions.Outdated(lambda: setattr(server, "should_exit", True))
    container.wakeups.observers.append(outdated)
    # Already now, because a signal before the server installs its handlers would kill the process.
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, server.handle_exit)
    err.print(f"newsletter is at {address} · health: {address}/healthz · Ctrl-C stops it")
    server.run(sockets=[listening])
    outdated.raise_if_noticed()


def server_of(container: Container) -> HttpServer:
    """The web server of the service; web/connections.py limits how long it waits for clients."""
    app = create_app(container, background=True)
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
