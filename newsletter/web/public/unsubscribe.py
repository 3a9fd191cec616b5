"""Unsubscribing: one-click (RFC 8058) and a page for people, both under the same signed link.

POST unsubscribes immediately. GET only shows a button, because link scanners follow every link
in an email.
"""

import hashlib
from datetime import UTC, datetime

import orjson
from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import select

from newsletter.container import Container
from newsletter.db.engine import retry_on_deadlock
from newsletter.db.orm import Session, table_of
from newsletter.links import Purpose
from newsletter.provider.events import Event, EventKind
from newsletter.sending.models import Delivery
from newsletter.tracking.events.ingest import ingest
from newsletter.tracking.models import EventRow
from newsletter.web.dependencies import Parts, page, whole_body
from subscribers.self_service import preferences

router = APIRouter()
_delivery, _event = table_of(Delivery), table_of(EventRow)


@router.head("/unsubscribe/{token}", include_in_schema=False)
@router.get("/unsubscribe/{token}")
def ask(token: str, request: Request, parts: Parts) -> Response:
    """The page with the button. Changes nothing."""
    parts.links.read(token, Purpose.RECIPIENT)
    return page(request, "unsubscribe.html", token=token)


@router.post("/unsubscribe/{token}", dependencies=[Depends(whole_body)])
def unsubscribe(token: str, request: Request, parts: Parts) -> Response:
    """Unsubscribe. The body is ignored: email clients post it as urlencoded or as multipart.

    Answers 200 each time, without a redirect, as RFC 8058 §3.2 and Gmail require.
    """
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    # Each click is an event: a subscriber who came back can unsubscribe again with an old email.
    happening = f"one-click\0{subscriber_id}\0{issue_id}\0{datetime.now(UTC).isoformat()}"
    unsubscribe_token(parts, subscriber_id, issue_id, by="our link", happening=happening)
    return page(request, "unsubscribed.html")


def unsubscribe_token(
    parts: Container, subscriber_id: int, issue_id: int | None, *, by: str, happening: str
) -> None:
    """Unsubscribe a subscriber, with the same event and policy as an event of the provider.

    ``happening`` identifies the unsubscription: the same one is counted once. A post that changes
    nothing creates no event, because a link can be posted any number of times.
    """
    now = datetime.now(UTC)
    key = hashlib.sha256(happening.encode()).digest()[:16]

    def work(session: Session) -> None:
        email = preferences.still_here(session, subscriber_id)
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
            # Its domain counts in the statistics by domain.
            email=email,
            issue_id=issue_id,
            send_id=send_id,
            batch=None,
            subscriber_id=subscriber_id,
            reason=by,
            by_machine=False,
            raw=orjson.dumps({"by": by}).decode(),
            first_hand=True,
        )
        done = ingest(session, [event], now=now, hash_of=parts.hash_of)
        if done.suppressed:
            preferences.record(
                session, subscriber_id, "withdrawn", source=by, wording="Unsubscribed", now=now
            )

    retry_on_deadlock(parts.database, work)
