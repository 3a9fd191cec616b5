"""The retry policy: decides from the provider's answer what becomes of a batch. Pure functions.

Only a request that was surely not accepted is tried again. After a lost answer or a 5xx the
batch is uncertain: it is neither resent nor skipped.
"""

from dataclasses import dataclass
from datetime import timedelta

from newsletter.provider.gateway import Accepted, NotSent, Outcome, Refused, Unknown
from newsletter.sending.reasons import PauseCause

#: Where the provider's clock is behind ours, its reset time is already past.
_SHORTEST_WAIT = timedelta(seconds=1)
_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)

#: Refusals that every batch would meet: what stops the send, and what it means.
_STOPS_SEND = {
    401: (PauseCause.API_KEY, "SendGrid does not know the API key"),
    403: (PauseCause.PERMISSION, "SendGrid does not let this key or sender send"),
    404: (PauseCause.PROVIDER_HOST, "There is no SendGrid at this address"),
    405: (PauseCause.PROVIDER_HOST, "There is no SendGrid at this address"),
    415: (PauseCause.PROVIDER_HOST, "What answers is not SendGrid's mail send"),
}


@dataclass(frozen=True, slots=True)
class Settled:
    """The provider has the batch."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Put the batch back; nobody sends anything before ``wait`` is over.

    A rate limit or a lost connection that stopped one request would stop every other. Where the
    provider did not say when to come back, the wait grows with the failures of all requests
    (ledger/provider_backoff.py), not of this one.
    """

    wait: timedelta
    reason: str
    #: The provider said when. Otherwise trouble that lasts ends in a pause of the send.
    asked: bool = False


@dataclass(frozen=True, slots=True)
class RejectBatch:
    """The provider will never accept this batch of one recipient."""

    reason: str


@dataclass(frozen=True, slots=True)
class RejectOne:
    """The provider refused the batch because of one recipient; the others go out again."""

    #: Index among the batch's recipients.
    recipient: int
    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """The provider refused the batch and does not say for which recipient: halve it to find out."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopSend:
    """Put the batch back and pause the send: every batch would be refused alike."""

    cause: PauseCause
    reason: str


@dataclass(frozen=True, slots=True)
class Uncertain:
    """It is unknown whether the batch was accepted, and whether the next would be."""

    reason: str


Decision = Settled | TryAgain | RejectBatch | RejectOne | Split | StopSend | Uncertain


def decide(outcome: Outcome, *, attempt: int, size: int, jitter: float) -> Decision:
    """What follows from the outcome of the ``attempt``-th try of a batch of ``size`` recipients.

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
        cause, what = _STOPS_SEND[outcome.status]
        return StopSend(cause, f"{what} ({outcome.status}). SendGrid said: {outcome.reason}")
    if outcome.recipient is not None and outcome.recipient < size:
        return RejectOne(outcome.recipient, said)
    if outcome.shared:
        shared = f"{said} ({outcome.shared}). Every batch would be refused alike."
        return StopSend(PauseCause.REFUSED, shared)
    return Split(said) if size > 1 else RejectBatch(said)


def backoff(attempt: int, jitter: float) -> timedelta:
    """The wait after so many failures: doubling from 2 seconds to 5 minutes, with full jitter
    over the second half, so that workers do not all retry at once."""
    doublings = min(max(attempt - 1, 0), 12)
    wait = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
    return wait * (0.5 + jitter / 2)
