"""From an outcome to what the ledger should write. Pure, total, and the only such rule.

Only what was surely not accepted is tried again. A lost answer or a 5xx is doubt,
never a reason to resend or to skip.
"""

from dataclasses import dataclass
from datetime import timedelta

from newsletter.provider.gateway import Accepted, NotSent, Outcome, Refused, Unknown

_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)

#: Refusals that the next batch would meet too, and what the operator does about them.
_STOPS_SEND = {
    401: "SendGrid does not know the API key: check NEWSLETTER_SENDGRID__API_KEY, then resume.",
    403: "SendGrid does not let this key or sender send: verify the sender's domain or address "
    "in SendGrid, or give the key the Mail Send permission, then resume.",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """The provider has the batch."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Put the batch back; nobody claims it before ``wait`` is over."""

    wait: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The provider will never take this batch."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopSend:
    """Put the batch back and pause the send: every batch would be refused alike."""

    reason: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Nobody knows whether the batch was accepted."""

    reason: str


Decision = Settled | TryAgain | Reject | StopSend | Doubt


def decide(outcome: Outcome, *, attempt: int, jitter: float) -> Decision:
    """What follows from ``outcome`` of the ``attempt``-th try; ``jitter`` is in [0, 1)."""
    match outcome:
        case Accepted(message_id):
            return Settled(message_id)
        case NotSent(reason, retry_after):
            return TryAgain(retry_after or _backoff(attempt, jitter), reason)
        case Refused(status, reason) if status in _STOPS_SEND:
            return StopSend(f"{_STOPS_SEND[status]} SendGrid said: {reason}")
        case Refused(status, reason):
            return Reject(f"SendGrid refused it ({status}): {reason}")
        case Unknown(reason):
            return Doubt(reason)


def _backoff(attempt: int, jitter: float) -> timedelta:
    """Doubling, with full jitter over the second half, so that workers do not march in step."""
    doublings = min(max(attempt - 1, 0), 12)
    wait = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
    return wait * (0.5 + jitter / 2)
