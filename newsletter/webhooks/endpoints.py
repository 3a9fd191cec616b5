"""Endpoints of other programs: create, test, disable, enable, rotate their secrets, delete.

Each operation writes its audit entry in the same transaction. The audit log names an endpoint by
its number and its host: the rest of the address is often a secret of the receiver.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import delete, func, literal_column, select, update

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db import webhook_queue
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import (
    TEST_EVENT,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointEvent,
    WebhookEvent,
    WebhookState,
)
from newsletter.errors import NothingToDoError, UserError
from newsletter.provider.public_addresses import is_public
from newsletter.webhooks import signatures

_endpoint, _chosen = table_of(WebhookEndpoint), table_of(WebhookEndpointEvent)
_delivery = table_of(WebhookDelivery)
#: The old secret also signs for this long after a rotation.
ROTATION: Final = timedelta(hours=24)
#: More endpoints would make each event many rows.
_MOST: Final = 50
_ALL: Final = "*"


class WebhookError(UserError):
    """An endpoint or a delivery is unknown, or cannot be changed like this."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint as lists show it; without its secret."""

    id: int
    url: str
    description: str
    events: tuple[WebhookEvent, ...]
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str
    failing_since: datetime | None
    #: Until when the secret before the last rotation also signs.
    old_secret_until: datetime | None
    #: Deliveries that were not sent yet, or are sent again.
    pending: int

    @property
    def state(self) -> str:
        """One word: ``enabled``, ``failing`` or ``disabled``."""
        if self.disabled_at is not None:
            return "disabled"
        return "failing" if self.failing_since is not None else "enabled"

    @property
    def host(self) -> str:
        """The host of the address."""
        return host_of(self.url)


def host_of(url: str) -> str:
    """The host of an endpoint's address."""
    return urlsplit(url).hostname or url


def parse_events(names: Collection[str]) -> tuple[WebhookEvent, ...]:
    """The events with these names, ``*`` for all; WebhookError for none and for an unknown one."""
    if _ALL in names:
        return tuple(WebhookEvent)
    known = ", ".join(WebhookEvent)
    if not names:
        raise WebhookError("choose at least one event", place="events", hint=f"Events: {known}.")
    for name in names:
        if name not in set(WebhookEvent):
            raise WebhookError("there is no such event", place=name, hint=f"Events: {known}.")
    return tuple(event for event in WebhookEvent if event in names)


def create(
    session: Session,
    url: str,
    events: Collection[WebhookEvent],
    *,
    by: Actor,
    now: datetime,
    description: str = "",
    allow_hosts: Collection[str] = (),
) -> tuple[int, str]:
    """Add an endpoint for these events; returns its number and its secret.

    Nothing else ever shows the secret. Raises WebhookError if the address cannot be used.
    """
    url = _checked_url(url, allow_hosts)
    description = _checked_description(description)
    if (session.scalar(select(func.count()).select_from(_endpoint)) or 0) >= _MOST:
        raise WebhookError(f"there are {_MOST} endpoints already, which is the most")
    secret = signatures.new_secret()
    row = WebhookEndpoint(
        url=url,
        description=description,
        secret=secret,
        created_at=now,
        not_before=now,
        lease_until=now,
    )
    session.add(row)
    session.flush()
    _choose(session, row.id, events)
    _audit(session, by, "webhook endpoint created", row.id, now=now, events=", ".join(events))
    return row.id, secret


def change(
    session: Session,
    endpoint_id: int,
    *,
    by: Actor,
    now: datetime,
    url: str,
    events: Collection[WebhookEvent],
    description: str,
    allow_hosts: Collection[str] = (),
) -> None:
    """Give an endpoint another address, description or other events; what waits goes there."""
    find(session, endpoint_id)
    values = {
        "url": _checked_url(url, allow_hosts),
        "description": _checked_description(description),
    }
    session.execute(update(_endpoint).where(_endpoint.c.id == endpoint_id).values(values))
    session.execute(delete(_chosen).where(_chosen.c.endpoint_id == endpoint_id))
    _choose(session, endpoint_id, events)
    _audit(session, by, "webhook endpoint changed", endpoint_id, now=now, events=", ".join(events))


def send_test(session: Session, endpoint_id: int, *, by: Actor, now: datetime) -> int:
    """Queue a delivery of the event ``webhook.test``; returns its number."""
    _require_enabled(session, endpoint_id)
    one = select(_endpoint.c.id.label("endpoint")).where(_endpoint.c.id == endpoint_id)
    webhook_queue.queue(session, TEST_EVENT, {"asked_by": by.name[:320]}, one, now=now)
    newest = select(func.max(_delivery.c.id)).where(
        _delivery.c.endpoint_id == endpoint_id, _delivery.c.event == TEST_EVENT
    )
    number = session.execute(newest).scalar_one()
    _audit(session, by, "webhook endpoint tested", endpoint_id, now=now)
    return int(number)


def disable(session: Session, endpoint_id: int, *, by: Actor, now: datetime) -> None:
    """Send nothing more to an endpoint. New events are not kept for it; what waits is kept."""
    _require_enabled(session, endpoint_id)
    values = {"disabled_at": now, "disabled_reason": f"disabled by {by.name}"[:500]}
    session.execute(update(_endpoint).where(_endpoint.c.id == endpoint_id).values(values))
    _audit(session, by, "webhook endpoint disabled", endpoint_id, now=now)


def enable(session: Session, endpoint_id: int, *, by: Actor, now: datetime) -> None:
    """Send to a disabled endpoint again, first what waits for it."""
    if find(session, endpoint_id).disabled_at is None:
        raise NothingToDoError("it is not disabled", place=f"webhook endpoint {endpoint_id}")
    values = {
        "disabled_at": None,
        "disabled_reason": "",
        "failures": 0,
        "failing_since": None,
        "not_before": now,
    }
    session.execute(update(_endpoint).where(_endpoint.c.id == endpoint_id).values(values))
    _audit(session, by, "webhook endpoint enabled", endpoint_id, now=now)


def rotate(session: Session, endpoint_id: int, *, by: Actor, now: datetime) -> str:
    """Give an endpoint a new secret, and return it; for a day the old one signs, too."""
    old = find(session, endpoint_id).secret
    secret = signatures.new_secret()
    values = {"secret": secret, "old_secret": old, "old_secret_until": now + ROTATION}
    session.execute(update(_endpoint).where(_endpoint.c.id == endpoint_id).values(values))
    _audit(session, by, "webhook secret rotated", endpoint_id, now=now)
    return secret


def remove(session: Session, endpoint_id: int, *, by: Actor, now: datetime) -> None:
    """Delete an endpoint, with its deliveries."""
    subject = _subject(session, endpoint_id)
    session.execute(delete(_delivery).where(_delivery.c.endpoint_id == endpoint_id))
    session.execute(delete(_endpoint).where(_endpoint.c.id == endpoint_id))
    audit.record(session, by, "webhook endpoint deleted", now=now, subject=subject)


def find(session: Session, endpoint_id: int) -> WebhookEndpoint:
    """The endpoint; WebhookError if there is none with this number."""
    row = session.get(WebhookEndpoint, endpoint_id, populate_existing=True)
    if row is None:
        raise WebhookError(
            "there is no such endpoint",
            place=f"webhook endpoint {endpoint_id}",
            hint="The list of endpoints has all numbers.",
        )
    return row


def listing(session: Session, *, only: int | None = None) -> list[EndpointState]:
    """All endpoints, or one."""
    query = select(_endpoint).order_by(_endpoint.c.id)
    rows = session.execute(query if only is None else query.where(_endpoint.c.id == only)).all()
    events: dict[int, set[str]] = {}
    for endpoint_id, event in session.execute(select(_chosen)):
        events.setdefault(endpoint_id, set()).add(event)
    counts = session.execute(
        select(_delivery.c.endpoint_id, func.count())
        .where(_delivery.c.state == literal_column(f"'{WebhookState.PENDING}'"))
        .group_by(_delivery.c.endpoint_id)
    )
    waiting: dict[int, int] = {row[0]: row[1] for row in counts}
    return [
        EndpointState(
            row.id,
            row.url,
            row.description,
            tuple(event for event in WebhookEvent if event in events.get(row.id, ())),
            row.created_at,
            row.disabled_at,
            row.disabled_reason,
            row.failing_since,
            row.old_secret_until,
            waiting.get(row.id, 0),
        )
        for row in rows
    ]


def names(session: Session, ids: Collection[int]) -> Mapping[str, str]:
    """The description or host of these endpoints, by their numbers as text."""
    rows = session.execute(select(_endpoint).where(_endpoint.c.id.in_(list(ids))))
    return {str(row.id): row.description or host_of(row.url) for row in rows}


def _choose(session: Session, endpoint_id: int, events: Collection[WebhookEvent]) -> None:
    rows = [{"endpoint_id": endpoint_id, "event": event.value} for event in sorted(set(events))]
    session.execute(_chosen.insert(), rows)


def _require_enabled(session: Session, endpoint_id: int) -> None:
    if find(session, endpoint_id).disabled_at is not None:
        raise NothingToDoError(
            "it is disabled",
            place=f"webhook endpoint {endpoint_id}",
            hint="Enable it first.",
        )


def _checked_url(url: str, allow_hosts: Collection[str]) -> str:
    url = url.strip()
    wrong = WebhookError(
        "an endpoint is written like https://hooks.example.com/newsletter, in ASCII, without a "
        "user, a password or a #",
        place="url",
    )
    try:
        parts = urlsplit(url[:2001])
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    if (
        not re.fullmatch(r"[\x21-\x7e]{1,2000}", url)
        or parts.scheme not in {"http", "https"}
        or not host
        or port == 0
        or "@" in parts.netloc
        or "#" in url
    ):
        raise wrong
    if host in allow_hosts:
        return url
    if parts.scheme != "https":
        raise WebhookError(
            "an endpoint needs https",
            place="url",
            hint="The setting webhooks.allow_hosts names hosts of your own network.",
        )
    # The addresses of a name are checked at each connection.
    if re.fullmatch(r"[0-9.]+|.*:.*", host) and not is_public(host):
        raise WebhookError(
            "this address is not a public one",
            place="url",
            hint="The setting webhooks.allow_hosts names hosts of your own network.",
        )
    return url


def _checked_description(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > 200 or not text.isprintable():
        raise WebhookError("a description has 200 characters at most", place="description")
    return text


def _subject(session: Session, endpoint_id: int) -> str:
    return f"webhook endpoint {endpoint_id} ({host_of(find(session, endpoint_id).url)})"


def _audit(
    session: Session, by: Actor, action: str, endpoint_id: int, *, now: datetime, **detail: str
) -> None:
    subject = _subject(session, endpoint_id)
    audit.record(session, by, action, now=now, subject=subject, **detail)


def sorted_events(events: Sequence[WebhookEvent]) -> str:
    """The events as lists show them."""
    return "all" if set(events) == set(WebhookEvent) else ", ".join(events)
