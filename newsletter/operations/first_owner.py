"""Makes the first user, an owner, by a link that `newsletter serve` prints.

The link is signed and expires, and nothing of it is stored: it works while there is no user, so
only once.
"""

from datetime import datetime, timedelta
from typing import Final

from newsletter.accounts import users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, User
from newsletter.accounts.serial_lock import lock_audit_chain
from newsletter.container import Container
from newsletter.db.orm import Session
from newsletter.errors import LinkError
from newsletter.links import Purpose
from newsletter.operations import account_emails
from newsletter.operations import users as user_operations
from newsletter.sending.delivery import outbox

_WITHIN: Final = timedelta(hours=1)


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


def create(
    session: Session,
    parts: Container,
    token: str,
    email: str,
    *,
    name: str,
    hashed_password: str,
    ip: str,
    now: datetime,
) -> User:
    """Make the first owner, and email them, which shows that emails arrive.

    Raises LinkError if the link does not work any more, and AddressError for a wrong address.
    """
    # Two posts at once must not both find that there is no user.
    lock_audit_chain(session)
    require_open(session, parts, token, now=now)
    user = user_operations.create(
        session,
        parts,
        email,
        by=Actor(None, "(first visit)", ip),
        now=now,
        role=Role.OWNER,
        name=name,
        hashed_password=hashed_password,
    )
    mail = account_emails.welcome(parts)
    outbox.enqueue(session, kind="account", email=user.email, mail=mail, now=now)
    return user
