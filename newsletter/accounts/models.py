"""Tables of the people who operate the service: who they are, where they sit, what they did.

Passwords, tokens and recovery codes are kept as hashes; the secret of an app cannot be.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, text

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of

#: SHA-256 of a random token: there is nothing to guess, so nothing to slow down.
TokenHash = LargeBinary(32)


class Role(StrEnum):
    """What somebody may do; each role may do what those above it in this list may."""

    #: Looks at everything that holds no secret.
    VIEWER = "viewer"
    #: Writes issues, segments and schedules.
    EDITOR = "editor"
    #: Lets issues go out, and stops them.
    APPROVER = "approver"
    #: Decides who may do what.
    OWNER = "owner"

    def covers(self, least: "Role") -> bool:
        """Whether this role may do what asks for at least the other."""
        order = list(Role)
        return order.index(self) >= order.index(least)


class SignInStage(StrEnum):
    """How far a session has come."""

    #: The password was right; a code is still missing.
    CODE = "code"
    #: Nothing is missing, but a second factor has to be set up first.
    ENROL = "enrol"
    #: Signed in.
    FULL = "full"


class User(Model, table=True):
    """A person who works with the console."""

    __tablename__ = "console_user"
    __table_args__ = (one_of("role", Role), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: As it was written; mailed.
    email: str = Field(max_length=320)
    #: What two spellings of an address share.
    identity: str = Field(max_length=320, unique=True)
    name: str = Field(default="", max_length=200)
    role: str = Field(max_length=10)
    #: Argon2id, with its parameters; empty until the invited person has chosen one.
    password: str = Field(default="", max_length=200)
    #: Drawn anew with each password: links that were made for an older one open nothing.
    stamp: int = Field(sa_type=BigInteger)
    created_at: datetime
    signed_in_at: datetime | None = None


class UserSession(Model, table=True):
    """One browser in which somebody is signed in, wholly or half."""

    __tablename__ = "console_session"
    __table_args__ = (one_of("stage", SignInStage),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    token: bytes = Field(sa_type=TokenHash, unique=True)
    user_id: int = Field(sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE", index=True)
    stage: str = Field(max_length=10)
    created_at: datetime
    #: To the minute: not every look at a page is a write.
    seen_at: datetime
    expires_at: datetime = Field(index=True)
    ip: str = Field(default="", max_length=45)
    browser: str = Field(default="", max_length=200)


class Factor(Model, table=True):
    """A person's authenticator app (TOTP, RFC 6238)."""

    __tablename__ = "console_factor"

    user_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE"
    )
    #: In force when not empty.
    secret: str = Field(default="", max_length=64)
    #: Shown as a picture and not proved yet.
    pending: str = Field(default="", max_length=64)
    #: The time step whose code was used last: it and those before it are used up.
    last_step: int = Field(default=0, sa_type=BigInteger)
    since: datetime | None = None


class RecoveryCode(Model, table=True):
    """A code that stands in for a lost authenticator, once."""

    __tablename__ = "console_recovery_code"

    user_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="console_user.id", ondelete="CASCADE"
    )
    code: bytes = Field(primary_key=True, sa_type=TokenHash)
    used_at: datetime | None = None


class AuditEntry(Model, table=True):
    """Who did what, and when. The database refuses to change or delete these rows."""

    __tablename__ = "audit_entry"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    at: datetime = Field(index=True)
    #: Not a foreign key: the entry outlives the person.
    actor_id: int | None = Field(default=None, sa_type=Id)
    actor: str = Field(max_length=320)
    ip: str = Field(default="", max_length=45)
    action: str = Field(max_length=60)
    subject: str = Field(default="", max_length=320)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: SHA-256 over the entry before this one and what this one says.
    chain: bytes = Field(sa_type=TokenHash)


class OperatorMessage(Model, table=True):
    """Something that owners and approvers have to be told, by email, once."""

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
    #: A send's number, an issue's slug, a schedule's number.
    subject: str = Field(max_length=200)
    #: Why, in the words of whoever wrote it.
    detail: str = Field(default="", max_length=2000)
    created_at: datetime
    emailed_at: datetime | None = None
