"""`newsletter sandbox`: the local stand-in for SendGrid."""

from pathlib import Path
from typing import Annotated

import typer

from newsletter.cli.actor import stopping
from newsletter.cli.output import err, out
from newsletter.sandbox.server import SandboxConfig, start_sandbox


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 8025,
    key: Annotated[str, typer.Option(help="The API key that it accepts.")] = "SG.sandbox",
    sender: Annotated[
        list[str] | None,
        typer.Option(help="A verified sender; by default every sender is verified."),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            help="The URL that it posts events to, e.g. http://127.0.0.1:8000/webhooks/sendgrid/events"
        ),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(help="File that keeps the emails; by default they are deleted at the end."),
    ] = None,
) -> None:
    """Run a local stand-in for SendGrid, with a mailbox for every email."""

    config = SandboxConfig(
        host=host,
        port=port,
        api_keys=frozenset({key}),
        verified_senders=frozenset(sender) if sender else None,
        webhook_url=webhook,
        database=database,
    )
    with stopping() as told_to_stop, start_sandbox(config) as running:
        err.print(f"mailbox: {running.url} · Ctrl-C stops it")
        out.print(f"NEWSLETTER_SENDGRID__HOST={running.url}")
        out.print(f"NEWSLETTER_SENDGRID__API_KEY={key}")
        out.print(f"NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS={running.public_key}")
        told_to_stop.wait()
