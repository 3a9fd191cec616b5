"""`newsletter webhooks`: endpoints of other programs, and what was sent to them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.webhook_queue import WebhookState
from newsletter.settings.load import load
from newsletter.webhooks import deliveries, endpoints

app = typer.Typer(help="Tell other programs what happens, by webhooks.", no_args_is_help=True)

_Number = Annotated[int, typer.Argument(metavar="ENDPOINT", min=1, help="The endpoint's number.")]
_Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="An event, like send.finished; repeat it for several, and use '*' for all.",
        show_default=False,
    ),
]
_ENDPOINTS = ["endpoint", "url", "description", "events", "state", "pending"]
_DELIVERIES = ["delivery", "event", "at", "state", "requests", "status", "answer"]


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where the events are posted to.")],
    event: _Events = None,
    description: Annotated[str, typer.Option(help="What the program is.")] = "",
) -> None:
    """Add an endpoint. Its secret is printed once.

    The program at the endpoint verifies with the secret that a request is genuine
    (docs/guides/webhooks.md).
    """
    container = Container(load())
    events = endpoints.parse_events(event or [])
    with transaction(container.database) as session:
        number, secret = endpoints.create(
            session,
            url,
            events,
            by=who(),
            now=datetime.now(UTC),
            description=description,
            allow_hosts=container.settings.webhooks.allow_hosts,
        )
    err.print(f"Endpoint {number} is told about: {endpoints.sorted_events(events)}.")
    _print_secret(secret)


@app.command("change")
def change(
    number: _Number,
    url: Annotated[str | None, typer.Option(help="Another address.", show_default=False)] = None,
    event: _Events = None,
    description: Annotated[
        str | None, typer.Option(help="Another description.", show_default=False)
    ] = None,
) -> None:
    """Change the address, the description, or all events of an endpoint."""
    container = Container(load())
    with transaction(container.database) as session:
        endpoints.find(session, number)
        (before,) = endpoints.listing(session, only=number)
        events = before.events if event is None else endpoints.parse_events(event)
        endpoints.change(
            session,
            number,
            by=who(),
            now=datetime.now(UTC),
            url=before.url if url is None else url,
            events=events,
            description=before.description if description is None else description,
            allow_hosts=container.settings.webhooks.allow_hosts,
        )
    out.print(f"Endpoint {number} is told about: {endpoints.sorted_events(events)}.")


@app.command("list")
def list_endpoints(as_json: AsJson = False) -> None:
    """List the endpoints."""
    with reading(Container(load()).database) as session:
        records = [
            {
                "endpoint": one.id,
                "url": one.url,
                "description": one.description,
                "events": list(one.events) if as_json else endpoints.sorted_events(one.events),
                "state": one.state,
                "pending": one.pending,
                "created_at": one.created_at,
                "disabled_at": one.disabled_at,
                "failing_since": one.failing_since,
                "old_secret_until": one.old_secret_until,
            }
            for one in endpoints.listing(session)
        ]
    rows(
        records,
        _ENDPOINTS,
        as_json=as_json,
        empty="No endpoints yet: newsletter webhooks create URL --event send.finished",
    )


@app.command("deliveries")
def list_deliveries(
    number: _Number,
    state: Annotated[WebhookState | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest deliveries of an endpoint, with its last answers."""
    with reading(Container(load()).database) as session:
        endpoints.find(session, number)
        records = [
            {
                "delivery": one.id,
                "event": one.event,
                "at": one.created_at,
                "state": one.state,
                "requests": one.attempt,
                "status": one.status,
                "answer": one.answer if as_json else one.answer[:60],
                "id": f"msg_{one.message_id}",
                "sequence": one.sequence,
                "last_request_at": one.sent_at,
                "next_request_at": one.not_before if one.state == WebhookState.PENDING else None,
                "data": one.data,
            }
            for one in deliveries.latest(session, number, state=state, limit=limit)
        ]
    rows(records, _DELIVERIES, as_json=as_json, empty="nothing was sent in the last 30 days")


@app.command("test")
def test(number: _Number) -> None:
    """Send the event webhook.test to an endpoint; `newsletter serve` does so within a second."""
    with transaction(Container(load()).database) as session:
        delivery = endpoints.send_test(session, number, by=who(), now=datetime.now(UTC))
    out.print(
        f"Delivery {delivery} is queued. Its answer: `newsletter webhooks deliveries {number}`"
    )


@app.command("resend")
def resend(
    delivery: Annotated[int, typer.Argument(metavar="DELIVERY", min=1, help="Its number.")],
) -> None:
    """Send a delivery once more, with the same id."""
    with transaction(Container(load()).database) as session:
        number = deliveries.resend(session, delivery, by=who(), now=datetime.now(UTC))
    out.print(
        f"Delivery {delivery} is queued. Its answer: `newsletter webhooks deliveries {number}`"
    )


@app.command("disable")
def disable(number: _Number) -> None:
    """Send nothing more to an endpoint, and keep no new events for it."""
    with transaction(Container(load()).database) as session:
        endpoints.disable(session, number, by=who(), now=datetime.now(UTC))
    out.print(f"Endpoint {number} is disabled.")


@app.command("enable")
def enable(number: _Number) -> None:
    """Send to a disabled endpoint again, first what waits for it."""
    with transaction(Container(load()).database) as session:
        endpoints.enable(session, number, by=who(), now=datetime.now(UTC))
    out.print(f"Endpoint {number} is enabled.")


@app.command("rotate")
def rotate(number: _Number) -> None:
    """Give an endpoint a new secret, which is printed once. For a day the old one signs, too."""
    with transaction(Container(load()).database) as session:
        secret = endpoints.rotate(session, number, by=who(), now=datetime.now(UTC))
    err.print(f"Endpoint {number} has a new secret. For 24 hours, the old one signs, too.")
    _print_secret(secret)


@app.command("delete")
def delete(number: _Number) -> None:
    """Delete an endpoint, with its deliveries."""
    with transaction(Container(load()).database) as session:
        endpoints.remove(session, number, by=who(), now=datetime.now(UTC))
    out.print(f"Endpoint {number} is deleted.")


def _print_secret(secret: str) -> None:
    """Print a secret alone, so that a script can use it."""
    err.print("Its secret, which is not shown again:")
    out.print(secret)
