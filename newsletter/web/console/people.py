"""The users of the console, for owners: invite, change roles, end sessions, remove."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts import audit, factors, sessions, users
from newsletter.accounts.models import Role, User
from newsletter.accounts.sessions import Visitor
from newsletter.assembly import Assembly
from newsletter.database import reading, transaction
from newsletter.errors import AccountError, UserError
from newsletter.sending import notices
from newsletter.web.console import mails
from newsletter.web.console.access import role
from newsletter.web.console.shell import actor, go, page
from newsletter.web.dependencies import Parts
from subscribers.schema import Session

router = APIRouter()
_Owner = Annotated[Visitor, Depends(role(Role.OWNER))]

_HOME = "/console/users"
#: What each role is for, where it is chosen.
ABOUT = {
    Role.VIEWER: "looks at everything",
    Role.EDITOR: "writes issues, segments and schedules, looks after people",
    Role.APPROVER: "lets issues go out, and stops them",
    Role.OWNER: "decides who may do what, erases people",
}


@router.api_route(_HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, _visitor: _Owner, done: str = "") -> Response:
    """Everybody."""
    return _list(request, parts, done=done)


@router.post(_HOME)
def invite(
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    chosen: Annotated[str, Form(alias="role")] = "",
) -> Response:
    """Add somebody and mail them the way in."""
    now = datetime.now(UTC)
    try:
        with transaction(parts.database) as session:
            user = users.add(
                session,
                email,
                name=name,
                role=_role(chosen),
                max_owners=parts.settings.console.max_owners,
                now=now,
            )
            _invite(session, parts, visitor, user, now)
            who = actor(request, visitor)
            audit.record(session, who, "user invited", now=now, subject=user.email, role=user.role)
    except UserError as error:
        form = {"email": email[:320], "name": name[:200], "role": chosen}
        return _list(request, parts, problem=error, form=form)
    return go(f"{_HOME}?done=invited")


@router.api_route(f"{_HOME}/{{user_id:int}}", methods=["GET", "HEAD"])
def show(
    user_id: int, request: Request, parts: Parts, _visitor: _Owner, done: str = ""
) -> Response:
    """One person."""
    return _show(request, parts, user_id, done=done)


@router.post(f"{_HOME}/{{user_id:int}}/role")
def change_role(
    user_id: int,
    request: Request,
    parts: Parts,
    visitor: _Owner,
    chosen: Annotated[str, Form(alias="role")] = "",
) -> Response:
    """Another role, in force with their next click."""

    def change(session: Session, user: User) -> str:
        before = users.change_role(
            session, user.id, _role(chosen), max_owners=parts.settings.console.max_owners
        )
        return f"role changed from {before} to {chosen}"

    return _change(request, parts, visitor, user_id, change=change, done="role")


@router.post(f"{_HOME}/{{user_id:int}}/sessions/end")
def end_sessions(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Sign somebody out everywhere."""

    def change(session: Session, user: User) -> str:
        sessions.end_all(session, user.id)
        return "sessions ended"

    return _change(request, parts, visitor, user_id, change=change, done="sessions")


@router.post(f"{_HOME}/{{user_id:int}}/factor/reset")
def reset_factor(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Take away an app that was lost; the person sets up another when they sign in."""

    def change(session: Session, user: User) -> str:
        factors.reset(session, user.id)
        sessions.end_all(session, user.id)
        mail = mails.changed(parts, "Your authenticator app was removed by an owner")
        now = datetime.now(UTC)
        notices.enqueue(session, kind="account", email=user.email, mail=mail, now=now)
        return "authenticator removed"

    return _change(request, parts, visitor, user_id, change=change, done="factor")


@router.post(f"{_HOME}/{{user_id:int}}/invite")
def invite_again(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Send the way to a password once more."""

    def change(session: Session, user: User) -> str:
        _invite(session, parts, visitor, user, datetime.now(UTC))
        return "invited again"

    return _change(request, parts, visitor, user_id, change=change, done="invited")


@router.post(f"{_HOME}/{{user_id:int}}/remove")
def remove(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Take somebody out."""

    def change(session: Session, user: User) -> str:
        users.remove(session, user.id)
        return "user removed"

    answer = _change(request, parts, visitor, user_id, change=change, done="")
    return go(f"{_HOME}?done=removed") if answer.status_code == 303 else answer


def _change(
    request: Request,
    parts: Assembly,
    visitor: Visitor,
    user_id: int,
    *,
    change: Callable[[Session, User], str],
    done: str,
) -> Response:
    """One change and its entry in the log, or neither."""
    try:
        with transaction(parts.database) as session:
            user = _find(session, user_id)
            email = user.email
            what = change(session, user)
            who = actor(request, visitor)
            audit.record(session, who, what, now=datetime.now(UTC), subject=email)
    except AccountError as error:
        return _show(request, parts, user_id, problem=error)
    return go(f"{_HOME}/{user_id}?done={done}")


def _invite(session: Session, parts: Assembly, visitor: Visitor, user: User, now: datetime) -> None:
    mail = mails.invitation(parts, user, by=visitor.called, now=now)
    notices.enqueue(session, kind="password", email=user.email, mail=mail, now=now)


def _find(session: Session, user_id: int) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise HTTPException(404)
    return user


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise AccountError("choose a role", place="role") from None


def _list(
    request: Request,
    parts: Assembly,
    *,
    done: str = "",
    problem: UserError | None = None,
    form: dict[str, str] | None = None,
) -> Response:
    with reading(parts.database) as session:
        people = users.listing(session, now=datetime.now(UTC))
    return page(
        request,
        "users.html",
        status=400 if problem else 200,
        people=people,
        about=ABOUT,
        max_owners=parts.settings.console.max_owners,
        done=done,
        problem=problem,
        form=form or {},
    )


def _show(
    request: Request,
    parts: Assembly,
    user_id: int,
    *,
    done: str = "",
    problem: AccountError | None = None,
) -> Response:
    now, idle = datetime.now(UTC), parts.settings.console.idle_time
    with reading(parts.database) as session:
        user = _find(session, user_id)
        return page(
            request,
            "user.html",
            status=400 if problem else 200,
            user=user,
            sessions=sessions.listing(session, user.id, idle=idle, now=now),
            has_factor=factors.has(session, user.id),
            about=ABOUT,
            done=done,
            problem=problem,
        )
