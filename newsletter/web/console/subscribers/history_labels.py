"""A person's history in words: one line for each thing that can happen, and the list is total."""

from dataclasses import dataclass
from datetime import datetime

from newsletter.provider.events import EventKind, OwnKind
from newsletter.sending.states import BatchState, DeliveryState
from newsletter.tracking.people.history import HistoryEntry
from subscribers.models import SuppressionReason


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One entry for the page. ``tone`` is good, bad, warn, info or nothing."""

    at: datetime
    words: str
    tone: str
    entry: HistoryEntry


_ACTS = {
    "requested": ("Asked to subscribe", ""),
    "confirmed": ("Confirmed", "good"),
    "imported": ("Consent stated by an operator", "good"),
    "withdrawn": ("Withdrew", "warn"),
}
_DELIVERIES = {
    DeliveryState.PLANNED: ("Is to get", ""),
    DeliveryState.ACCEPTED: ("Was sent", "info"),
    DeliveryState.DELIVERED: ("Got", "good"),
    DeliveryState.BOUNCED: ("Came back:", "bad"),
    DeliveryState.DROPPED: ("Was not tried by the provider:", "bad"),
    DeliveryState.COMPLAINED: ("Called spam:", "bad"),
    DeliveryState.SKIPPED: ("Was left out of", "warn"),
    DeliveryState.REJECTED: ("Was refused by the provider:", "bad"),
}
_EVENTS = {
    EventKind.PROCESSED: ("Taken on by the provider", ""),
    EventKind.DEFERRED: ("Put off by the receiving server", "warn"),
    EventKind.DELIVERED: ("Delivered", "good"),
    EventKind.BOUNCE: ("Bounced", "bad"),
    EventKind.BLOCKED: ("Blocked by the receiving server", "bad"),
    EventKind.DROPPED: ("Dropped by the provider", "bad"),
    EventKind.OPEN: ("Opened", "info"),
    EventKind.CLICK: ("Clicked", "info"),
    OwnKind.OWN_CLICK: ("Opened a link of their own (does not count as a click)", ""),
    EventKind.SPAM_REPORT: ("Reported as spam", "bad"),
    EventKind.UNSUBSCRIBE: ("Unsubscribed", "warn"),
    EventKind.GROUP_UNSUBSCRIBE: ("Unsubscribed by the provider's link", "warn"),
    EventKind.GROUP_RESUBSCRIBE: ("Came back by the provider's link (does not count)", ""),
    EventKind.OTHER: ("Something that this version does not know", ""),
}
_SUPPRESSIONS = {
    SuppressionReason.UNSUBSCRIBED: ("Gets no more mail: left", "warn"),
    SuppressionReason.BOUNCED: ("Suppressed: an email bounced", "bad"),
    SuppressionReason.COMPLAINED: ("Gets no more mail: called it spam", "bad"),
    SuppressionReason.MANUAL: ("Gets no more mail: an operator decided so", "bad"),
    SuppressionReason.ERASED: ("Gets no more mail: erased", "bad"),
}
_MAILS: dict[BatchState | EventKind, tuple[str, str]] = {
    BatchState.PENDING: ("A single mail waits to be sent", ""),
    BatchState.CLAIMED: ("A single mail is being sent", ""),
    BatchState.IN_FLIGHT: ("A single mail is being sent", ""),
    BatchState.ACCEPTED: ("A single mail was sent", "info"),
    BatchState.REJECTED: ("A single mail was refused by the provider", "bad"),
    BatchState.UNCERTAIN: ("A single mail was sent, its answer lost", "warn"),
    BatchState.SKIPPED: ("A single mail was not sent", "warn"),
    EventKind.DELIVERED: ("A single email was delivered", "good"),
    EventKind.BLOCKED: ("A single email was blocked by the receiving server", "bad"),
    EventKind.BOUNCE: ("A single email bounced", "bad"),
    EventKind.DROPPED: ("A single email was dropped by the provider: it was not sent", "bad"),
    EventKind.SPAM_REPORT: ("A single email was marked as spam", "bad"),
}
#: Sort of an entry → what → words and tone.
WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "person": {"joined": ("Came into the list", "good")},
    "consent": dict(_ACTS),
    "delivery": {state.value: said for state, said in _DELIVERIES.items()},
    "event": {kind.value: said for kind, said in _EVENTS.items()},
    "suppression": {reason.value: said for reason, said in _SUPPRESSIONS.items()},
    "mail": {state.value: said for state, said in _MAILS.items()},
}


def told(entry: HistoryEntry) -> HistoryLine:
    """The entry in words; what another release wrote is shown by its name."""
    words, tone = WORDS[entry.sort].get(entry.what, (entry.what, ""))
    return HistoryLine(entry.at, words, "" if entry.by_machine else tone, entry)
