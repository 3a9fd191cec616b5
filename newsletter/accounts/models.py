"""Database tables of users: accounts, sessions, second factors, audit log, operator messages.

Passwords, tokens and recovery codes are stored as hashes; the secret of an app cannot be.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, text

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of

#: SHA-256 of a random token. A slow hash is not needed, because random tokens cannot be guessed.
TokenHash = LargeBinary(32)


class Role(StrEnum):
    """The roles of users. Each has the permissions of those above it in this list."""

    #: Reads everything except secrets.
    VIEWER = "viewer"
    #: Writes issues, segments and schedules.
    EDITOR = "editor"
    #: Approves issues, starts sends and stops them.
    APPROVER = "approver"
    #: Manages users and their roles.
    OWNER = "owner"

    def covers(self, least: "Role") -> bool:
        """Whether this role has at least the permissions of ``least``."""
        order = list(Role)
        return order.index(self) >= order.index(least)


class SignInStage(StrEnum):
    """The stage of a sign-in session."""

    #: The password was right; a code is still missing.
    CODE = "code"
    #: The password was right; a second factor has to be set up first.
    ENROL = "enrol"
    #: Signed in.
    FULL = "full"


class User(Model, table=True):
    """A user of the console."""

    __tablename__ = "console_user"
    __table_args__ = (one_of("role", Role), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: The email address as it was written; emails go there.
    email: str = Field(max_length=320)
    #: The normalized address.
    identity: str = Field(max_length=320, unique=True)
    name: str = Field(default="", max_length=200)
    role: str = Field(max_length=10)
    #: Argon2id hash with its parameters; empty until the invited user has chosen a password.
    password: str = Field(default="", max_length=200)
    #: A random number that changes with each password, which invalidates older reset links.
    stamp: int = Field(sa_type=BigInteger)
    created_at: datetime
    signed_in_at: datetime | None = None
    #: The last operator message that was there when the user opened the list of messages.
    read_up_to: int = Field(default=0, sa_type=Id)
    #: The kinds of operator messages that the user gets by email; None for those of the role.
    notify: list[str] | None = Field(default=None, sa_type=Json)
    #: Whether these come in one email each morning, and the day of the last one.
    digest: bool = False
    digest_on: str = Field(default="", max_length=10)


class UserSession(Model, table=True):
    """A session of a user in one browser, in any stage of sign-in."""

    __tablename__ = "console_session"
    __table_args__ = (one_of("stage", SignInStage),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    token: bytes = Field(sa_type=TokenHash, unique=True)
    user_id: int = Field(sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE", index=True)
    stage: str = Field(max_length=10)
    created_at: datetime
    #: Updated once a minute, so that not every page view is a write.
    seen_at: datetime
    expires_at: datetime = Field(index=True)
    ip: str = Field(default="", max_length=45)
    browser: str = Field(default="", max_length=200)


class Factor(Model, table=True):
    """A user's authenticator app (TOTP, RFC 6238)."""

    __tablename__ = "console_factor"

    user_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE"
    )
    #: The active secret; empty when the app is not set up.
    secret: str = Field(default="", max_length=64)
    #: The secret that was shown but not proved yet.
    pending: str = Field(default="", max_length=64)
    #: The time step of the last used code; this and earlier steps are no longer valid.
    last_step: int = Field(default=0, sa_type=BigInteger)
    since: datetime | None = None


class RecoveryCode(Model, table=True):
    """A code that replaces a lost authenticator once."""

    __tablename__ = "console_recovery_code"

    user_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE"
    )
    code: bytes = Field(primary_key=True, sa_type=TokenHash)
    used_at: datetime | None = None


class AuditEntry(Model, table=True):
    """An entry of the audit log. The database refuses to change or delete these rows."""

    __tablename__ = "audit_entry"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    at: datetime = Field(index=True)
    #: Not a foreign key, because entries stay when a user is deleted.
    actor_id: int | None = Field(default=None, sa_type=Id)
    actor: str = Field(max_length=320)
    ip: str = Field(default="", max_length=45)
    action: str = Field(max_length=60)
    subject: str = Field(default="", max_length=320)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: SHA-256 of the previous entry's hash and this entry's values.
    chain: bytes = Field(sa_type=TokenHash)


class OperatorMessage(Model, table=True):
    """A message to operators, emailed once."""

    __tablename__ = "operator_message"
    __table_args__ = (
        Index(
            "ix_operator_message_waiting",
            "id",
            sqlite_where=text("emailed_at IS NULL"),
            postgresql_where=text("emailed_at IS NULL"),
        ),
    )

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: One for each kind, subject and occasion.
    key: str = Field(max_length=200, unique=True)
    kind: str = Field(max_length=30)
    #: The id of a send or schedule, or the slug of an issue.
    subject: str = Field(max_length=200)
    #: The reason, as its author wrote it.
    detail: str = Field(default="", max_length=2000)
    created_at: datetime
    emailed_at: datetime | None = None


class DigestEntry(Model, table=True):
    """A message that waits for a user's next morning email."""

    __tablename__ = "digest_entry"

    user_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE"
    )
    message_id: int = Field(
        primary_key=True,
        sa_type=Id,
        foreign_key="operator_message.id",
        ondelete="CASCADE",
        index=True,
    )
    queued_at: datetime
