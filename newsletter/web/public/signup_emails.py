"""Texts of the email that answers a signup.

Anyone can enter anyone's address. So the email contains nothing that was typed into the form:
otherwise strangers could send their own messages through it.
"""

from datetime import datetime

from newsletter.container import Container
from newsletter.links import Purpose
from newsletter.rendering.transactional import render_transactional
from newsletter.sending.delivery import outbox
from subscribers.signup import double_opt_in
from subscribers.signup.double_opt_in import SignupResult

#: The issue number in a link that belongs to no issue.
_NO_ISSUE = 0
_WHY = "You get this email because someone entered this address at {publication_name}."


def written(parts: Container, asked: SignupResult) -> outbox.OutgoingEmail:
    """The email that answers a signup."""
    publication_name = parts.publication.name
    match asked.mail:
        case double_opt_in.ConfirmationEmail.CONFIRM:
            title = f"Confirm your subscription to {publication_name}"
            paragraphs = [
                f"Click the button to get {publication_name} at this address.",
                f"The link works until {_day(asked.expires)}.",
                "You did not request this? Ignore this email: we send nothing without your click.",
            ]
            label, url = "Confirm my subscription", _confirm_url(parts, asked)
        case double_opt_in.ConfirmationEmail.KNOWN:
            title = f"You are subscribed to {publication_name}"
            paragraphs = [
                f"Someone asked to subscribe this address to {publication_name}.",
                "It is already subscribed, so nothing was changed.",
                "You can choose topics, pause or unsubscribe at any time.",
            ]
            label, url = "Manage my subscription", _preferences_url(parts, asked)
        case double_opt_in.ConfirmationEmail.WELCOME:
            title = f"Welcome to {publication_name}"
            paragraphs = [
                f"From now on, {publication_name} is sent to this address.",
                "You can choose topics, pause or unsubscribe at any time.",
                "You did not request this? Unsubscribe with one click.",
            ]
            label, url = "Manage my subscription", _preferences_url(parts, asked)
    words = render_transactional(
        parts.publication,
        templates=parts.settings.templates_directory,
        title=title,
        paragraphs=paragraphs,
        button=(label, url),
        footer=_WHY.format(publication_name=publication_name),
    )
    return outbox.OutgoingEmail(words.subject, words.html, words.text)


def preferences_url(parts: Container, subscriber_id: int) -> str:
    """URL of the preference center of a subscriber."""
    token = parts.links.token(Purpose.RECIPIENT, _NO_ISSUE, subscriber_id)
    return f"{parts.publication.base_url}/preferences/{token}"


def _preferences_url(parts: Container, asked: SignupResult) -> str:
    assert asked.subscriber_id is not None, "a subscriber has an id"
    return preferences_url(parts, asked.subscriber_id)


def _confirm_url(parts: Container, asked: SignupResult) -> str:
    token = parts.links.token(Purpose.CONFIRM, asked.confirmation_id, expires=asked.expires)
    return f"{parts.publication.base_url}/confirm/{token}"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
