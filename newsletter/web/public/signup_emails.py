"""The words of the mail that answers a signup.

Anybody can have it sent to anybody. So nothing that was typed into the form stands in
it, or our mails would carry strangers' messages to their victims.
"""

from datetime import datetime

from newsletter.container import Container
from newsletter.links import Purpose
from newsletter.rendering.transactional import render_transactional
from newsletter.sending.delivery import outbox
from subscribers.signup import double_opt_in
from subscribers.signup.double_opt_in import SignupResult

#: Stands for the issue in a link that came with none.
_NO_ISSUE = 0
_WHY = "You get this mail because somebody entered this address at {house}. Nobody else sees it."


def written(parts: Container, asked: SignupResult) -> outbox.OutgoingEmail:
    """The mail for a signup."""
    house = parts.publication.name
    match asked.mail:
        case double_opt_in.ConfirmationEmail.CONFIRM:
            title = f"Confirm your subscription to {house}"
            paragraphs = [
                f"One click and {house} comes to this address.",
                f"The link works until {_day(asked.expires)}.",
                "You did not ask for it? Do nothing: without your click no further mail comes.",
            ]
            label, url = "Confirm my subscription", _confirm_url(parts, asked)
        case double_opt_in.ConfirmationEmail.KNOWN:
            title = f"You are subscribed to {house}"
            paragraphs = [
                f"Somebody asked to subscribe this address to {house}.",
                "It is subscribed already, so nothing was changed.",
                "You can choose topics, take a break or leave at any time.",
            ]
            label, url = "Manage my subscription", _preferences_url(parts, asked)
        case double_opt_in.ConfirmationEmail.WELCOME:
            title = f"Welcome to {house}"
            paragraphs = [
                f"{house} comes to this address from now on.",
                "You can choose topics, take a break or leave at any time.",
                "It was not you who asked for it? Then leave with one click.",
            ]
            label, url = "Manage my subscription", _preferences_url(parts, asked)
    words = render_transactional(
        parts.publication,
        templates=parts.settings.templates_directory,
        title=title,
        paragraphs=paragraphs,
        button=(label, url),
        footer=_WHY.format(house=house),
    )
    return outbox.OutgoingEmail(words.subject, words.html, words.text)


def preferences_url(parts: Container, subscriber_id: int) -> str:
    """Where a person manages their subscription."""
    token = parts.links.token(Purpose.RECIPIENT, _NO_ISSUE, subscriber_id)
    return f"{parts.publication.base_url}/preferences/{token}"


def _preferences_url(parts: Container, asked: SignupResult) -> str:
    assert asked.subscriber_id is not None, "who is in the audience has a number"
    return preferences_url(parts, asked.subscriber_id)


def _confirm_url(parts: Container, asked: SignupResult) -> str:
    token = parts.links.token(Purpose.CONFIRM, asked.confirmation_id, expires=asked.expires)
    return f"{parts.publication.base_url}/confirm/{token}"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
