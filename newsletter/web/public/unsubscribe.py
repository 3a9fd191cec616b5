"""Leaving: RFC 8058 one-click and a page for people, both under the same signed link.

POST leaves, at once and without any question; GET only shows a button, because link
scanners follow every link in a mail.
"""

import hashlib
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from newsletter.database import reading
from newsletter.links import Purpose
from newsletter.provider.events import Event, Kind
from newsletter.sending.models import Delivery
from newsletter.web.dependencies import Parts, page
from subscribers.schema import table_of

router = APIRouter()
_delivery = table_of(Delivery)


@router.get("/unsubscribe/{token}")
def ask(token: str, request: Request, parts: Parts) -> Response:
    """The page with the button. Changes nothing."""
    parts.links.read(token, Purpose.RECIPIENT)
    return page(request, "unsubscribe.html", token=token)


@router.post("/unsubscribe/{token}")
def leave(token: str, request: Request, parts: Parts) -> Response:
    """Leave. Whatever the body says: mail clients post theirs as urlencoded or as multipart.

    Answers 200 each time, without a redirect, as RFC 8058 §3.2 and Gmail ask.
    """
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    parts.ingest([_left(parts, subscriber_id, issue_id)])
    return page(request, "unsubscribed.html")


def _left(parts: Parts, subscriber_id: int, issue_id: int) -> Event:
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        send_id = session.scalar(
            select(_delivery.c.send_id).where(
                _delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == subscriber_id
            )
        )
    # Each click is its own happening: somebody who came back may leave again by an old mail.
    key = f"one-click\0{subscriber_id}\0{issue_id}\0{now.isoformat()}"
    return Event(
        kind=Kind.UNSUBSCRIBE,
        at=now,
        key=hashlib.sha256(key.encode()).digest()[:16],
        email=None,
        issue_id=issue_id,
        send_id=send_id,
        batch=None,
        subscriber_id=subscriber_id,
        reason="our link",
        by_machine=False,
        raw="{}",
    )
