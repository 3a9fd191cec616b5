"""The users of the console, for owners: invite, change roles, end sessions, remove."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from newsletter.accounts import notifications, sessions, two_factor, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, User
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import AccountError, UserError
from newsletter.operations import users as user_operations
from newsletter.scheduling.message_texts import LABELS
from newsletter.web.console.accounts.my_account import require_password
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
_Owner = Annotated[Visitor, Depends(role(Role.OWNER))]

_Current = Annotated[str, Form(max_length=1000)]

_HOME = "/console/users"
#: What each role is for, where it is chosen.
ABOUT = {
    Role.VIEWER: "can view everything",
    Role.EDITOR: "can also edit issues, segments and subscribers",
    Role.APPROVER: "can also approve, send, schedule and stop issues",
    Role.OWNER: "can also change the settings, manage users and erase subscribers",
}


@router.api_route(_HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, _visitor: _Owner, done: str = "") -> Response:
    """All users."""
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
    current: _Current = "",
) -> Response:
    """Add a user and email an invitation."""
    try:
        if chosen == Role.OWNER:
            require_password(request, parts, visitor, current)
        with transaction(parts.database) as session:
            user_operations.create(
                session,
                parts,
                email,
                by=actor(request, visitor),
                now=datetime.now(UTC),
                role=_role(chosen),
                name=name,
            )
    except UserError as error:
        form = {"email": email[:320], "name": name[:200], "role": chosen}
        return _list(request, parts, problem=error, form=form)
    return go(f"{_HOME}?done=invited")


@router.api_route(f"{_HOME}/{{user_id:int}}", methods=["GET", "HEAD"])
def show(
    user_id: int, request: Request, parts: Parts, _visitor: _Owner, done: str = ""
) -> Response:
    """One user."""
    return _show(request, parts, user_id, done=done)


@router.post(f"{_HOME}/{{user_id:int}}/role")
def change_role(
    user_id: int,
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    chosen: Annotated[str, Form(alias="role")] = "",
    current: _Current = "",
) -> Response:
    """Change the role, from the user's next request on."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        user_operations.change_role(session, parts, user, _role(chosen), by=by, now=now)

    return _change(
        request,
        parts,
        visitor,
        user_id,
        change=change,
        done="role",
        current=current,
        makes_owner=chosen == Role.OWNER,
    )


@router.post(f"{_HOME}/{{user_id:int}}/notifications")
def choose_notifications(
    user_id: int,
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    kinds: Annotated[list[str] | None, Form()] = None,
    when: Annotated[str, Form()] = "",
) -> Response:
    """Choose which messages the user gets by email, and when."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        chosen = notifications.parse_kinds(kinds or [])
        user_operations.choose_notifications(
            session, user, chosen, digest=when == "daily", by=by, now=now
        )

    return _change(request, parts, visitor, user_id, change=change, done="notifications")


@router.post(f"{_HOME}/{{user_id:int}}/sessions/end")
def end_sessions(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Sign a user out everywhere."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        user_operations.end_sessions(session, user, by=by, now=now)

    return _change(request, parts, visitor, user_id, change=change, done="sessions")


@router.post(f"{_HOME}/{{user_id:int}}/factor/reset")
def reset_factor(
    user_id: int, request: Request, parts: Parts, visitor: _Owner, current: _Current = ""
) -> Response:
    """Remove a lost authenticator app; the user sets up another when they sign in."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        user_operations.reset_two_factor(session, parts, user, by=by, now=now)

    return _change(request, parts, visitor, user_id, change=change, done="factor", current=current)


@router.post(f"{_HOME}/{{user_id:int}}/invite")
def invite_again(user_id: int, request: Request, parts: Parts, visitor: _Owner) -> Response:
    """Email the invitation once more."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        user_operations.invite_again(session, parts, user, by=by, now=now)

    return _change(request, parts, visitor, user_id, change=change, done="invited")


@router.post(f"{_HOME}/{{user_id:int}}/remove")
def remove(
    user_id: int, request: Request, parts: Parts, visitor: _Owner, current: _Current = ""
) -> Response:
    """Remove a user."""

    def change(session: Session, user: User, by: Actor, now: datetime) -> None:
        user_operations.remove(session, parts, user, by=by, now=now)

    answer = _change(request, parts, visitor, user_id, change=change, done="", current=current)
    return go(f"{_HOME}?done=removed") if answer.status_code == 303 else answer


def _change(
    request: Request,
    parts: Container,
    visitor: Visitor,
    user_id: int,
    *,
    change: Callable[[Session, User, Actor, datetime], None],
    done: str,
    current: str | None = None,
    makes_owner: bool = False,
) -> Response:
    """Run one operation on a user, and show the user.

    ``current`` is the visitor's password for operations that need it if the user is an owner; None
    for the others.
    """
    try:
        with reading(parts.database) as session:
            of_owner = makes_owner or _find(session, user_id).role == Role.OWNER
        needs_password = of_owner and current is not None
        if needs_password:
            require_password(request, parts, visitor, current or "")
        with transaction(parts.database) as session:
            user = _find(session, user_id)
            if current is not None and not needs_password:
                _still_no_owner(user)
            change(session, user, actor(request, visitor), datetime.now(UTC))
    except AccountError as error:
        return _show(request, parts, user_id, problem=error)
    return go(f"{_HOME}/{user_id}?done={done}")


def _still_no_owner(user: User) -> None:
    """Raise AccountError if the user became an owner after the check for the password."""
    if user.role == Role.OWNER:
        raise AccountError("this user is now an owner", hint="Reload the page.")


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
    parts: Container,
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
    parts: Container,
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
            has_factor=two_factor.has(session, user.id),
            notifications=notifications.of_user(user),
            labels=LABELS,
            about=ABOUT,
            done=done,
            problem=problem,
        )
