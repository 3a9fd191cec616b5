"""Labels for the history of a subscriber; a test checks that every entry type has one."""

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
    "requested": ("Signed up", ""),
    "confirmed": ("Confirmed", "good"),
    "imported": ("Consent recorded by a user", "good"),
    "withdrawn": ("Withdrew consent", "warn"),
}
_DELIVERIES = {
    DeliveryState.PLANNED: ("Scheduled:", ""),
    DeliveryState.ACCEPTED: ("Sent:", "info"),
    DeliveryState.DELIVERED: ("Delivered:", "good"),
    DeliveryState.BOUNCED: ("Bounced:", "bad"),
    DeliveryState.DROPPED: ("Dropped by the provider:", "bad"),
    DeliveryState.COMPLAINED: ("Marked as spam:", "bad"),
    DeliveryState.SKIPPED: ("Skipped:", "warn"),
    DeliveryState.REJECTED: ("Rejected by the provider:", "bad"),
}
_EVENTS = {
    EventKind.PROCESSED: ("Accepted by the provider", ""),
    EventKind.DEFERRED: ("Deferred by the receiving server", "warn"),
    EventKind.DELIVERED: ("Delivered", "good"),
    EventKind.BOUNCE: ("Bounced", "bad"),
    EventKind.BLOCKED: ("Blocked by the receiving server", "bad"),
    EventKind.DROPPED: ("Dropped by the provider", "bad"),
    EventKind.OPEN: ("Opened", "info"),
    EventKind.CLICK: ("Clicked", "info"),
    OwnKind.OWN_CLICK: (
        "Clicked an unsubscribe or preferences link (does not count as a click)",
        "",
    ),
    EventKind.SPAM_REPORT: ("Marked as spam", "bad"),
    EventKind.UNSUBSCRIBE: ("Unsubscribed", "warn"),
    EventKind.GROUP_UNSUBSCRIBE: ("Unsubscribed with the provider's link", "warn"),
    EventKind.GROUP_RESUBSCRIBE: ("Resubscribed with the provider's link (has no effect)", ""),
    EventKind.OTHER: ("Unknown event", ""),
}
_SUPPRESSIONS = {
    SuppressionReason.UNSUBSCRIBED: ("Suppressed: unsubscribed", "warn"),
    SuppressionReason.BOUNCED: ("Suppressed: an email bounced", "bad"),
    SuppressionReason.COMPLAINED: ("Suppressed: marked as spam", "bad"),
    SuppressionReason.MANUAL: ("Suppressed by a user", "bad"),
    SuppressionReason.ERASED: ("Suppressed: erased", "bad"),
}
_MAILS: dict[BatchState | EventKind, tuple[str, str]] = {
    BatchState.PENDING: ("A single email is waiting to be sent", ""),
    BatchState.CLAIMED: ("A single email is being sent", ""),
    BatchState.IN_FLIGHT: ("A single email is being sent", ""),
    BatchState.ACCEPTED: ("A single email was sent", "info"),
    BatchState.REJECTED: ("A single email was rejected by the provider", "bad"),
    BatchState.UNCERTAIN: ("A single email was sent, but not confirmed by the provider", "warn"),
    BatchState.SKIPPED: ("A single email was not sent", "warn"),
    EventKind.DELIVERED: ("A single email was delivered", "good"),
    EventKind.BLOCKED: ("A single email was blocked by the receiving server", "bad"),
    EventKind.BOUNCE: ("A single email bounced", "bad"),
    EventKind.DROPPED: ("A single email was dropped by the provider", "bad"),
    EventKind.SPAM_REPORT: ("A single email was marked as spam", "bad"),
}
#: Type of an entry → what happened → label and tone.
WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "person": {"joined": ("Added", "good")},
    "consent": dict(_ACTS),
    "delivery": {state.value: said for state, said in _DELIVERIES.items()},
    "event": {kind.value: said for kind, said in _EVENTS.items()},
    "suppression": {reason.value: said for reason, said in _SUPPRESSIONS.items()},
    "mail": {state.value: said for state, said in _MAILS.items()},
}


def labeled(entry: HistoryEntry) -> HistoryLine:
    """The entry with its label; a value unknown to this release is shown unchanged."""
    words, tone = WORDS[entry.sort].get(entry.what, (entry.what, ""))
    return HistoryLine(entry.at, words, "" if entry.by_machine else tone, entry)
