"""Sets up an authenticator app: a QR code, a code that confirms it, recovery codes shown once."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import segno
from fastapi import APIRouter, Depends, Form, Request, Response
from markupsafe import Markup

from newsletter.accounts import audit, sign_in_throttle, two_factor
from newsletter.accounts.models import SignInStage
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import AccountError
from newsletter.operations import first_owner
from newsletter.web.console.accounts.my_account import (
    Anyone,
    email_user,
    renew,
    require_password,
    show_account,
)
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import at_stage
from newsletter.web.dependencies import Parts

router = APIRouter()
_EnrolStage = Annotated[Visitor, Depends(at_stage(SignInStage.FULL, SignInStage.ENROL))]

_HOME = "/console/account/factor"


@router.api_route(_HOME, methods=["GET", "HEAD"])
def show(request: Request, parts: Parts, visitor: _EnrolStage) -> Response:
    """The secret that is not confirmed yet."""
    return _show(request, parts, visitor)


@router.post(f"{_HOME}/begin")
def begin(
    request: Request, parts: Parts, visitor: Anyone, current: Annotated[str, Form()] = ""
) -> Response:
    """Make a new secret; the current app stays valid until the new one is confirmed."""
    try:
        require_password(request, parts, visitor, current)
    except AccountError as error:
        return show_account(request, parts, visitor, problem=error, at="factor")
    with transaction(parts.database) as session:
        two_factor.begin(session, visitor.user_id)
    return go(_HOME)


@router.post(_HOME)
def prove(
    request: Request, parts: Parts, visitor: _EnrolStage, code: Annotated[str, Form()] = ""
) -> Response:
    """Confirm the app by a code, and complete a sign-in that required an app."""
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        may = sign_in_throttle.may_try_code(
            session, parts.address_key, user_id=visitor.user_id, now=now
        )
    if not may:
        return _show(request, parts, visitor, problem="Too many attempts. Try again in 15 minutes.")
    with transaction(parts.database) as session:
        codes = two_factor.prove(session, visitor.user_id, code, now=now)
        if codes is not None:
            token = renew(session, request, parts, visitor)
            email_user(session, parts, visitor.email, "An authenticator app was set up")
            audit.record(session, actor(request, visitor), "authenticator set up", now=now)
    if codes is None:
        return _show(
            request, parts, visitor, problem="Wrong code. Enter the next code that your app shows."
        )
    request.state.visitor = replace(visitor, stage=SignInStage.FULL)
    return page(request, "recovery_codes.html", token=token, codes=codes)


@router.post("/console/account/recovery-codes")
def new_codes(
    request: Request, parts: Parts, visitor: Anyone, current: Annotated[str, Form()] = ""
) -> Response:
    """Replace the recovery codes; the new ones are shown only now."""
    try:
        require_password(request, parts, visitor, current)
        with transaction(parts.database) as session:
            codes = two_factor.new_recovery_codes(session, visitor.user_id)
            email_user(session, parts, visitor.email, "New recovery codes were made")
            who = actor(request, visitor)
            audit.record(session, who, "recovery codes created", now=datetime.now(UTC))
    except AccountError as error:
        return show_account(request, parts, visitor, problem=error, at="recovery")
    return page(request, "recovery_codes.html", codes=codes)


@router.post(f"{_HOME}/remove")
def remove(
    request: Request, parts: Parts, visitor: Anyone, current: Annotated[str, Form()] = ""
) -> Response:
    """Remove the app, if the settings allow it."""
    try:
        _require_optional(parts)
        require_password(request, parts, visitor, current)
    except AccountError as error:
        return show_account(request, parts, visitor, problem=error, at="factor")
    with transaction(parts.database) as session:
        two_factor.reset(session, visitor.user_id)
        email_user(session, parts, visitor.email, "The authenticator app was removed")
        who = actor(request, visitor)
        audit.record(session, who, "authenticator removed", now=datetime.now(UTC))
    return go("/console/account?done=factor")


def _require_optional(parts: Container) -> None:
    if parts.settings.console.require_second_factor:
        raise AccountError("all users need an authenticator app")


def _show(request: Request, parts: Container, visitor: Visitor, *, problem: str = "") -> Response:
    with reading(parts.database) as session:
        secret = two_factor.pending(session, visitor.user_id)
        is_new = visitor.stage is SignInStage.ENROL
        greeting = first_owner.greeting(session, visitor.email) if is_new else None
    if not secret:
        # A user who has set it up in another browser meanwhile can sign in with a code.
        return go("/console/account" if visitor.stage is SignInStage.FULL else "/console/sign-in")
    uri = two_factor.uri(secret, email=visitor.email, issuer=parts.settings.site.name)
    return page(
        request,
        "factor.html",
        status=400 if problem else 200,
        picture=_picture(uri),
        secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        problem=problem,
        greeting=greeting,
    )


def _picture(text: str) -> Markup:
    """A QR code as SVG. The markup contains only numbers, not the text."""
    drawn = segno.make(text, error="m", micro=False)
    return Markup(drawn.svg_inline(scale=5, border=2, omitsize=True, svgclass="qr"))  # noqa: S704
