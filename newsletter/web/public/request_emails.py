"""The words of the mails by which a person confirms what they asked for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from newsletter.container import Container
from newsletter.links import Purpose
from newsletter.rendering.transactional import render_notice
from newsletter.sending.delivery.outbox import OutgoingEmail
from subscribers.self_service.confirmed_requests import RequestKind, RequestResult

#: Second number of a token that takes a change of address back instead of confirming it.
TAKE_BACK: Final = 1

_NOT_YOU = "If you did not ask for this, do nothing: without a press of the button nothing happens."
_WHY = "You get this mail because somebody asked for it on the preferences page of {house}."


@dataclass(frozen=True, slots=True)
class Mails:
    """What leaves because of one wish."""

    #: To the address that confirms.
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
) -> Mails:
    """The mails for a wish of this kind."""
    house = parts.house.name
    link = _link(parts, asked.confirmation_id, expires=expires)
    match kind:
        case RequestKind.DATA:
            title = "Download your data"
            text = f"Here is the way to everything that {house} keeps about you, as one file."
            label = "To my data"
        case RequestKind.ERASE:
            title = "Erase your data"
            text = (
                f"You asked {house} to erase everything that it keeps about you. "
                "This also ends your subscription, and it cannot be undone."
            )
            label = "To erasing my data"
        case RequestKind.ADDRESS:
            title = "Confirm your new address"
            text = f"{house} was asked to send its mails to this address from now on."
            label = "Confirm this address"
    ask = _mail(parts, title, [text, _NOT_YOU], (label, link))
    return Mails(
        ask, _warning(parts, asked, expires, take_back) if kind is RequestKind.ADDRESS else None
    )


def _warning(
    parts: Container, asked: RequestResult, expires: datetime, take_back: timedelta
) -> OutgoingEmail:
    link = _link(parts, asked.confirmation_id, TAKE_BACK, expires=expires + take_back)
    what = (
        f"Somebody asked {parts.house.name} to send its mails to another address instead of this "
        "one. It happens only when that address confirms it."
    )
    stop = (
        "Was it you? Then there is nothing to do here. If not, stop it: this also works for "
        f"{take_back.days} days after the change."
    )
    button = ("Keep this address", link)
    return _mail(parts, "Your address is about to change", [what, stop], button)


def _link(parts: Container, *numbers: int, expires: datetime) -> str:
    token = parts.links.token(Purpose.CONFIRM, *numbers, expires=expires)
    return f"{parts.house.base_url}/request/{token}"


def _mail(
    parts: Container, title: str, paragraphs: list[str], button: tuple[str, str]
) -> OutgoingEmail:
    words = render_notice(
        parts.house,
        templates=parts.settings.templates_directory,
        title=title,
        paragraphs=paragraphs,
        button=button,
        footer=_WHY.format(house=parts.house.name),
    )
    return OutgoingEmail(words.subject, words.html, words.text)
