"""Sessions: an opaque random token in the browser, its hash here; a new one with each step."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from newsletter.accounts.models import Role, SignInStage, User, UserSession
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.db.orm import Session, table_of

_user, _session = table_of(User), table_of(UserSession)

#: Between the password and the code, or an app that is set up.
_HALFWAY = timedelta(minutes=15)
_TO_THE_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose session this is."""

    session_id: int
    user_id: int
    email: str
    name: str
    role: Role
    stage: SignInStage
    seen_at: datetime

    @property
    def called(self) -> str:
        """What to show."""
        return self.name or self.email


@dataclass(frozen=True, slots=True)
class SessionListEntry:
    """One session in the list of a person's."""

    id: int
    created_at: datetime
    seen_at: datetime
    ip: str
    browser: str


def new_token() -> str:
    """256 bits that nobody guesses."""
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
    """A new session; returns its token. The one that the browser had ends."""
    lock_audit_chain(session)
    if instead_of:
        end(session, instead_of)
    token = new_token()
    # Not longer than it takes to type a code, while it is worth a password only.
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
    """Whose token this is, if its session goes on."""
    row = session.execute(
        select(_session, _user.c.email, _user.c.name, _user.c.role)
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
    )


def is_stale(visitor: Visitor, *, now: datetime) -> bool:
    """Whether it is time to write down that they are still there."""
    return now - visitor.seen_at >= _TO_THE_MINUTE


def touch(session: Session, session_id: int, *, now: datetime) -> None:
    """They are still there."""
    session.execute(update(_session).where(_session.c.id == session_id).values(seen_at=now))


def listing(
    session: Session, user_id: int, *, idle: timedelta, now: datetime
) -> Sequence[SessionListEntry]:
    """Where a person is signed in, the last seen first."""
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
    """End one of a person's own sessions."""
    own = _session.c.id == session_id, _session.c.user_id == user_id
    session.execute(delete(_session).where(*own))


def end_all(session: Session, user_id: int, *, but: int | None = None) -> None:
    """End a person's sessions, but one if it is named."""
    theirs = delete(_session).where(_session.c.user_id == user_id)
    session.execute(theirs if but is None else theirs.where(_session.c.id != but))


def sweep(session: Session, *, now: datetime) -> None:
    """Forget the sessions that ended by themselves."""
    session.execute(delete(_session).where(_session.c.expires_at <= now))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
