"""Unsubscribe a subscriber who asks us: by a link of ours, or by an email."""

import hashlib
from datetime import datetime

import orjson
from sqlalchemy import Engine, select

from newsletter.db.engine import retry_on_deadlock
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import Event, EventKind
from newsletter.sending.models import Delivery
from newsletter.tracking.events.attribution import HashOf
from newsletter.tracking.events.ingest import ingest
from newsletter.tracking.models import EventRow
from subscribers.self_service import preferences

_delivery, _event = table_of(Delivery), table_of(EventRow)


def unsubscribe(
    database: Engine,
    subscriber_id: int,
    issue_id: int | None,
    *,
    source: str,
    occurrence: str,
    now: datetime,
    hash_of: HashOf,
) -> None:
    """Unsubscribe a subscriber by the same event and policy as when the provider reports it.

    ``occurrence`` identifies the request, so that one that is repeated is stored once. A request
    that changes nothing stores no event: anybody may post a link as often as they like.
    """
    key = hashlib.sha256(occurrence.encode()).digest()[:16]

    def work(session: Session) -> None:
        email = preferences.unsubscribable_address(session, subscriber_id)
        if email is None:
            return
        send_id = session.scalar(
            select(_delivery.c.send_id).where(
                _delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == subscriber_id
            )
        )
        same = (
            _event.c.kind == EventKind.UNSUBSCRIBE,
            _event.c.send_id.is_not_distinct_from(send_id),
        )
        before = session.scalar(select(_event.c.at).where(*same, _event.c.key == key))
        event = Event(
            kind=EventKind.UNSUBSCRIBE,
            at=before or now,
            key=key,
            # The domain of the address counts in the figures.
            email=email,
            issue_id=issue_id,
            send_id=send_id,
            batch=None,
            subscriber_id=subscriber_id,
            reason=source,
            by_machine=False,
            raw=orjson.dumps({"by": source}).decode(),
            first_hand=True,
        )
        done = ingest(session, [event], now=now, hash_of=hash_of)
        if done.suppressed:
            preferences.record(
                session, subscriber_id, "withdrawn", source=source, wording="Unsubscribed", now=now
            )

    retry_on_deadlock(database, work)
