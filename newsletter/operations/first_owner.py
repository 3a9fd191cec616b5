"""Makes the first user, an owner, by a link that `newsletter serve` prints.

The link is signed and expires, and nothing of it is stored: it works while there is no user, so
only once. The form behind it also asks for the publication's name, postal address and sender.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from newsletter.accounts import passwords, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, User
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.container import Container
from newsletter.db.dialect import lock
from newsletter.db.orm import Session, table_of
from newsletter.errors import AccountError, AddressError, LinkError, UserError
from newsletter.links import Purpose
from newsletter.operations import account_emails
from newsletter.operations import settings as setting_operations
from newsletter.operations import users as user_operations
from newsletter.operations.settings import SettingsChangeError
from newsletter.sending.delivery import outbox
from newsletter.sending.models import OutboxEmail
from newsletter.settings import publication
from subscribers.email_address import parse

_WITHIN: Final = timedelta(hours=1)
#: After this time every process uses changed settings, so the first email has the new sender.
_UNTIL_USED: Final = timedelta(seconds=2)
#: The kind of the first email in the outbox, by which pages find it.
_KIND: Final = "welcome"
#: The settings that the form asks for.
KEYS: Final = ("site.name", "site.postal_address", "sender.name", "sender.email")

_outbox = table_of(OutboxEmail)


@dataclass(frozen=True, slots=True)
class FirstVisit:
    """What was typed on the first visit."""

    email: str
    name: str
    password: str
    #: The password once more.
    again: str
    #: The settings by their keys, without those that a file or the environment sets.
    settings: Mapping[str, str]
    #: The latest change of a setting that the form was made from.
    version: int


class FirstVisitError(UserError):
    """Nothing was made, because of these fields: of the account, by name, or settings, by key."""

    def __init__(
        self, problems: Mapping[str, UserError], settings: SettingsChangeError | None
    ) -> None:
        first = next(iter(problems.values()), settings)
        assert first is not None
        super().__init__(first.message, place=first.place, hint=first.hint)
        self.problems, self.settings = problems, settings


@dataclass(frozen=True, slots=True)
class Greeting:
    """The email to the first owner, and what is known of it."""

    email: str
    #: A state of newsletter.sending.states.BatchState.
    state: str
    #: Why the provider did not accept it, so far.
    detail: str
    #: The strongest event about it; empty for none.
    outcome: str
    outcome_reason: str


def link(session: Session, parts: Container, *, now: datetime) -> str | None:
    """The link; None once there is a user."""
    if users.exist(session):
        return None
    token = parts.links.token(Purpose.SETUP, 0, expires=now + _WITHIN)
    return f"{parts.publication.base_url}/console/setup/{token}"


def require_open(session: Session, parts: Container, token: str, *, now: datetime) -> None:
    """Raise LinkError unless this link can make the first owner now."""
    parts.links.read(token, Purpose.SETUP, now=now)
    if users.exist(session):
        raise LinkError("there is an owner already", hint="Sign in.")


def check(
    session: Session, parts: Container, token: str, typed: FirstVisit, *, now: datetime
) -> None:
    """Raise FirstVisitError with every field that is wrong, or LinkError; change nothing."""
    require_open(session, parts, token, now=now)
    problems: dict[str, UserError] = {}
    address = ""
    try:
        address = parse(typed.email).email
    except AddressError as error:
        problems["email"] = error
    try:
        passwords.check(typed.password, email=address)
    except AccountError as error:
        problems["password"] = error
    if typed.again != typed.password:
        problems["again"] = AccountError("the two passwords differ")
    refused = None
    try:
        setting_operations.changes_of(session, parts, typed.settings, now=now, base=typed.version)
    except SettingsChangeError as error:
        refused = error
    if problems or refused:
        raise FirstVisitError(problems, refused)


def create(
    session: Session,
    parts: Container,
    token: str,
    typed: FirstVisit,
    *,
    hashed_password: str,
    ip: str,
    now: datetime,
) -> User:
    """Make the first owner, change the settings, and email the owner, which shows that emails
    arrive.

    Raises LinkError if the link does not work any more, and FirstVisitError for what is wrong.
    """
    # In the order of every change of settings, which locks them before it writes the audit log.
    lock(session, publication.LOCK)
    # Two posts at once must not both find that there is no user.
    lock_audit_chain(session)
    check(session, parts, token, typed, now=now)
    user = user_operations.create(
        session,
        parts,
        typed.email,
        by=Actor(None, "(first visit)", ip),
        now=now,
        role=Role.OWNER,
        name=typed.name,
        hashed_password=hashed_password,
    )
    changed = setting_operations.change(
        session,
        parts,
        typed.settings,
        by=Actor(user.id, user.email, ip),
        now=now,
        base=typed.version,
    )
    settings = publication.applied(parts.loaded, publication.latest(session))
    mail = account_emails.welcome(parts, parts.publication_of(settings))
    due = now + _UNTIL_USED if changed else now
    outbox.enqueue(session, kind=_KIND, email=user.email, mail=mail, now=due)
    return user


def greeting(session: Session, email: str) -> Greeting | None:
    """The first email, if it went to this address; None once it is deleted from the outbox."""
    row = session.execute(
        select(
            _outbox.c.email,
            _outbox.c.state,
            _outbox.c.detail,
            _outbox.c.outcome,
            _outbox.c.outcome_reason,
        )
        .where(_outbox.c.email == email, _outbox.c.kind == _KIND)
        .limit(1)
    ).first()
    return None if row is None else Greeting(**row._mapping)
