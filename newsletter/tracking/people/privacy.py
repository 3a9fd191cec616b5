"""GDPR access and erasure: all data of a subscriber, and its deletion.

subscribers.self_service.erasure covers the tables of the audience; this module adds deliveries,
events and single emails.
"""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, delete, select, update

from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookDelivery
from newsletter.issues.models import Issue
from newsletter.sending.models import Delivery, OutboxEmail, Send
from newsletter.tracking.models import EventRow, SoftBounce
from subscribers.models import Subscriber
from subscribers.self_service import erasure

_delivery, _send, _issue = table_of(Delivery), table_of(Send), table_of(Issue)
_event, _email, _subscriber = table_of(EventRow), table_of(OutboxEmail), table_of(Subscriber)
_soft, _webhook = table_of(SoftBounce), table_of(WebhookDelivery)


def is_delivery_to(subscriber_id: int) -> ColumnElement[bool]:
    """The condition on ``delivery`` that selects the deliveries to this subscriber.

    Deliveries have no index by subscriber, so each issue is looked up by the primary key.
    """
    issues = select(_issue.c.id).scalar_subquery()
    return and_(_delivery.c.issue_id.in_(issues), _delivery.c.subscriber_id == subscriber_id)


def data_of(session: Session, subscriber_id: int) -> dict[str, Any]:
    """All data of a subscriber, ready for JSON; UserError when there is no such subscriber."""
    issues = session.execute(
        select(_issue.c.slug, _send.c.started_at, _delivery.c.state, _delivery.c.reason)
        .join(_send, _send.c.id == _delivery.c.send_id)
        .join(_issue, _issue.c.id == _delivery.c.issue_id)
        .where(is_delivery_to(subscriber_id))
        .order_by(_delivery.c.issue_id)
    )
    events = session.execute(
        select(_event.c.kind, _event.c.at, _event.c.raw)
        .where(_event.c.subscriber_id == subscriber_id)
        .order_by(_event.c.at, _event.c.key)
    )
    emails = session.execute(
        select(_email.c.kind, _email.c.created_at, _email.c.subject, _email.c.state)
        .add_columns(_email.c.outcome, _email.c.outcome_reason)
        .join(_subscriber, _subscriber.c.email == _email.c.email)
        .where(_subscriber.c.id == subscriber_id)
        .order_by(_email.c.id)
    )
    soft_bounces = session.execute(
        select(_soft.c.at)
        .join(_subscriber, _subscriber.c.address_hash == _soft.c.address_hash)
        .where(_subscriber.c.id == subscriber_id)
        .order_by(_soft.c.at)
    )
    told = select(_webhook.c.event, _webhook.c.created_at, _webhook.c.state, _webhook.c.data)
    webhooks = session.execute(
        told.where(_webhook.c.subscriber_id == subscriber_id).order_by(_webhook.c.id)
    )
    more = {
        "soft_bounces": [row._asdict() for row in soft_bounces],
        "issues": [row._asdict() for row in issues],
        "events": [{**row._asdict(), "raw": orjson.loads(row.raw)} for row in events],
        "mails": [row._asdict() for row in emails],
        "webhooks": [row._asdict() for row in webhooks],
    }
    return erasure.data_of(session, subscriber_id, more=more)


def erase(session: Session, subscriber_id: int, *, now: datetime) -> None:
    """Delete all data that identifies a subscriber; UserError when there is no such subscriber.

    Deliveries and events stay, under an ID that belongs to nobody any more, so that the counters
    of past sends still add up. The raw events are deleted, because they contain the address; of
    the address only the domain stays.
    """
    of_subscriber = _subscriber.c.id == subscriber_id
    email = session.scalar(select(_subscriber.c.email).where(of_subscriber))
    hashed = session.scalar(select(_subscriber.c.address_hash).where(of_subscriber))
    erasure.erase(session, subscriber_id, now=now)
    session.execute(delete(_soft).where(_soft.c.address_hash == hashed))
    session.execute(update(_event).where(_event.c.subscriber_id == subscriber_id).values(raw="{}"))
    session.execute(delete(_email).where(_email.c.email == email))
