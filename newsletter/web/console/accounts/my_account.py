"""The user's own account: name, password, sessions."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts import (
    audit,
    notifications,
    passwords,
    sessions,
    sign_in_throttle,
    two_factor,
    users,
)
from newsletter.accounts.models import Role, SignInStage, User
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import AccountError
from newsletter.operations import account_emails
from newsletter.operations import users as user_operations
from newsletter.scheduling.message_texts import LABELS
from newsletter.sending.delivery import outbox
from newsletter.web.console.base import session_cookie
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts
from newsletter.web.visitor import browser, network_address

router = APIRouter()
Anyone = Annotated[Visitor, Depends(role(Role.VIEWER))]

_HOME = "/console/account"


@router.api_route(_HOME, methods=["GET", "HEAD"])
def show(request: Request, parts: Parts, visitor: Anyone, done: str = "") -> Response:
    """The page of the account."""
    return show_account(request, parts, visitor, done=done)


def show_account(
    request: Request,
    parts: Container,
    visitor: Visitor,
    *,
    problem: AccountError | None = None,
    at: str = "",
    done: str = "",
) -> Response:
    """The page, with ``problem`` beside the form ``at``."""
    now, idle = datetime.now(UTC), parts.settings.console.idle_time
    with reading(parts.database) as session:
        return page(
            request,
            "account.html",
            status=400 if problem else 200,
            sessions=sessions.listing(session, visitor.user_id, idle=idle, now=now),
            factor_since=two_factor.since(session, visitor.user_id),
            codes_left=two_factor.recovery_codes_left(session, visitor.user_id),
            factor_required=parts.settings.console.require_second_factor,
            notifications=notifications.of_user(users.find(session, visitor.user_id)),
            labels=LABELS,
            problem=problem,
            at=at,
            done=done,
        )


@router.post(f"{_HOME}/name")
def change_name(parts: Parts, visitor: Anyone, name: Annotated[str, Form()] = "") -> Response:
    """Change the name that is shown."""
    with transaction(parts.database) as session:
        users.rename(session, visitor.user_id, name)
    return go(f"{_HOME}?done=name")


@router.post(f"{_HOME}/notifications")
def choose_notifications(
    request: Request,
    parts: Parts,
    visitor: Anyone,
    kinds: Annotated[list[str] | None, Form()] = None,
    when: Annotated[str, Form()] = "",
) -> Response:
    """Choose which messages come by email, and when."""
    try:
        with transaction(parts.database) as session:
            user_operations.choose_notifications(
                session,
                users.find(session, visitor.user_id),
                notifications.parse_kinds(kinds or []),
                digest=when == "daily",
                by=actor(request, visitor),
                now=datetime.now(UTC),
            )
    except AccountError as error:
        return show_account(request, parts, visitor, problem=error, at="notifications")
    return go(f"{_HOME}?done=notifications")


@router.post(f"{_HOME}/password")
def change_password(
    request: Request,
    parts: Parts,
    visitor: Anyone,
    *,
    current: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Change the password, end all sessions, and begin a new one for this browser."""
    try:
        require_password(request, parts, visitor, current)
        passwords.check(password, email=visitor.email, again=again)
    except AccountError as error:
        return show_account(request, parts, visitor, problem=error, at="password")
    hashed = parts.passwords.hashed(password)
    with transaction(parts.database) as session:
        users.set_password(session, visitor.user_id, hashed)
        token = renew(session, request, parts, visitor)
        email_user(session, parts, visitor.email, "Your password was changed")
        audit.record(session, actor(request, visitor), "password changed", now=datetime.now(UTC))
    answer = go(f"{_HOME}?done=password")
    session_cookie.set_token(answer, token, parts.settings.site.base_url)
    return answer


@router.post(f"{_HOME}/sessions/{{session_id:int}}/end")
def end_session(session_id: int, request: Request, parts: Parts, visitor: Anyone) -> Response:
    """End one of the user's own sessions."""
    with transaction(parts.database) as session:
        sessions.end_one(session, visitor.user_id, session_id)
        who = actor(request, visitor)
        audit.record(session, who, "session ended", now=datetime.now(UTC))
    return go(f"{_HOME}?done=session")


@router.post(f"{_HOME}/sessions/end-others")
def end_others(request: Request, parts: Parts, visitor: Anyone) -> Response:
    """End all of the user's sessions except this one."""
    with transaction(parts.database) as session:
        sessions.end_all(session, visitor.user_id, but=visitor.session_id)
        who = actor(request, visitor)
        audit.record(session, who, "other sessions ended", now=datetime.now(UTC))
    return go(f"{_HOME}?done=session")


def require_password(request: Request, parts: Container, visitor: Visitor, given: str) -> None:
    """Raise AccountError unless this is the visitor's password."""
    with transaction(parts.database) as session:
        console = parts.settings.console
        may = sign_in_throttle.may_try(
            session,
            parts.address_key,
            account=users.identity_of(visitor.email),
            network=network_address(request) or "",
            per_account=console.per_account,
            per_network=console.per_network,
            now=datetime.now(UTC),
        )
    if not may:
        raise AccountError("too many attempts", hint="Try again in 15 minutes.")
    with reading(parts.database) as session:
        user = session.get(User, visitor.user_id)
        hashed = user.password if user else ""
    if not parts.passwords.fits(hashed, given):
        raise AccountError("wrong current password")


def renew(session: Session, request: Request, parts: Container, visitor: Visitor) -> str:
    """Replace the browser's session by a new one; returns its token."""
    return sessions.begin(
        session,
        visitor.user_id,
        SignInStage.FULL,
        lasts=parts.settings.console.absolute_time,
        now=datetime.now(UTC),
        ip=network_address(request),
        browser=browser(request),
        instead_of=session_cookie.token_in(request, parts.settings.site.base_url),
    )


def email_user(session: Session, parts: Container, email: str, what: str) -> None:
    """Email the user about a change of their account."""
    mail, now = account_emails.changed(parts, what), datetime.now(UTC)
    outbox.enqueue(session, kind="account", email=email, mail=mail, now=now)
