"""Leaving: RFC 8058 one-click and a page for people, both under the same signed link.

POST leaves, at once and without any question; GET only shows a button, because link
scanners follow every link in a mail.
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
def leave(token: str, request: Request, parts: Parts) -> Response:
    """Leave. Whatever the body says: mail clients post theirs as urlencoded or as multipart.

    Answers 200 each time, without a redirect, as RFC 8058 §3.2 and Gmail ask.
    """
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    # Each click is its own happening: somebody who came back may leave again by an old mail.
    happening = f"one-click\0{subscriber_id}\0{issue_id}\0{datetime.now(UTC).isoformat()}"
    unsubscribe_token(parts, subscriber_id, issue_id, by="our link", happening=happening)
    return page(request, "unsubscribed.html")


def unsubscribe_token(
    parts: Container, subscriber_id: int, issue_id: int | None, *, by: str, happening: str
) -> None:
    """Let a person leave: the same event, and the same policy, as when the provider says so.

    ``happening`` tells one leaving from another. What changes nothing is no event: a link can be
    posted as often as somebody likes.
    """
    now = datetime.now(UTC)
    key = hashlib.sha256(happening.encode()).digest()[:16]

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
            # Their mail domain counts in the figures.
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
