"""The words of the mails to operators, put into the outbox by those who cause them."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from newsletter.accounts import users
from newsletter.accounts.models import User
from newsletter.container import Container
from newsletter.db.orm import Session
from newsletter.links import Purpose
from newsletter.rendering.transactional import render_transactional
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.outbox import OutgoingEmail

_WHY = "You get this mail because you have an account in the console of {house}."


def reset(parts: Container, user_id: int, stamp: int, *, now: datetime) -> OutgoingEmail:
    """The way to a new password, for who asked for it."""
    within = parts.settings.console.reset_within
    return _mail(
        parts,
        "Choose a new password",
        [
            f"Somebody asked for a new password for the console of {parts.publication.name}.",
            f"The button works once, for {_told(within)}.",
            "If it was not you, do nothing: your password stays as it is.",
        ],
        ("Choose a password", password_link(parts, user_id, stamp, expires=now + within)),
    )


def invitation(parts: Container, user: User, *, by: str, now: datetime) -> OutgoingEmail:
    """The way in, for who was invited."""
    within = parts.settings.console.invite_within
    return _mail(
        parts,
        f"You are invited to {parts.publication.name}",
        [
            f"{by} invited you to the console of {parts.publication.name}, as {user.role}.",
            f"Choose a password to begin; the button works once, for {_told(within)}.",
        ],
        ("Choose a password", password_link(parts, user.id, user.stamp, expires=now + within)),
    )


def changed(parts: Container, what: str) -> OutgoingEmail:
    """A word to the owner of an account that something about it is different now."""
    return _mail(
        parts,
        f"{what} in the console",
        [
            f"{what} in the console of {parts.publication.name}.",
            "Was it you? Then there is nothing to do.",
            "If not, choose a new password at once, and tell an owner of the console.",
        ],
        ("Choose a new password", f"{parts.publication.base_url}/console/forgot"),
    )


def tell_owners(
    session: Session, parts: Container, what: str, *, by: str, but: Collection[int] = ()
) -> None:
    """Mail the owners, but those, what another one did to who may decide who may do what."""
    now = datetime.now(UTC)
    for email in users.owners(session, but=but):
        mail = _mail(
            parts,
            "A change among the owners of the console",
            [
                f"{what}. It was done by {by}, in the console of {parts.publication.name}.",
                "If that is right, there is nothing to do.",
                "If not, look at the users and the log at once: somebody may have their account.",
            ],
            ("Look at the users", f"{parts.publication.base_url}/console/users"),
        )
        outbox.enqueue(session, kind="account", email=email, mail=mail, now=now)


def password_link(parts: Container, user_id: int, stamp: int, *, expires: datetime) -> str:
    """Where the person chooses a password; it works until they have one that is newer."""
    token = parts.links.token(Purpose.PASSWORD, user_id, stamp, expires=expires)
    return f"{parts.publication.base_url}/console/password/{token}"


def _mail(
    parts: Container, title: str, paragraphs: list[str], button: tuple[str, str]
) -> OutgoingEmail:
    words = render_transactional(
        parts.publication,
        templates=parts.settings.templates_directory,
        title=title,
        paragraphs=paragraphs,
        button=button,
        footer=_WHY.format(house=parts.publication.name),
    )
    return OutgoingEmail(words.subject, words.html, words.text)


def _told(length: timedelta) -> str:
    """``30 minutes``, ``3 days``."""
    seconds = int(length.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}{'' if seconds == size else 's'}"
    return f"{seconds} seconds"
