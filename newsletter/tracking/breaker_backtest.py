"""Applies rules of the circuit breaker to past sends, to see what they would have done.

The rules are judged by the function that pauses sends, with the counts of recipients as they grew:
acceptances by the time at which batches were settled, events by the time at which they were
received. A rule that only tells is judged likewise. Only the first pause of each send counts,
because nobody knows what would have happened after a resume. Sends of which events are deleted are
left out, and counted.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.provider.events import EventKind
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import BatchState
from newsletter.tracking.circuit_breaker import ACCEPTED, BreakerRule, counters_of
from newsletter.tracking.event_horizon import final_sends
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.counters import RECIPIENTS, UNSUBSCRIBED_BY

_send, _batch, _event = table_of(Send), table_of(Batch), table_of(EventRow)
_issue = table_of(Issue)
#: Rows read at a time.
_SLICE = 10_000
#: The kinds of events that rules can count.
_COUNTED = [kind for kind in RECIPIENTS if kind not in {EventKind.OPEN, EventKind.CLICK}]


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that a rule would have made, or the message of a rule that only tells."""

    send_id: int
    #: The slug of the send's issue.
    slug: str
    at: datetime
    #: Recipients that the provider had accepted by then, and all that it accepted.
    accepted: int
    accepted_in_all: int
    #: Recipients whom an event had happened to that the rule counts.
    affected: int
    #: Whether the rule does not match the figures that the send had in the end.
    in_vain: bool
    #: Whether the rule pauses nothing.
    tells: bool = False

    @property
    def share(self) -> float:
        """The share of recipients at the pause, from 0 to 1."""
        return self.affected / self.accepted

    @property
    def saved(self) -> int:
        """Emails that left after the pause, and would not have."""
        return 0 if self.tells else self.accepted_in_all - self.accepted


@dataclass(slots=True)
class Backtest:
    """What rules would have done."""

    rules: Sequence[BreakerRule]
    #: Sends that were judged, and those that were not because their events are deleted.
    sends: int = 0
    without_events: int = 0
    #: Name of a rule → its pauses, in the order of the sends.
    pauses: dict[str, list[Pause]] = field(default_factory=dict)

    @property
    def paused_sends(self) -> set[int]:
        """The sends that any of the rules would have paused."""
        return {
            pause.send_id for pauses in self.pauses.values() for pause in pauses if not pause.tells
        }

    @property
    def paused_percent(self) -> float:
        """The share of the judged sends that any of the rules would have paused, in percent."""
        return 100 * len(self.paused_sends) / self.sends if self.sends else 0.0


def backtest(session: Session, rules: Sequence[BreakerRule], *, since: datetime) -> Backtest:
    """Judge each send that started at ``since`` or later by each rule, as if it were the only one.

    Two queries for each send; memory does not grow with the number of recipients.
    """
    rows = session.execute(
        select(_send.c.id, _issue.c.slug, _send.c.summarized_at)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(_send.c.started_at >= since)
        .order_by(_send.c.id)
    ).all()
    final = final_sends(session, [row.id for row in rows])
    result = Backtest(rules, pauses={rule.name: [] for rule in rules})
    for row in rows:
        if row.id in final or row.summarized_at is not None:
            result.without_events += 1
            continue
        result.sends += 1
        for name, pause in _judge(session, row.id, row.slug, rules):
            result.pauses[name].append(pause)
    return result


def _judge(
    session: Session, send_id: int, slug: str, rules: Collection[BreakerRule]
) -> Iterator[tuple[str, Pause]]:
    counts, first = Counter[str](), dict[str, tuple[datetime, int, int]]()
    open_rules = list(rules)
    for at, what, number in _history(session, send_id):
        counts[what] += number
        for rule in open_rules:
            if (what == ACCEPTED or what in counters_of(frozenset(rule.counts))) and rule.matches(
                counts
            ):
                first[rule.name] = at, counts[ACCEPTED], rule.affected(counts)
        open_rules = [rule for rule in open_rules if rule.name not in first]
    for rule in rules:
        if rule.name in first:
            at, accepted, affected = first[rule.name]
            yield (
                rule.name,
                Pause(
                    send_id,
                    slug,
                    at,
                    accepted,
                    accepted_in_all=counts[ACCEPTED],
                    affected=affected,
                    in_vain=not rule.matches(counts),
                    tells=rule.action == "tell",
                ),
            )


def _history(session: Session, send_id: int) -> Iterator[tuple[datetime, str, int]]:
    """What the counters of a send were increased by, in order of time: time, counter, number."""
    batches = iter(
        session.execute(
            select(_batch.c.settled_at, _batch.c.size)
            .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.ACCEPTED)
            .order_by(_batch.c.settled_at)
        ).all()
    )
    received = func.min(_event.c.received_at)
    # As the counters do: each recipient once for each kind.
    events = session.execute(
        select(received, _event.c.kind, _event.c.subscriber_id)
        .where(_event.c.send_id == send_id, _event.c.kind.in_(_COUNTED))
        .group_by(_event.c.kind, _event.c.subscriber_id)
        .order_by(received),
        execution_options={"yield_per": _SLICE},
    )
    unsubscribed = set[int | None]()
    batch = next(batches, None)
    for at, kind, subscriber_id in events:
        while batch is not None and batch.settled_at <= at:
            yield batch.settled_at, ACCEPTED, batch.size
            batch = next(batches, None)
        if kind not in UNSUBSCRIBED_BY:
            yield at, RECIPIENTS[kind], 1
            continue
        yield at, UNSUBSCRIBED_BY[kind], 1
        if subscriber_id not in unsubscribed:
            # By both links, but one recipient.
            unsubscribed.add(subscriber_id)
            yield at, RECIPIENTS[kind], 1
    while batch is not None:
        yield batch.settled_at, ACCEPTED, batch.size
        batch = next(batches, None)


def beside_each_other(
    results: Mapping[str, Backtest],
) -> list[tuple[BreakerRule, str, Sequence[Pause]]]:
    """Rule, version and pauses, with the versions of one rule one after the other.

    ``results`` has the name of a version, such as "now", and its backtest.
    """
    names = list(dict.fromkeys(rule.name for one in results.values() for rule in one.rules))
    of_all = [
        (rule, version, result.pauses[rule.name])
        for version, result in results.items()
        for rule in result.rules
    ]
    return sorted(of_all, key=lambda one: names.index(one[0].name))


def percent(share: float | Decimal) -> str:
    """A share from 0 to 1 in percent, such as "5.02 %"."""
    return f"{100 * float(share):.2f} %"
