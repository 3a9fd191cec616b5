"""The first visit: a link that `newsletter serve` prints makes the owner's account."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts import passwords
from newsletter.accounts.models import SignInStage
from newsletter.db.engine import reading, transaction
from newsletter.errors import AccountError, AddressError, LinkError, UserError
from newsletter.operations import first_owner
from newsletter.web.console.accounts.sign_in import begin_after_password
from newsletter.web.console.base import session_cookie
from newsletter.web.console.base.layout import go, page
from newsletter.web.console.base.permissions import STEPS, anybody
from newsletter.web.dependencies import Parts
from newsletter.web.visitor import network_address
from subscribers.email_address import parse

router = APIRouter(dependencies=[Depends(anybody)])


@router.api_route("/console/setup/{token}", methods=["GET", "HEAD"])
def show_form(token: str, request: Request, parts: Parts) -> Response:
    """The form. Changes nothing."""
    try:
        with reading(parts.database) as session:
            first_owner.require_open(session, parts, token, now=datetime.now(UTC))
    except LinkError:
        return _over(request)
    return page(request, "setup.html", key=token)


@router.post("/console/setup/{token}")
def create(
    token: str,
    request: Request,
    parts: Parts,
    *,
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Make the owner and sign them in. No transaction is open while the password is hashed."""
    now = datetime.now(UTC)
    try:
        with reading(parts.database) as session:
            first_owner.require_open(session, parts, token, now=now)
        address = parse(email[:321])
        passwords.check(password, email=address.email, again=again)
        hashed = parts.passwords.hashed(password)
        with transaction(parts.database) as session:
            user = first_owner.create(
                session,
                parts,
                token,
                address.email,
                name=name,
                hashed_password=hashed,
                ip=network_address(request) or "",
                now=now,
            )
            stage, cookie = begin_after_password(session, request, parts, user.id)
    except LinkError:
        return _over(request)
    except (AccountError, AddressError) as error:
        return _again(request, token, email, name, error)
    answer = go("/console/" if stage is SignInStage.FULL else STEPS[stage])
    session_cookie.set_token(answer, cookie, parts.settings.site.base_url)
    return answer


def _again(request: Request, token: str, email: str, name: str, problem: UserError) -> Response:
    return page(
        request,
        "setup.html",
        status=400,
        key=token,
        email=email[:320],
        called=name[:200],
        problem=problem,
    )


def _over(request: Request) -> Response:
    return page(request, "setup_over.html", status=410)
