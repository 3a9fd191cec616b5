"""The retry policy: decides from the provider's answer what follows for a batch. Pure functions.

Only a request that was certainly not accepted is tried again. After a lost answer or a 5xx the
batch is uncertain: it is neither resent nor skipped.
"""

from dataclasses import dataclass
from datetime import timedelta

from newsletter.provider.gateway import Accepted, NotSent, Outcome, Refused, Unknown
from newsletter.sending.reasons import PauseCause

#: If the provider's clock is behind ours, its reset time is already past.
_SHORTEST_WAIT = timedelta(seconds=1)
_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)

#: Status of refusals that every batch would get → the cause of the pause, and its meaning.
_STOPS_SEND = {
    401: (PauseCause.API_KEY, "SendGrid does not know the API key"),
    403: (PauseCause.PERMISSION, "SendGrid does not let this key or sender send"),
    404: (PauseCause.PROVIDER_HOST, "There is no SendGrid at this address"),
    405: (PauseCause.PROVIDER_HOST, "There is no SendGrid at this address"),
    415: (PauseCause.PROVIDER_HOST, "What answers is not SendGrid's mail send"),
}


@dataclass(frozen=True, slots=True)
class Settled:
    """The provider accepted the batch."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Requeue the batch; no worker sends before ``wait`` is over.

    A rate limit or a lost connection would stop all other requests too. If the provider did not
    set the wait, it grows with the failures of all requests (ledger/provider_backoff.py).
    """

    wait: timedelta
    reason: str
    #: Whether the provider set the wait. If not, the send is paused after too long an outage.
    set_by_provider: bool = False


@dataclass(frozen=True, slots=True)
class RejectBatch:
    """The provider will never accept this batch of one recipient."""

    reason: str


@dataclass(frozen=True, slots=True)
class RejectOne:
    """The provider refused the batch because of one recipient; the others are sent again."""

    #: Index among the batch's recipients.
    recipient: int
    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """The provider refused the batch and did not name a recipient: halve it to find out."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopSend:
    """Requeue the batch and pause the send, because every batch would be refused alike."""

    cause: PauseCause
    reason: str


@dataclass(frozen=True, slots=True)
class Uncertain:
    """It is not known whether the batch was accepted."""

    reason: str


Decision = Settled | TryAgain | RejectBatch | RejectOne | Split | StopSend | Uncertain


def decide(outcome: Outcome, *, attempt: int, size: int, jitter: float) -> Decision:
    """Decide from the outcome of the ``attempt``-th try of a batch of ``size`` recipients.

    ``jitter`` is in [0, 1).
    """
    match outcome:
        case Accepted(message_id):
            return Settled(message_id)
        case NotSent(reason, retry_after):
            if retry_after is not None:
                return TryAgain(max(retry_after, _SHORTEST_WAIT), reason, set_by_provider=True)
            return TryAgain(backoff(attempt, jitter), reason)
        case Refused():
            return _refused(outcome, size)
        case Unknown(reason):
            return Uncertain(reason)


def _refused(outcome: Refused, size: int) -> Decision:
    answer = f"SendGrid refused it ({outcome.status}): {outcome.reason}"
    if outcome.status in _STOPS_SEND:
        cause, what = _STOPS_SEND[outcome.status]
        return StopSend(cause, f"{what} ({outcome.status}). SendGrid said: {outcome.reason}")
    if outcome.recipient is not None and outcome.recipient < size:
        return RejectOne(outcome.recipient, answer)
    if outcome.shared:
        shared = f"{answer} ({outcome.shared}). Every batch would be refused alike."
        return StopSend(PauseCause.REFUSED, shared)
    return Split(answer) if size > 1 else RejectBatch(answer)


def backoff(attempt: int, jitter: float) -> timedelta:
    """The wait after this many failures: it doubles from 2 seconds to 5 minutes.

    Jitter varies its second half, so that workers do not all retry at once.
    """
    doublings = min(max(attempt - 1, 0), 12)
    wait = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
    return wait * (0.5 + jitter / 2)
