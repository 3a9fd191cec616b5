"""From an outcome to what the ledger should write. Pure, total, and the only such rule.

Only what was surely not accepted is tried again. A lost answer or a 5xx is doubt,
never a reason to resend or to skip.
"""

from dataclasses import dataclass
from datetime import timedelta

from newsletter.provider.gateway import Accepted, NotSent, Outcome, Refused, Unknown

#: Where the provider's clock is behind ours, its reset is past and nothing to wait for.
_SHORTEST_WAIT = timedelta(seconds=1)
_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)

_CHECK = "then `newsletter sends resume`."
#: Refusals that every batch would meet, and what the operator does about them.
_STOPS_SEND = {
    401: f"SendGrid does not know the API key: check NEWSLETTER_SENDGRID__API_KEY, {_CHECK}",
    403: "SendGrid does not let this key or sender send: verify the sender's domain or address "
    f"in SendGrid, or give the key the Mail Send permission, {_CHECK}",
    404: f"There is no SendGrid at this address: check NEWSLETTER_SENDGRID__HOST, {_CHECK}",
    405: f"There is no SendGrid at this address: check NEWSLETTER_SENDGRID__HOST, {_CHECK}",
    415: f"What answers is not SendGrid's mail send: check NEWSLETTER_SENDGRID__HOST, {_CHECK}",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """The provider has the batch."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Put the batch back; nobody sends anything before ``wait`` is over.

    What stopped one request, a rate limit or a broken line, would stop every other. Where the
    provider did not say when to come back, the wait grows with the failures of all requests
    (settlement.py), not of this one.
    """

    wait: timedelta
    reason: str
    #: The provider said when; otherwise trouble that lasts ends in a pause.
    asked: bool = False


@dataclass(frozen=True, slots=True)
class RejectBatch:
    """The provider will never take this batch, of one person."""

    reason: str


@dataclass(frozen=True, slots=True)
class RejectOne:
    """The provider refused the batch because of one person; all others shall have the issue."""

    #: Index among the batch's recipients.
    recipient: int
    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """The provider refused the batch and does not say because of whom: halve it, to find out."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopSend:
    """Put the batch back and pause the send: every batch would be refused alike."""

    reason: str


@dataclass(frozen=True, slots=True)
class Uncertain:
    """Nobody knows whether the batch was accepted, nor what would become of the next."""

    reason: str


Decision = Settled | TryAgain | RejectBatch | RejectOne | Split | StopSend | Uncertain


def decide(outcome: Outcome, *, attempt: int, size: int, jitter: float) -> Decision:
    """What follows from ``outcome`` of the ``attempt``-th try of a batch of ``size`` people.

    ``jitter`` is in [0, 1).
    """
    match outcome:
        case Accepted(message_id):
            return Settled(message_id)
        case NotSent(reason, retry_after):
            if retry_after is not None:
                return TryAgain(max(retry_after, _SHORTEST_WAIT), reason, asked=True)
            return TryAgain(backoff(attempt, jitter), reason)
        case Refused():
            return _refused(outcome, size)
        case Unknown(reason):
            return Uncertain(reason)


def _refused(outcome: Refused, size: int) -> Decision:
    said = f"SendGrid refused it ({outcome.status}): {outcome.reason}"
    if outcome.status in _STOPS_SEND:
        return StopSend(f"{_STOPS_SEND[outcome.status]} SendGrid said: {outcome.reason}")
    if outcome.recipient is not None and outcome.recipient < size:
        return RejectOne(outcome.recipient, said)
    if outcome.shared:
        return StopSend(f"{said} ({outcome.shared}). Every batch would be refused alike.")
    return Split(said) if size > 1 else RejectBatch(said)


def backoff(attempt: int, jitter: float) -> timedelta:
    """The wait after so many failures: doubling from 2 seconds to 5 minutes, with full jitter
    over the second half, so that workers do not march in step."""
    doublings = min(max(attempt - 1, 0), 12)
    wait = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
    return wait * (0.5 + jitter / 2)
