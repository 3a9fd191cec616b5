"""Texts of the emails with which subscribers confirm a new address, a download or an erasure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from newsletter.container import Container
from newsletter.links import Purpose
from newsletter.rendering.transactional import render_transactional
from newsletter.sending.delivery.outbox import OutgoingEmail
from subscribers.self_service.confirmed_requests import RequestKind, RequestResult

#: Second number of a token that undoes a change of address instead of confirming it.
TAKE_BACK: Final = 1

_NOT_YOU = "If you did not request this, ignore this email: nothing changes."
_WHY = "You get this email because someone requested it on the preferences page of {house}."


@dataclass(frozen=True, slots=True)
class RequestEmails:
    """The emails of one request."""

    #: To the address that has to confirm.
    ask: OutgoingEmail
    #: To the address that would lose the subscription.
    warn: OutgoingEmail | None


def written(
    parts: Container,
    kind: RequestKind,
    asked: RequestResult,
    *,
    expires: datetime,
    take_back: timedelta,
) -> RequestEmails:
    """The emails for a request of this kind."""
    house = parts.publication.name
    link = _link(parts, asked.confirmation_id, expires=expires)
    match kind:
        case RequestKind.DATA:
            title = "Download your data"
            text = (
                f"Use the button to download all data that {house} stores about you, as one file."
            )
            label = "Download my data"
        case RequestKind.ERASE:
            title = "Delete your data"
            text = (
                f"You asked {house} to delete all data that it stores about you. "
                "This also ends your subscription. It cannot be undone."
            )
            label = "Delete my data"
        case RequestKind.ADDRESS:
            title = "Confirm your new address"
            text = f"Someone asked {house} to send its emails to this address from now on."
            label = "Confirm this address"
    ask = _mail(parts, title, [text, _NOT_YOU], (label, link))
    return RequestEmails(
        ask, _warning(parts, asked, expires, take_back) if kind is RequestKind.ADDRESS else None
    )


def _warning(
    parts: Container, asked: RequestResult, expires: datetime, take_back: timedelta
) -> OutgoingEmail:
    link = _link(parts, asked.confirmation_id, TAKE_BACK, expires=expires + take_back)
    what = (
        f"Someone asked {parts.publication.name} to send its emails to another address "
        "instead of this one. Your address changes only if the new address confirms it."
    )
    stop = (
        "If it was you, there is nothing to do. If not, keep this address with the button below: "
        f"this also works for {take_back.days} days after the change."
    )
    button = ("Keep this address", link)
    return _mail(parts, "Your address is about to change", [what, stop], button)


def _link(parts: Container, *numbers: int, expires: datetime) -> str:
    token = parts.links.token(Purpose.CONFIRM, *numbers, expires=expires)
    return f"{parts.publication.base_url}/request/{token}"


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
