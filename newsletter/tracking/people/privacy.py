"""A person's rights over what the publication keeps: a copy of all of it, and its end.

subscribers.self_service.erasure does the audience's part; this adds deliveries, events and
single emails.
"""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, delete, select, update

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.sending.models import Delivery, OutboxEmail, Send
from newsletter.tracking.models import EventRow, SoftBounce
from subscribers.models import Subscriber
from subscribers.self_service import erasure

_delivery, _send, _issue = table_of(Delivery), table_of(Send), table_of(Issue)
_event, _notice, _subscriber = table_of(EventRow), table_of(OutboxEmail), table_of(Subscriber)
_soft = table_of(SoftBounce)


def theirs(subscriber_id: int) -> ColumnElement[bool]:
    """The condition of being this person's, over ``delivery``.

    Deliveries have no index by person: each issue is asked, by the key, whether it has theirs.
    """
    each = select(_issue.c.id).scalar_subquery()
    return and_(_delivery.c.issue_id.in_(each), _delivery.c.subscriber_id == subscriber_id)


def data_of(session: Session, subscriber_id: int) -> dict[str, Any]:
    """All that is kept of a person, ready for JSON; UserError when there is nobody of this id."""
    issues = session.execute(
        select(_issue.c.slug, _send.c.started_at, _delivery.c.state, _delivery.c.reason)
        .join(_send, _send.c.id == _delivery.c.send_id)
        .join(_issue, _issue.c.id == _delivery.c.issue_id)
        .where(theirs(subscriber_id))
        .order_by(_delivery.c.issue_id)
    )
    events = session.execute(
        select(_event.c.kind, _event.c.at, _event.c.raw)
        .where(_event.c.subscriber_id == subscriber_id)
        .order_by(_event.c.at, _event.c.key)
    )
    mails = session.execute(
        select(_notice.c.kind, _notice.c.created_at, _notice.c.subject, _notice.c.state)
        .add_columns(_notice.c.outcome, _notice.c.outcome_reason)
        .join(_subscriber, _subscriber.c.email == _notice.c.email)
        .where(_subscriber.c.id == subscriber_id)
        .order_by(_notice.c.id)
    )
    soft = session.execute(
        select(_soft.c.at)
        .join(_subscriber, _subscriber.c.address_hash == _soft.c.address_hash)
        .where(_subscriber.c.id == subscriber_id)
        .order_by(_soft.c.at)
    )
    more = {
        "soft_bounces": [row._asdict() for row in soft],
        "issues": [row._asdict() for row in issues],
        "events": [{**row._asdict(), "raw": orjson.loads(row.raw)} for row in events],
        "mails": [row._asdict() for row in mails],
    }
    return erasure.data_of(session, subscriber_id, more=more)


def erase(session: Session, subscriber_id: int, *, now: datetime) -> None:
    """Delete all that tells who the person is; UserError when there is nobody of this id.

    Deliveries and events stay, by a number that belongs to nobody any more, so that the
    figures of past sends still add up. What an event said in full goes: it names the address,
    of which only the mail domain stays.
    """
    whose = _subscriber.c.id == subscriber_id
    email = session.scalar(select(_subscriber.c.email).where(whose))
    hashed = session.scalar(select(_subscriber.c.address_hash).where(whose))
    erasure.erase(session, subscriber_id, now=now)
    session.execute(delete(_soft).where(_soft.c.address_hash == hashed))
    session.execute(update(_event).where(_event.c.subscriber_id == subscriber_id).values(raw="{}"))
    session.execute(delete(_notice).where(_notice.c.email == email))
