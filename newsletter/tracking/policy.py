"""From an event to what becomes of the delivery and of the person: one table, and it is total.

A hard bounce, a complaint and leaving suppress at once. A block concerns one mail,
not the mailbox: it is counted and nobody is suppressed. SendGrid drops what it has
on its own lists; each of its documented reasons is told apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from newsletter.provider.events import Event, Kind
from newsletter.sending.states import DeliveryState
from subscribers.models import SuppressionReason


class Whose(StrEnum):
    """What a suppression is about."""

    #: The address that the event names: another address of the same person may work.
    ADDRESS = "address"
    #: The person, whichever address they have by now.
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Effects:
    """What an event changes; nothing unless said."""

    delivery: DeliveryState | None = None
    suppress: SuppressionReason | None = None
    whose: Whose = Whose.ADDRESS
    #: The mail was read: a person opened it or followed a link.
    engaged: bool = False


_NOTHING = Effects()
_LEFT = Effects(suppress=SuppressionReason.UNSUBSCRIBED, whose=Whose.PERSON)

#: What each kind means when nothing more is known about it.
BY_KIND: Final[Mapping[Kind, Effects]] = {
    Kind.PROCESSED: _NOTHING,
    Kind.DEFERRED: _NOTHING,
    Kind.DELIVERED: Effects(delivery=DeliveryState.DELIVERED),
    Kind.BOUNCE: Effects(delivery=DeliveryState.BOUNCED, suppress=SuppressionReason.BOUNCED),
    Kind.BLOCKED: Effects(delivery=DeliveryState.BOUNCED),
    Kind.DROPPED: Effects(delivery=DeliveryState.DROPPED),
    Kind.OPEN: Effects(engaged=True),
    Kind.CLICK: Effects(engaged=True),
    Kind.SPAM_REPORT: Effects(
        delivery=DeliveryState.COMPLAINED,
        suppress=SuppressionReason.COMPLAINED,
        whose=Whose.PERSON,
    ),
    Kind.UNSUBSCRIBE: _LEFT,
    Kind.GROUP_UNSUBSCRIBE: _LEFT,
    # Only the person's own opting in lifts a suppression.
    Kind.GROUP_RESUBSCRIBE: _NOTHING,
    Kind.OTHER: _NOTHING,
}

#: Why SendGrid dropped a mail (its Event Webhook reference), by the reason's first words.
BY_DROP_REASON: Final[Mapping[str, SuppressionReason]] = {
    "bounced address": SuppressionReason.BOUNCED,
    "invalid": SuppressionReason.BOUNCED,
    "spam reporting address": SuppressionReason.COMPLAINED,
    "unsubscribed address": SuppressionReason.UNSUBSCRIBED,
}
#: Drops that begin like one of the above and yet say nothing about the address.
_OUR_FAULT = ("invalid smtpapi header",)


def effects(event: Event) -> Effects:
    """What ``event`` changes."""
    if event.by_machine:
        return _NOTHING
    if event.kind is Kind.DROPPED:
        return Effects(delivery=DeliveryState.DROPPED, suppress=_drop_reason(event.reason))
    return BY_KIND[event.kind]


def _drop_reason(reason: str) -> SuppressionReason | None:
    said = reason.strip().lower()
    if said.startswith(_OUR_FAULT):
        return None
    return next((why for words, why in BY_DROP_REASON.items() if said.startswith(words)), None)
