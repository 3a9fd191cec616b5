"""Sign-in sessions: a random token in the browser and its hash here; each sign-in stage gets a new
one."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, literal, select, update

from newsletter.accounts.models import OperatorMessage, Role, SignInStage, User, UserSession
from newsletter.accounts.operator_messages import COUNTED
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.db.orm import Session, table_of

_user, _session, _message = table_of(User), table_of(UserSession), table_of(OperatorMessage)

#: New messages of a user, counted up to a limit, so that many messages cost no more than a few.
_NEW_MESSAGES = (
    select(func.count())
    .select_from(
        select(literal(1))
        .where(_message.c.id > _user.c.read_up_to)
        .correlate(_user)
        .limit(COUNTED)
        .subquery()
    )
    .scalar_subquery()
)

#: The longest time between the password and the code, or the setup of an app.
_HALFWAY = timedelta(minutes=15)
_TO_THE_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Visitor:
    """The user and state of a session."""

    session_id: int
    user_id: int
    email: str
    name: str
    role: Role
    stage: SignInStage
    seen_at: datetime
    #: Operator messages since the user opened the list of messages, up to COUNTED.
    new_messages: int

    @property
    def called(self) -> str:
        """The name to show."""
        return self.name or self.email


@dataclass(frozen=True, slots=True)
class SessionListEntry:
    """One session in the list of a user's sessions."""

    id: int
    created_at: datetime
    seen_at: datetime
    ip: str
    browser: str


def new_token() -> str:
    """A random token of 256 bits."""
    return secrets.token_urlsafe(32)


def begin(
    session: Session,
    user_id: int,
    stage: SignInStage,
    *,
    lasts: timedelta,
    now: datetime,
    ip: str | None,
    browser: str | None,
    instead_of: str | None = None,
) -> str:
    """Begin a session and end the one with token ``instead_of``; returns the new token."""
    lock_audit_chain(session)
    if instead_of:
        end(session, instead_of)
    token = new_token()
    # Before the second factor, a session lasts only as long as it takes to enter a code.
    lasts = lasts if stage is SignInStage.FULL else min(lasts, _HALFWAY)
    session.add(
        UserSession(
            token=_hashed(token),
            user_id=user_id,
            stage=stage,
            created_at=now,
            seen_at=now,
            expires_at=now + lasts,
            ip=ip or "",
            browser=(browser or "")[:200],
        )
    )
    if stage is not SignInStage.CODE:
        session.execute(update(_user).where(_user.c.id == user_id).values(signed_in_at=now))
    session.flush()
    return token


def find(session: Session, token: str, *, idle: timedelta, now: datetime) -> Visitor | None:
    """The visitor with this token; None when the session has ended."""
    row = session.execute(
        select(
            _session,
            _user.c.email,
            _user.c.name,
            _user.c.role,
            _NEW_MESSAGES.label("new_messages"),
        )
        .join(_user, _user.c.id == _session.c.user_id)
        .where(
            _session.c.token == _hashed(token),
            _session.c.expires_at > now,
            _session.c.seen_at > now - idle,
        )
    ).one_or_none()
    if row is None:
        return None
    return Visitor(
        session_id=row.id,
        user_id=row.user_id,
        email=row.email,
        name=row.name,
        role=Role(row.role),
        stage=SignInStage(row.stage),
        seen_at=row.seen_at,
        new_messages=row.new_messages,
    )


def is_stale(visitor: Visitor, *, now: datetime) -> bool:
    """Whether to update ``seen_at`` with ``touch``: once a minute."""
    return now - visitor.seen_at >= _TO_THE_MINUTE


def touch(session: Session, session_id: int, *, now: datetime) -> None:
    """Record that the session is in use."""
    session.execute(update(_session).where(_session.c.id == session_id).values(seen_at=now))


def listing(
    session: Session, user_id: int, *, idle: timedelta, now: datetime
) -> Sequence[SessionListEntry]:
    """A user's sessions, most recently seen first."""
    rows = session.execute(
        select(_session)
        .where(
            _session.c.user_id == user_id,
            _session.c.stage == SignInStage.FULL,
            _session.c.expires_at > now,
            _session.c.seen_at > now - idle,
        )
        .order_by(_session.c.seen_at.desc(), _session.c.id.desc())
    )
    return [
        SessionListEntry(row.id, row.created_at, row.seen_at, row.ip, row.browser) for row in rows
    ]


def end(session: Session, token: str) -> None:
    """End the session with this token, if there is one."""
    session.execute(delete(_session).where(_session.c.token == _hashed(token)))


def end_one(session: Session, user_id: int, session_id: int) -> None:
    """End one of the user's sessions."""
    own = _session.c.id == session_id, _session.c.user_id == user_id
    session.execute(delete(_session).where(*own))


def end_all(session: Session, user_id: int, *, but: int | None = None) -> None:
    """End a user's sessions, except ``but``."""
    theirs = delete(_session).where(_session.c.user_id == user_id)
    session.execute(theirs if but is None else theirs.where(_session.c.id != but))


def sweep(session: Session, *, now: datetime) -> None:
    """Delete expired sessions."""
    session.execute(delete(_session).where(_session.c.expires_at <= now))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
