"""Resets a forgotten password, or sets the first one, by an email with a link that works once.

The answer and its time are the same whether or not a user has the address.
"""

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts import audit, passwords, sign_in_throttle, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import User
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import AccountError, LinkError
from newsletter.links import Purpose
from newsletter.operations import account_emails
from newsletter.sending.delivery import outbox
from newsletter.web.console.base.layout import go, page
from newsletter.web.console.base.permissions import anybody
from newsletter.web.dependencies import Parts
from newsletter.web.visitor import network_address

router = APIRouter(dependencies=[Depends(anybody)])


@router.api_route("/console/forgot", methods=["GET", "HEAD"])
def show_form(request: Request) -> Response:
    """The form for the address."""
    return page(request, "forgot.html")


@router.post("/console/forgot")
def send(request: Request, parts: Parts, email: Annotated[str, Form()] = "") -> Response:
    """Send the email, if a user has that address."""
    now, ip = datetime.now(UTC), network_address(request) or ""
    with transaction(parts.database) as session:
        may_ask = sign_in_throttle.may_ask_for_mail(
            session,
            parts.address_key,
            network=ip,
            per_network=parts.settings.console.per_network,
            now=now,
        )
    if not may_ask:
        answer = page(request, "forgot.html", status=429, too_often=True)
        answer.headers["Retry-After"] = str(int(sign_in_throttle.WINDOW.total_seconds()))
        return answer
    with transaction(parts.database) as session:
        known = users.credentials(session, email)
        account = users.identity_of(email)
        may = sign_in_throttle.may_get_mail(session, parts.address_key, account=account, now=now)
        # Without a user, it also writes an email and rolls back, to take the same time.
        with session.begin_nested() as point:
            user_id, stamp = (known.user_id, known.stamp) if known else (0, secrets.randbits(62))
            mail = account_emails.reset(parts, user_id, stamp, now=now)
            to = known.email if known else "nobody@example.com"
            outbox.enqueue(session, kind="password", email=to, mail=mail, now=now)
            if known is None or not may:
                point.rollback()
        who = Actor(None, "(not signed in)", ip)
        asked_for = known.email if known else "(no user)"
        audit.record_outsider(
            session,
            parts.address_key,
            who,
            "password email requested",
            now=now,
            subject=asked_for,
        )
    return page(request, "forgot_sent.html")


@router.api_route("/console/password/{token}", methods=["GET", "HEAD"])
def choose(token: str, request: Request, parts: Parts) -> Response:
    """The form for the new password. Changes nothing."""
    user = _user_of(parts, token)
    return page(request, "password.html", key=token, email=user.email) if user else _over(request)


@router.post("/console/password/{token}")
def save(
    token: str,
    request: Request,
    parts: Parts,
    password: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Save it and end all sessions of the user. Signing in still needs the second factor."""
    user = _user_of(parts, token)
    if user is None:
        return _over(request)
    try:
        passwords.check(password, email=user.email, again=again)
    except AccountError as error:
        return page(
            request, "password.html", status=400, key=token, email=user.email, problem=error
        )
    hashed, now = parts.passwords.hashed(password), datetime.now(UTC)
    with transaction(parts.database) as session:
        if not users.set_password_by_link(session, user.id, user.stamp, hashed):
            return _over(request)
        if user.password:
            mail = account_emails.changed(parts, "Your password was changed")
            outbox.enqueue(session, kind="account", email=user.email, mail=mail, now=now)
        who = Actor(user.id, user.email, network_address(request) or "")
        audit.record(session, who, "password chosen by link", now=now)
    return go("/console/sign-in?chosen")


def _user_of(parts: Container, token: str) -> User | None:
    """The user whose password this link may set; None if it was used or has expired."""
    try:
        user_id, stamp = parts.links.read(token, Purpose.PASSWORD, now=datetime.now(UTC)).numbers
    except LinkError:
        return None
    with reading(parts.database) as session:
        user = session.get(User, user_id)
        if user is not None:
            session.expunge(user)
    return user if user is not None and user.stamp == stamp else None


def _over(request: Request) -> Response:
    return page(request, "password_over.html", status=410)
