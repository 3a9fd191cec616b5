"""Texts of the emails to users of the console about their accounts."""

from collections.abc import Collection
from datetime import UTC, datetime

from newsletter import durations
from newsletter.accounts import users
from newsletter.accounts.models import User
from newsletter.container import Container
from newsletter.db.orm import Session
from newsletter.links import Purpose
from newsletter.rendering.rendered import Publication
from newsletter.rendering.transactional import render_transactional
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.outbox import OutgoingEmail

_WHY = "You get this email because you have an account in the console of {publication_name}."


def reset(parts: Container, user_id: int, stamp: int, *, now: datetime) -> OutgoingEmail:
    """The email with the link to choose a new password."""
    within = parts.settings.console.reset_within
    return _mail(
        parts,
        "Choose a new password",
        [
            f"Someone requested a new password for the console of {parts.publication.name}.",
            f"The link works once, for {durations.period(within)}.",
            "If it was not you, ignore this email: your password does not change.",
        ],
        ("Choose a password", password_link(parts, user_id, stamp, expires=now + within)),
    )


def invitation(parts: Container, user: User, *, by: str, now: datetime) -> OutgoingEmail:
    """The email with the link of an invitation."""
    within = parts.settings.console.invite_within
    return _mail(
        parts,
        f"You are invited to {parts.publication.name}",
        [
            f"{by} invited you to the console of {parts.publication.name}, as {user.role}.",
            f"Choose a password to sign in. The link works once, for {durations.period(within)}.",
        ],
        ("Choose a password", password_link(parts, user.id, user.stamp, expires=now + within)),
    )


def welcome(parts: Container, publication: Publication) -> OutgoingEmail:
    """The email to the first owner, which shows that emails of this publication arrive."""
    return _mail(
        parts,
        f"Emails of {publication.name} arrive",
        [
            f"This is the first email of {publication.name}, sent to its first owner.",
            "It came the way that all your emails go.",
        ],
        ("Open the console", f"{publication.base_url}/console/"),
        publication=publication,
    )


def changed(parts: Container, what: str) -> OutgoingEmail:
    """The email that tells a user about a security change of their account."""
    return _mail(
        parts,
        f"{what} in the console",
        [
            f"{what} in the console of {parts.publication.name}.",
            "If it was you, there is nothing to do.",
            "If not, choose a new password immediately and tell an owner of the console.",
        ],
        ("Choose a new password", f"{parts.publication.base_url}/console/forgot"),
    )


def tell_owners(
    session: Session, parts: Container, what: str, *, by: str, but: Collection[int] = ()
) -> None:
    """Email all owners except ``but`` about a change of an owner's account."""
    now = datetime.now(UTC)
    for email in users.owners(session, but=but):
        mail = _mail(
            parts,
            "A change among the owners of the console",
            [
                f"{what}. {by} did this in the console of {parts.publication.name}.",
                "If this was intended, there is nothing to do.",
                "If not, check the users and the audit log immediately: an account may be stolen.",
            ],
            ("Open users", f"{parts.publication.base_url}/console/users"),
        )
        outbox.enqueue(session, kind="account", email=email, mail=mail, now=now)


def password_link(parts: Container, user_id: int, stamp: int, *, expires: datetime) -> str:
    """Link to choose a password; it works until the user has chosen a newer one."""
    token = parts.links.token(Purpose.PASSWORD, user_id, stamp, expires=expires)
    return f"{parts.publication.base_url}/console/password/{token}"


def _mail(
    parts: Container,
    title: str,
    paragraphs: list[str],
    button: tuple[str, str],
    *,
    publication: Publication | None = None,
) -> OutgoingEmail:
    publication = publication or parts.publication
    words = render_transactional(
        publication,
        templates=parts.settings.templates_directory,
        title=title,
        paragraphs=paragraphs,
        button=button,
        footer=_WHY.format(publication_name=publication.name),
    )
    return OutgoingEmail(words.subject, words.html, words.text)
