"""The policy of events: what each kind does to the delivery and to the suppression list.

Pure. Each event falls under one case, and each case has one line of the table.
docs/reference/events.md shows the same table with its reasons, and a test compares the two.
Whether a subscriber or a bot opened and clicked is decided elsewhere
(newsletter.tracking.events.bot_detection).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from newsletter.provider.events import Event, EventKind, OwnKind
from newsletter.sending.states import DeliveryState
from subscribers.models import SuppressionReason


class SuppressionScope(StrEnum):
    """What an event suppresses."""

    #: The address that the event names: another address of the same subscriber may work.
    ADDRESS = "address"
    #: The current address of the subscriber, too, whichever it is by now.
    SUBSCRIBER = "subscriber"


@dataclass(frozen=True, slots=True)
class Effects:
    """What an event changes; by default nothing."""

    delivery: DeliveryState | None = None
    suppress: SuppressionReason | None = None
    scope: SuppressionScope = SuppressionScope.ADDRESS
    #: Suppresses only when several come within some days (Thresholds).
    soft: bool = False
    #: SendGrid dropped the email because the address is on one of its lists, perhaps for long.
    listed: bool = False
    #: The subscriber read the email, unless a bot opened it or followed the link.
    engaged: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds that the operator sets (settings ``tracking.*``)."""

    #: This many soft bounces of one address suppress it, if they come within
    #: ``soft_bounce_days``.
    soft_bounces: int = 5
    soft_bounce_days: timedelta = timedelta(days=30)
    #: A scanner followed the links of an email, if this many different ones were followed within
    #: ``scanner_seconds``.
    scanner_links: int = 4
    scanner_seconds: timedelta = timedelta(seconds=10)


_NOTHING = Effects()
_READ = Effects(engaged=True)
_UNSUBSCRIBED = Effects(suppress=SuppressionReason.UNSUBSCRIBED, scope=SuppressionScope.SUBSCRIBER)
_HARD = Effects(delivery=DeliveryState.BOUNCED, suppress=SuppressionReason.BOUNCED)
_SOFT = Effects(delivery=DeliveryState.BOUNCED, suppress=SuppressionReason.BOUNCED, soft=True)
_BLOCK = Effects(delivery=DeliveryState.BOUNCED)


def _dropped(suppress: SuppressionReason | None = None, *, listed: bool = False) -> Effects:
    return Effects(delivery=DeliveryState.DROPPED, suppress=suppress, listed=listed)


#: Case → effects. Cases of bounces are SendGrid's type and classification.
TABLE: Final[Mapping[str, Effects]] = {
    "processed": _NOTHING,
    "deferred": _NOTHING,
    "delivered": Effects(delivery=DeliveryState.DELIVERED),
    "bounce: Invalid Address": _HARD,
    "bounce: Unclassified": _HARD,
    "bounce: Unclassified, 4.x.x": _SOFT,
    "bounce: Unclassified, 5.1.x": _HARD,
    "bounce: Unclassified, 5.2.x": _SOFT,
    "bounce: Unclassified, 5.7.x": _SOFT,
    "bounce: Unclassified, another status": _SOFT,
    "bounce: Mailbox Unavailable": _SOFT,
    "bounce: Technical": _SOFT,
    "bounce: Content": _SOFT,
    "bounce: Reputation": _SOFT,
    "bounce: Frequency or Volume Too High": _SOFT,
    "blocked: Invalid Address": _SOFT,
    "blocked: Unclassified": _BLOCK,
    "blocked: Mailbox Unavailable": _SOFT,
    "blocked: Technical": _BLOCK,
    "blocked: Content": _BLOCK,
    "blocked: Reputation": _BLOCK,
    "blocked: Frequency or Volume Too High": _BLOCK,
    "expired: Invalid Address": _SOFT,
    "expired: Unclassified": _SOFT,
    "expired: Mailbox Unavailable": _SOFT,
    "expired: Technical": _SOFT,
    "expired: Content": _BLOCK,
    "expired: Reputation": _BLOCK,
    "expired: Frequency or Volume Too High": _BLOCK,
    "dropped: Bounced Address": _dropped(SuppressionReason.BOUNCED, listed=True),
    "dropped: Invalid": _dropped(SuppressionReason.BOUNCED),
    "dropped: Spam Reporting Address": _dropped(SuppressionReason.COMPLAINED, listed=True),
    "dropped: Unsubscribed Address": _dropped(SuppressionReason.UNSUBSCRIBED, listed=True),
    "dropped: Invalid SMTPAPI header": _dropped(),
    "dropped: Spam Content": _dropped(),
    "dropped: Recipient List over Package Quota": _dropped(),
    "dropped: another reason": _dropped(),
    "open": _READ,
    "click": _READ,
    # Following a link of ours, such as the one to unsubscribe, shows no interest in the issue.
    "own_click": _NOTHING,
    "spamreport": Effects(
        delivery=DeliveryState.COMPLAINED,
        suppress=SuppressionReason.COMPLAINED,
        scope=SuppressionScope.SUBSCRIBER,
    ),
    "unsubscribe": _UNSUBSCRIBED,
    "group_unsubscribe": _UNSUBSCRIBED,
    # Only an opt-in that the subscriber confirmed here lifts a suppression.
    "group_resubscribe": _NOTHING,
    "other": _NOTHING,
}

_OF_KIND: Final = {kind: TABLE[kind] for kind in (*EventKind, *OwnKind) if kind in TABLE}
_CLASSES: Final = {
    name.removeprefix("bounce: ").lower(): name.removeprefix("bounce: ")
    for name in TABLE
    if name.startswith("bounce: ") and "," not in name
} | {"technical failure": "Technical"}
#: Reasons of drops that SendGrid continues with details. It adds none to "Invalid", and other
#: reasons that begin with that word say nothing about the address.
_DROPS: Final = {
    name.removeprefix("dropped: ").lower(): name
    for name in TABLE
    if name.startswith("dropped: ") and name not in {"dropped: Invalid", "dropped: another reason"}
}
#: An enhanced status code (RFC 3463 section 2), which a server puts after its reply code.
_ENHANCED = re.compile(r"(?<![\d.])([45])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)")
#: A reply code (RFC 5321 section 4.2) at the beginning of a server's answer.
_REPLY = re.compile(r"\s*([45]\d\d)(?!\d)")
#: The details of status x.1.x (addressing) that mean "no such mailbox or domain". The others say
#: that the address is ambiguous (4) or valid (5), or concern the sender (7 to 9).
#: Source: RFC 3463 section 3.2, RFC 7505 for 5.1.10.
_NO_SUCH_ADDRESS: Final = frozenset({0, 1, 2, 3, 6, 10})
#: Reply codes without an enhanced status (RFC 5321 section 4.2.3): 552 is a full mailbox, 554 a
#: failed transaction, which names no mailbox.
_OF_REPLY: Final = {"552": "5.2.x", "554": "another status"}


def effects_of(event: Event) -> Effects:
    """What ``event`` changes."""
    # Four of five events are "processed" or "delivered": this finds their line at once.
    return _OF_KIND.get(event.kind) or TABLE[case_of(event)]


def case_of(event: Event) -> str:
    """The line of the table that ``event`` falls under."""
    match event.kind:
        case EventKind.BOUNCE:
            return f"bounce: {_class(event)}"
        case EventKind.BLOCKED:
            kind = "expired" if event.bounce_type == "expired" else "blocked"
            return f"{kind}: {_class(event)}"
        case EventKind.DROPPED:
            reason = event.reason.strip().lower()
            if reason == "invalid":
                return "dropped: Invalid"
            matching = (case for known, case in _DROPS.items() if reason.startswith(known))
            return next(matching, "dropped: another reason")
        case _:
            return event.kind.value


def _class(event: Event) -> str:
    known = _CLASSES.get(" ".join(event.classification.lower().split()), "Unclassified")
    if known == "Unclassified" and event.kind is EventKind.BOUNCE and (status := _status(event)):
        return f"Unclassified, {status}"
    return known


def _status(event: Event) -> str:
    """The group of the server's status by which an unclassified bounce is judged.

    Empty when the server named no status, or one that says no more than "it failed".
    """
    enhanced = _ENHANCED.search(event.status) or _ENHANCED.search(event.reason)
    if enhanced is None:
        reply = _REPLY.match(event.status) or _REPLY.match(event.reason)
        if reply is None:
            return ""
        return "4.x.x" if reply[1].startswith("4") else _OF_REPLY.get(reply[1], "")
    whole, subject, detail = (int(part) for part in enhanced.groups())
    if whole == 4:
        return "4.x.x"
    match subject:
        case 1:
            return "5.1.x" if detail in _NO_SUCH_ADDRESS else "another status"
        case 2 | 7:
            return f"5.{subject}.x"
        case 0:
            return ""
        case _:
            return "another status"
