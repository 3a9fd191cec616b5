"""Progress of a send, for its page and its live updates."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from newsletter import durations
from newsletter.db.orm import Session
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import ProviderBackoff, Send
from newsletter.sending.queries import recipient_list, send_status
from newsletter.sending.queries.send_status import Throughput
from newsletter.sending.states import BatchState, DeliveryState, SendState

#: Recipients by the state of their batch, in the order of the bar: kind → label and states.
PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "good": ("accepted", (BatchState.ACCEPTED,)),
    "plain": ("skipped", (BatchState.SKIPPED,)),
    "bad": ("rejected by the provider", (BatchState.REJECTED,)),
    "warn": ("uncertain", (BatchState.UNCERTAIN,)),
    "info": ("sending", (BatchState.CLAIMED, BatchState.IN_FLIGHT)),
    "rest": ("waiting", (BatchState.PENDING,)),
    "unsent": ("not sent", (recipient_list.NOT_SENT,)),
}
#: States in which the page updates itself.
MOVING = frozenset({SendState.SCHEDULED, SendState.PLANNING, SendState.SENDING})


@dataclass(frozen=True, slots=True)
class Slice:
    """A segment of the progress bar; ``begin`` and ``width`` in percent."""

    kind: str
    words: str
    people: int
    begin: float
    width: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Recipients of a send by the state of their batch, its pace and the backoff."""

    send: Send
    batches: Mapping[str, int]
    outlook: Throughput
    held: ProviderBackoff | None
    now: datetime

    @property
    def slices(self) -> list[Slice]:
        """The segments of the bar, without empty ones."""
        found, whole, begin = list[Slice](), sum(self.batches.values()) or 1, 0.0
        for kind, (words, states) in PARTS.items():
            people = sum(self.batches.get(state, 0) for state in states)
            if people:
                width = 100 * people / whole
                found.append(Slice(kind, words, people, begin, width))
                begin += width
        return found

    @property
    def settled(self) -> int:
        """Recipients in a final state: accepted, skipped or rejected."""
        over = (BatchState.ACCEPTED, BatchState.SKIPPED, BatchState.REJECTED)
        return sum(self.batches.get(state, 0) for state in over)

    @property
    def percent(self) -> int:
        """Whole percent done, rounded down: 100 only when all recipients are done."""
        return 100 * self.settled // self.send.planned if self.send.planned else 0

    @property
    def pace(self) -> str:
        """Pace of the last minute, per second or per minute."""
        rate = self.outlook.rate
        return f"{rate:,.0f} per second" if rate >= 10 else f"{60 * rate:,.0f} per minute"

    @property
    def left(self) -> str:
        """Time left, by its rate or by its timetable, whichever is longer."""
        by_rate = self.outlook.waiting / self.outlook.rate if self.outlook.rate else 0.0
        last = self.outlook.last_at
        by_plan = (last - self.now).total_seconds() if last else 0.0
        return durations.in_words(timedelta(seconds=max(by_rate, by_plan, 0.0)))


def of(session: Session, send: Send, *, now: datetime) -> Progress:
    """Read the progress of a send."""
    return Progress(
        send,
        _by_outcome(
            send_status.recipients_by_batch_state(session, send.id),
            recipient_list.problem_counts(session, send),
        ),
        send_status.throughput(session, send.id, now=now),
        provider_backoff.in_force(session, now=now),
        now,
    )


def _by_outcome(batches: Mapping[str, int], apart: Mapping[str, int]) -> dict[str, int]:
    """Recipients by the state of their batch, or by their own state if the batch has ended.

    A batch that was accepted may have recipients who were skipped, and one that the provider
    refused goes out again without the recipient whom it refused.
    """
    own = {
        BatchState.SKIPPED: apart.get(DeliveryState.SKIPPED, 0),
        BatchState.REJECTED: apart.get(DeliveryState.REJECTED, 0),
        recipient_list.NOT_SENT: apart.get(recipient_list.NOT_SENT, 0),
    }
    ended = sum(batches.get(state, 0) for state in (*own, BatchState.ACCEPTED))
    accepted = max(0, ended - sum(own.values()))
    return {**batches, **own, BatchState.ACCEPTED: accepted}
