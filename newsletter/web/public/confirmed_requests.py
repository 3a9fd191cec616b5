"""Carries out a request that a subscriber confirms with the link in an email.

GET shows a button, POST acts. A link that was used, or whose subscriber was erased, shows a page
that says so and does nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.links import Purpose
from newsletter.tracking.people import privacy
from newsletter.web.dependencies import Parts, page
from newsletter.web.public.request_emails import TAKE_BACK
from subscribers.models import Confirmation
from subscribers.self_service import confirmed_requests
from subscribers.self_service.confirmed_requests import AddressChange, RequestKind

router = APIRouter()


#: What the page shows for a link that undoes a change of address.
_BACK = "back"


@router.head("/request/{token}", include_in_schema=False)
@router.get("/request/{token}")
def ask(token: str, request: Request, parts: Parts) -> Response:
    """The page with the button. Changes nothing."""
    confirmation_id, back = _request_of(parts, token)
    with reading(parts.database) as session:
        asked = confirmed_requests.find(session, confirmation_id, now=datetime.now(UTC))
        what = _what(asked, back=back)
        if asked is None or what is None:
            return _over(request)
        return page(request, "request_ask.html", token=token, what=what, email=asked.email)


@router.post("/request/{token}")
def act(token: str, request: Request, parts: Parts) -> Response:
    """Carry out the request. A second click changes nothing."""
    (confirmation_id, back), now = _request_of(parts, token), datetime.now(UTC)
    with transaction(parts.database) as session:
        asked = confirmed_requests.find_and_lock(session, confirmation_id, now=now)
        what = _what(asked, back=back)
        if asked is None or asked.subscriber_id is None or what is None:
            return _over(request)
        change = AddressChange.CHANGED
        match what:
            case RequestKind.DATA:
                confirmed_requests.mark_done(session, asked, now=now)
                return _download(privacy.data_of(session, asked.subscriber_id))
            case RequestKind.ERASE:
                privacy.erase(session, asked.subscriber_id, now=now)
            case RequestKind.ADDRESS:
                change = confirmed_requests.change_address(session, asked, now=now)
            case _:
                change = confirmed_requests.undo_address_change(session, asked, now=now)
    status = 200 if change is AddressChange.CHANGED else 409
    return page(request, "request_done.html", status=status, what=what, change=change)


def _request_of(parts: Container, token: str) -> tuple[int, bool]:
    """The id of the confirmation in a link, and whether the link undoes it."""
    confirmation_id, *rest = parts.links.read(token, Purpose.CONFIRM).numbers
    return confirmation_id, rest == [TAKE_BACK]


def _what(asked: Confirmation | None, *, back: bool) -> str | None:
    if asked is None or not back:
        return asked.kind if asked else None
    return _BACK if asked.kind == RequestKind.ADDRESS else None


def _over(request: Request) -> Response:
    return page(request, "request_over.html", status=410)


def _download(data: Mapping[str, Any]) -> Response:
    """The data as one indented JSON file."""
    return Response(
        orjson.dumps(data, option=orjson.OPT_INDENT_2),
        media_type="application/json",
        headers={
            "Content-Disposition": 'attachment; filename="my-data.json"',
            "Cache-Control": "no-store",
        },
    )
