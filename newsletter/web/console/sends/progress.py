"""How far a send has come, as its page and the live figures show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from newsletter.db.orm import Session
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import ProviderBackoff, Send
from newsletter.sending.queries import recipient_list, send_status
from newsletter.sending.queries.send_status import Throughput
from newsletter.sending.states import BatchState, DeliveryState, SendState

#: People by what became of their batch, in the order of the bar. A test reads the words.
PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "good": ("handed over", (BatchState.ACCEPTED,)),
    "plain": ("skipped", (BatchState.SKIPPED,)),
    "bad": ("refused by the provider", (BatchState.REJECTED,)),
    "warn": ("in doubt", (BatchState.UNCERTAIN,)),
    "info": ("on the way", (BatchState.CLAIMED, BatchState.IN_FLIGHT)),
    "rest": ("waiting", (BatchState.PENDING,)),
    "unsent": ("not sent", (recipient_list.NOT_SENT,)),
}
#: In these a page is worth looking at again by itself.
MOVING = frozenset({SendState.SCHEDULED, SendState.PLANNING, SendState.SENDING})


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of the bar, its ends in percent."""

    kind: str
    words: str
    people: int
    begin: float
    width: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A send's people by the state of their batch, its pace, and what holds it up."""

    send: Send
    batches: Mapping[str, int]
    outlook: Throughput
    held: ProviderBackoff | None
    now: datetime

    @property
    def slices(self) -> list[Slice]:
        """The bar, without empty stretches."""
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
        """People of whom it is over, one way or the other."""
        over = (BatchState.ACCEPTED, BatchState.SKIPPED, BatchState.REJECTED)
        return sum(self.batches.get(state, 0) for state in over)

    @property
    def percent(self) -> int:
        """The whole percents that are done: 100 only when all is."""
        return 100 * self.settled // self.send.planned if self.send.planned else 0

    @property
    def pace(self) -> str:
        """How fast it went within the last minute, in the unit that reads best."""
        rate = self.outlook.rate
        return f"{rate:,.0f} a second" if rate >= 10 else f"{60 * rate:,.0f} a minute"

    @property
    def left(self) -> str:
        """How long it will take: by its rate or its timetable, whichever is later."""
        by_rate = self.outlook.waiting / self.outlook.rate if self.outlook.rate else 0.0
        last = self.outlook.last_at
        by_plan = (last - self.now).total_seconds() if last else 0.0
        return lasting(timedelta(seconds=max(by_rate, by_plan, 0.0)))


def of(session: Session, send: Send, *, now: datetime) -> Progress:
    """Read it: sums of batches, and the few people whom something set apart."""
    return Progress(
        send,
        _by_outcome(
            send_status.batch_states(session, send.id), recipient_list.problem_counts(session, send)
        ),
        send_status.throughput(session, send.id, now=now),
        provider_backoff.in_force(session, now=now),
        now,
    )


def _by_outcome(batches: Mapping[str, int], apart: Mapping[str, int]) -> dict[str, int]:
    """Recipients by the state of their batch, but those of an ended batch by their own.

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


def lasting(time: timedelta) -> str:
    """A length of time, as exactly as anybody wants to know it."""
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds < 600 else f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} days {seconds % 86400 // 3600} h"
