"""The link of a confirmation email: GET shows a button, POST subscribes. Link scanners only GET."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from newsletter.container import Container
from newsletter.db.engine import reading, retry_on_deadlock
from newsletter.db.orm import Session
from newsletter.errors import LinkError, UserError
from newsletter.links import Purpose
from newsletter.tracking import list_removal
from newsletter.web.dependencies import Parts, page
from newsletter.web.public.signup_emails import preferences_url
from newsletter.web.visitor import browser, network_address
from subscribers.consent import topics
from subscribers.signup import double_opt_in
from subscribers.signup.double_opt_in import SignupLinkError

router = APIRouter()


@router.head("/confirm/{token}", include_in_schema=False)
@router.get("/confirm/{token}")
def ask(token: str, request: Request, parts: Parts) -> Response:
    """The page with the button. Changes nothing."""
    try:
        number = _number(parts, token)
        with reading(parts.database) as session:
            asked = double_opt_in.find(session, number, now=datetime.now(UTC))
            slugs = set(asked.asked.get("topics", ()))
            chosen = [one.name for one in topics.offered(session) if one.slug in slugs]
    except (LinkError, SignupLinkError) as error:
        return _over(request, error)
    return page(request, "confirm.html", token=token, email=asked.email, chosen=chosen)


@router.post("/confirm/{token}")
def confirm(token: str, request: Request, parts: Parts) -> Response:
    """Subscribe. A second click shows the same page and changes nothing."""
    try:
        number = _number(parts, token)
        now, ip, agent = datetime.now(UTC), network_address(request), browser(request)
        # Two links of a new subscriber, clicked at the same time, can deadlock.
        subscriber_id = retry_on_deadlock(
            parts.database, lambda session: _confirm(session, number, now=now, ip=ip, agent=agent)
        )
    except (LinkError, SignupLinkError) as error:
        return _over(request, error)
    with reading(parts.database) as session:
        chosen = topics.names_of(session, subscriber_id)
        offers = bool(topics.public(session))
    return page(
        request,
        "confirmed.html",
        preferences=preferences_url(parts, subscriber_id),
        chosen=chosen,
        offers=offers,
    )


def _confirm(
    session: Session, number: int, *, now: datetime, ip: str | None, agent: str | None
) -> int:
    done = double_opt_in.confirm(session, number, now=now, ip=ip, user_agent=agent)
    if done.was_suppressed:
        # The provider drops emails to an address as long as its own suppression lists contain it.
        addresses = {done.address_hash: done.email}
        list_removal.add(session, addresses, now=now, since=now, own_wish=True)
    return done.subscriber_id


def _number(parts: Container, token: str) -> int:
    """The id of the confirmation in a link; -1, which no confirmation has, for other links."""
    number, *more = parts.links.read(token, Purpose.CONFIRM).numbers
    return -1 if more else number


def _over(request: Request, error: UserError) -> Response:
    status = 404 if isinstance(error, LinkError) else 410
    return page(request, "confirm_over.html", status=status, problem=error)
