"""Unsubscribing: one-click (RFC 8058) and a page for people, both under the same signed link.

POST unsubscribes immediately. GET only shows a button, because link scanners follow every link
in an email.
"""

from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request, Response

from newsletter.links import Purpose
from newsletter.tracking.events.unsubscribe import unsubscribe
from newsletter.web.dependencies import Parts, page, whole_body

router = APIRouter()


@router.head("/unsubscribe/{token}", include_in_schema=False)
@router.get("/unsubscribe/{token}")
def ask(token: str, request: Request, parts: Parts) -> Response:
    """The page with the button. Changes nothing."""
    parts.links.read(token, Purpose.RECIPIENT)
    return page(request, "unsubscribe.html", token=token)


@router.post("/unsubscribe/{token}", dependencies=[Depends(whole_body)])
def one_click(token: str, request: Request, parts: Parts) -> Response:
    """Unsubscribe. The body is ignored: email clients post it as urlencoded or as multipart.

    Answers 200 each time, without a redirect, as RFC 8058 §3.2 and Gmail require.
    """
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    now = datetime.now(UTC)
    # Each click is another request: a subscriber who came back may use an old email again.
    occurrence = f"one-click\0{subscriber_id}\0{issue_id}\0{now.isoformat()}"
    unsubscribe(
        parts.database,
        subscriber_id,
        issue_id,
        source="our link",
        occurrence=occurrence,
        now=now,
        hash_of=parts.hash_of,
    )
    return page(request, "unsubscribed.html")
