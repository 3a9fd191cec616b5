"""Add users of the console, change their role, sign them out, and remove them.

Each change of an owner, or that makes one, is emailed to the other owners.
"""

from collections.abc import Collection
from datetime import datetime

from newsletter.accounts import audit, notifications, sessions, two_factor, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, User
from newsletter.accounts.operator_messages import MessageKind
from newsletter.container import Container
from newsletter.db.orm import Session
from newsletter.operations import account_emails
from newsletter.sending.delivery import outbox


def create(
    session: Session,
    parts: Container,
    email: str,
    *,
    by: Actor,
    now: datetime,
    role: Role,
    name: str = "",
    hashed_password: str = "",
) -> User:
    """Add a user: with this password, or else with an emailed invitation to choose one.

    Raises AddressError if ``email`` is not an address, and AccountError if it is taken or there
    are too many owners.
    """
    user = users.add(
        session,
        email,
        name=name,
        role=role,
        max_owners=parts.settings.console.max_owners,
        now=now,
        hashed=hashed_password,
    )
    if not hashed_password:
        _email_invitation(session, parts, user, by=by, now=now)
    action = "created" if hashed_password else "invited"
    if role is Role.OWNER:
        _tell_owners(session, parts, f"{user.email} was {action} as an owner", by, besides=user)
    audit.record(session, by, f"user {action}", now=now, subject=user.email, role=role)
    return user


def invite_again(
    session: Session, parts: Container, user: User, *, by: Actor, now: datetime
) -> None:
    """Email the invitation once more."""
    _email_invitation(session, parts, user, by=by, now=now)
    audit.record(session, by, "user invited again", now=now, subject=user.email)


def set_password(
    session: Session, parts: Container, user: User, hashed: str, *, by: Actor, now: datetime
) -> None:
    """Give a user another password, and end their sessions."""
    assert user.id is not None
    users.set_password(session, user.id, hashed)
    _tell_of_owner(session, parts, user, "password changed", by)
    audit.record(session, by, "password changed", now=now, subject=user.email)


def change_role(
    session: Session, parts: Container, user: User, role: Role, *, by: Actor, now: datetime
) -> None:
    """Give a user another role, which takes effect at once.

    Raises AccountError if this would leave no owner, or too many.
    """
    assert user.id is not None
    before = users.change_role(session, user.id, role, max_owners=parts.settings.console.max_owners)
    action = f"role changed from {before} to {role}"
    if Role.OWNER in (before, role):
        _tell_owners(session, parts, f"{user.email}: {action}", by)
    audit.record(session, by, action, now=now, subject=user.email)


def choose_notifications(
    session: Session,
    user: User,
    kinds: Collection[MessageKind],
    *,
    digest: bool,
    by: Actor,
    now: datetime,
) -> None:
    """Choose which messages a user gets by email: at once, or with ``digest`` each morning.

    A user's own choice is not in the audit log; that of somebody else is.
    """
    notifications.choose(session, user, kinds, digest=digest)
    if by.user_id != user.id:
        names = ", ".join(kind.value for kind in MessageKind if kind in kinds) or "none"
        when = "each morning" if digest else "at once"
        audit.record(
            session,
            by,
            "notifications changed",
            now=now,
            subject=user.email,
            messages=names,
            when=when,
        )


def end_sessions(session: Session, user: User, *, by: Actor, now: datetime) -> None:
    """Sign a user out everywhere."""
    assert user.id is not None
    sessions.end_all(session, user.id)
    audit.record(session, by, "sessions ended", now=now, subject=user.email)


def reset_two_factor(
    session: Session, parts: Container, user: User, *, by: Actor, now: datetime
) -> None:
    """Remove a user's authenticator app and recovery codes, and end their sessions.

    They set up another app when they sign in. An email tells them, in case they did not ask.
    """
    assert user.id is not None
    two_factor.reset(session, user.id)
    sessions.end_all(session, user.id)
    email = account_emails.changed(parts, "Your authenticator app was removed")
    outbox.enqueue(session, kind="account", email=user.email, mail=email, now=now)
    _tell_of_owner(session, parts, user, "authenticator removed", by)
    audit.record(session, by, "authenticator removed", now=now, subject=user.email)


def remove(session: Session, parts: Container, user: User, *, by: Actor, now: datetime) -> None:
    """Remove a user; the audit log keeps what they did.

    Raises AccountError for the last owner.
    """
    assert user.id is not None
    email, was_owner = user.email, user.role == Role.OWNER
    if was_owner:
        _tell_owners(session, parts, f"{email}: user removed", by, besides=user)
    users.remove(session, user.id)
    audit.record(session, by, "user removed", now=now, subject=email)


def _email_invitation(
    session: Session, parts: Container, user: User, *, by: Actor, now: datetime
) -> None:
    email = account_emails.invitation(parts, user, by=by.name, now=now)
    outbox.enqueue(session, kind="password", email=user.email, mail=email, now=now)


def _tell_of_owner(session: Session, parts: Container, user: User, action: str, by: Actor) -> None:
    if user.role == Role.OWNER:
        _tell_owners(session, parts, f"{user.email}: {action}", by)


def _tell_owners(
    session: Session, parts: Container, change: str, by: Actor, *, besides: User | None = None
) -> None:
    """Email the owners, except who did it and ``besides``."""
    skipped: Collection[int | None] = {by.user_id, besides.id if besides else None}
    ids = {one for one in skipped if one is not None}
    account_emails.tell_owners(session, parts, change, by=by.name, but=ids)
