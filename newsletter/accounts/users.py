"""Users of the console. There is always at least one owner, and at most max_owners."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update

from newsletter.accounts import sessions
from newsletter.accounts.models import Factor, OperatorMessage, Role, User, UserSession
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import AccountError, AddressError
from subscribers.email_address import parse

_user, _session, _factor = table_of(User), table_of(UserSession), table_of(Factor)
_message = table_of(OperatorMessage)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The data to verify a password. ``stamp`` changes with each new password."""

    user_id: int
    email: str
    hashed: str
    stamp: int


@dataclass(frozen=True, slots=True)
class UserListEntry:
    """One user in the list of users."""

    id: int
    email: str
    name: str
    role: Role
    #: Whether the user has chosen a password.
    joined: bool
    has_factor: bool
    sessions: int
    signed_in_at: datetime | None


def add(
    session: Session,
    email: str,
    *,
    name: str,
    role: Role,
    max_owners: int,
    now: datetime,
    hashed: str = "",
) -> User:
    """Add a user, without a password unless its hash is given.

    Raises AccountError when the address is taken, or for too many owners.
    """
    address = parse(email)
    lock_audit_chain(session)
    if session.scalar(select(_user.c.id).where(_user.c.identity == address.identity)) is not None:
        raise AccountError("another user has this address already", place=address.email)
    _keep_owners(session, None, role, max_owners)
    user = User(
        email=address.email,
        identity=address.identity,
        name=_line(name),
        role=role,
        password=hashed,
        stamp=_stamp(),
        created_at=now,
        # Older messages are no news to a new user.
        read_up_to=session.scalar(select(func.max(_message.c.id))) or 0,
    )
    session.add(user)
    session.flush()
    return user


def find(session: Session, user_id: int) -> User:
    """The user with this id; AccountError when there is none."""
    user = session.get(User, user_id)
    if user is None:
        raise AccountError("there is no such user")
    return user


def exist(session: Session) -> bool:
    """Whether there is any user."""
    return session.scalar(select(_user.c.id).limit(1)) is not None


def by_email(session: Session, email: str) -> User:
    """The user with this email address; AccountError when there is none."""
    found = session.scalar(select(User).where(_user.c.identity == identity_of(email)))
    if found is None:
        raise AccountError("there is no such user", place=email)
    return found


def credentials(session: Session, email: str) -> Credentials | None:
    """The credentials of the user with this email address; None when there is none."""
    row = session.execute(select(_user).where(_user.c.identity == identity_of(email))).one_or_none()
    return Credentials(row.id, row.email, row.password, row.stamp) if row else None


def identity_of(email: str) -> str:
    """The normalized form of an address; empty, which no user has, for an invalid address."""
    try:
        return parse(email[:320]).identity
    except AddressError:
        return ""


def listing(session: Session, *, now: datetime) -> Sequence[UserListEntry]:
    """All users, owners first."""
    live = (
        select(func.count())
        .where(_session.c.user_id == _user.c.id, _session.c.expires_at > now)
        .scalar_subquery()
    )
    rows = session.execute(
        select(_user, func.coalesce(_factor.c.secret, "").label("secret"), live.label("live"))
        .outerjoin(_factor, _factor.c.user_id == _user.c.id)
        .order_by(_user.c.identity)
    )
    people = [
        UserListEntry(
            id=row.id,
            email=row.email,
            name=row.name,
            role=Role(row.role),
            joined=bool(row.password),
            has_factor=bool(row.secret),
            sessions=row.live,
            signed_in_at=row.signed_in_at,
        )
        for row in rows
    ]
    return sorted(people, key=lambda one: list(Role).index(one.role), reverse=True)


def owners(session: Session, *, but: Collection[int] = ()) -> Sequence[str]:
    """Email addresses of the owners who have a password, except those with ids in ``but``."""
    return session.scalars(
        select(_user.c.email)
        .where(_user.c.role == Role.OWNER, _user.c.password != "", _user.c.id.not_in(list(but)))
        .order_by(_user.c.identity)
    ).all()


def set_password(
    session: Session, user_id: int, hashed: str, *, keep_session: int | None = None
) -> None:
    """Set a new password. This ends the user's other sessions and invalidates reset links."""
    lock_audit_chain(session)
    values = {"password": hashed, "stamp": _stamp()}
    if not changed(session, update(_user).where(_user.c.id == user_id).values(values)):
        raise AccountError("there is no such user")
    sessions.end_all(session, user_id, but=keep_session)


def set_password_by_link(session: Session, user_id: int, stamp: int, hashed: str) -> bool:
    """Set a new password by a reset link, which works once; False when its stamp is outdated."""
    lock_audit_chain(session)
    values = {"password": hashed, "stamp": _stamp()}
    same = _user.c.id == user_id, _user.c.stamp == stamp
    if not changed(session, update(_user).where(*same).values(values)):
        return False
    sessions.end_all(session, user_id)
    return True


def rehash(session: Session, known: Credentials, hashed: str) -> None:
    """Store the hash of the same password with the current parameters."""
    same = _user.c.id == known.user_id, _user.c.stamp == known.stamp
    session.execute(update(_user).where(*same).values(password=hashed))


def still(session: Session, known: Credentials) -> bool:
    """Whether the password did not change since ``known`` was read."""
    lock_audit_chain(session)
    stamp = session.scalar(select(_user.c.stamp).where(_user.c.id == known.user_id))
    return stamp == known.stamp


def rename(session: Session, user_id: int, name: str) -> None:
    """Change a user's display name."""
    session.execute(update(_user).where(_user.c.id == user_id).values(name=_line(name)))


def change_role(session: Session, user_id: int, role: Role, *, max_owners: int) -> Role:
    """Change a user's role, immediately in all sessions; returns the previous role."""
    lock_audit_chain(session)
    before = _role(session, user_id)
    _keep_owners(session, user_id, role, max_owners)
    session.execute(update(_user).where(_user.c.id == user_id).values(role=role))
    return before


def remove(session: Session, user_id: int) -> None:
    """Delete a user with their sessions and second factor. The audit log stays."""
    lock_audit_chain(session)
    _role(session, user_id)
    _keep_owners(session, user_id, None, max_owners=None)
    session.execute(delete(_user).where(_user.c.id == user_id))


def _role(session: Session, user_id: int) -> Role:
    found = session.scalar(select(_user.c.role).where(_user.c.id == user_id))
    if found is None:
        raise AccountError("there is no such user")
    return Role(found)


def _keep_owners(
    session: Session, user_id: int | None, role: Role | None, max_owners: int | None
) -> None:
    """Raise AccountError for a change that leaves no owner, or too many.

    The caller has to hold ``lock_audit_chain``, or two concurrent changes could pass.
    """
    owners = set(session.scalars(select(_user.c.id).where(_user.c.role == Role.OWNER)))
    if role is Role.OWNER:
        if max_owners is not None and user_id not in owners and len(owners) >= max_owners:
            raise AccountError(
                f"there are {len(owners)} owners, and no more than {max_owners} may be",
                hint="Give one of them another role first, or change console.max_owners.",
            )
    elif owners == {user_id}:
        raise AccountError("this is the last owner", hint="Make another user an owner first.")


def _stamp() -> int:
    return secrets.randbits(62)


def _line(text: str) -> str:
    """One line without control characters."""
    return "".join(c for c in text if c.isprintable()).strip()[:200]
