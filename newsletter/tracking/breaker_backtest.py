"""Applies rules of the circuit breaker to past sends, to see what they would have done.

The rules are judged by the functions that pause sends, with the counts of recipients as they grew:
acceptances by the time at which batches were settled, events by the time at which they were
received, all events of one post at once. A rule that only tells is judged likewise. Only the first
pause of each send counts, because nobody knows what would have happened after a resume. Sends of
which events are deleted are left out, and counted.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Row, func, select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.provider.events import EventKind
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import BatchState
from newsletter.tracking import circuit_breaker, event_silence
from newsletter.tracking.breaker_rules import (
    ACCEPTED,
    CountRule,
    Rule,
    SilenceRule,
    at_domain,
)
from newsletter.tracking.event_horizon import final_sends
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.counters import RECIPIENTS, UNSUBSCRIBED_BY
from newsletter.tracking.stats.rates import FINAL_EVENTS

_send, _batch, _event = table_of(Send), table_of(Batch), table_of(EventRow)
_issue = table_of(Issue)
#: Rows read at a time.
_SLICE = 10_000
#: The most mail domains that a query names; a database takes some tens of thousands of values.
_MOST_NAMED = 1000
#: The kinds of events that rules can count.
_COUNTED = [kind for kind in RECIPIENTS if kind not in {EventKind.OPEN, EventKind.CLICK}]


class _Change(NamedTuple):
    """An increase of a counter of the whole send, or of a mail domain."""

    at: datetime
    what: str
    domain: str
    number: int


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
    #: Recipients whom an event had happened to that the rule counts; of a rule about silence,
    #: those whose emails had left without any event since.
    affected: int
    #: The recipients of whom the rule takes the share: those accepted, or a mail domain's.
    whole: int
    #: Whether the rule does not match the figures that the send had in the end. Of a rule about
    #: silence: whether events of the time before the pause came after all.
    in_vain: bool
    #: Whether the rule pauses nothing.
    tells: bool = False
    #: The mail domain that matched the rule; empty for the whole send.
    domain: str = ""

    @property
    def share(self) -> float:
        """The share of recipients at the pause, from 0 to 1."""
        return self.affected / self.whole

    @property
    def where(self) -> str:
        """The mail domain, or what stands for the whole send."""
        return self.domain or "all"

    @property
    def saved(self) -> int:
        """Emails that left after the pause, and would not have."""
        return 0 if self.tells else self.accepted_in_all - self.accepted


@dataclass(slots=True)
class Backtest:
    """What rules would have done."""

    rules: Sequence[Rule]
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


def backtest(session: Session, rules: Sequence[Rule], *, since: datetime) -> Backtest:
    """Judge each send that started at ``since`` or later by each rule, as if it were the only one.

    A few queries for each send; memory does not grow with the number of recipients.
    """
    rows = session.execute(
        select(_send.c.id, _issue.c.slug, _send.c.finished_at, _send.c.summarized_at)
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
        for name, pause in _judge(session, row, rules):
            result.pauses[name].append(pause)
    return result


def _judge(
    session: Session, send: Row[Any], rules: Collection[Rule]
) -> Iterator[tuple[str, Pause]]:
    batches = session.execute(
        select(_batch.c.settled_at, _batch.c.departed_at, _batch.c.size)
        .where(_batch.c.send_id == send.id, _batch.c.state == BatchState.ACCEPTED)
        .order_by(_batch.c.settled_at)
    ).all()
    of_counts = [rule for rule in rules if isinstance(rule, CountRule)]
    yield from _judge_counts(session, send, of_counts, batches)
    for rule in rules:
        if isinstance(rule, SilenceRule):
            pause = _silent(session, send, rule, batches)
            if pause is not None:
                yield rule.name, pause


def _judge_counts(
    session: Session, send: Row[Any], rules: Sequence[CountRule], batches: Sequence[Row[Any]]
) -> Iterator[tuple[str, Pause]]:
    counts, first = Counter[str](), dict[str, Pause]()
    accepted_in_all = sum(batch.size for batch in batches)
    # Counts only grow: a mail domain that no rule can judge at the end, none could judge before.
    domains = circuit_breaker.domains_to_judge(session, send.id, rules)
    history = _history(session, send.id, batches, domains)
    domains.add("")
    open_rules = list(rules)
    for at, changes in groupby(history, key=itemgetter(0)):
        had_delivered, changed = counts[EventKind.DELIVERED] > 0, {""}
        for _, what, domain, number in changes:
            counts[at_domain(what, domain)] += number
            changed.add(domain)
        # Before the first delivered email, no mail domain is judged.
        judged = changed if had_delivered else domains
        for rule in open_rules:
            if matching := rule.matching(counts, judged):
                first[rule.name] = Pause(
                    send.id,
                    send.slug,
                    at,
                    accepted=counts[ACCEPTED],
                    accepted_in_all=accepted_in_all,
                    affected=rule.affected(counts, matching[0]),
                    whole=rule.whole(counts, matching[0]),
                    in_vain=False,
                    tells=rule.action == "tell",
                    domain=matching[0],
                )
        open_rules = [rule for rule in open_rules if rule.name not in first]
    for rule in rules:
        if pause := first.get(rule.name):
            yield rule.name, replace(pause, in_vain=not rule.matching(counts, domains))


def _history(
    session: Session, send_id: int, batches: Sequence[Row[Any]], domains: Collection[str]
) -> Iterator[_Change]:
    """What the counters of a send and of these mail domains were increased by, in order of time."""
    accepted = (_Change(batch.settled_at, ACCEPTED, "", batch.size) for batch in batches)
    judged = frozenset(domains)
    streams = [accepted, _recipients(session, send_id, judged)]
    if judged:
        streams.append(_final_events(session, send_id, judged))
    return heapq.merge(*streams, key=itemgetter(0))


def _recipients(session: Session, send_id: int, domains: frozenset[str]) -> Iterator[_Change]:
    received = func.min(_event.c.received_at)
    # As the counters do: each recipient once for each kind.
    events = session.execute(
        select(received, _event.c.kind, _event.c.subscriber_id, _event.c.domain)
        .where(
            _event.c.send_id == send_id,
            _event.c.kind.in_(_COUNTED),
            _event.c.subscriber_id.is_not(None),
        )
        .group_by(_event.c.kind, _event.c.subscriber_id, _event.c.domain)
        .order_by(received),
        execution_options={"yield_per": _SLICE},
    )
    unsubscribed = set[tuple[int | None, str]]()
    for at, kind, subscriber_id, domain in events:
        names = [UNSUBSCRIBED_BY.get(kind, RECIPIENTS[kind])]
        if kind in UNSUBSCRIBED_BY and (subscriber_id, domain) not in unsubscribed:
            # By both links, but one recipient.
            unsubscribed.add((subscriber_id, domain))
            names.append(RECIPIENTS[kind])
        for name in names:
            yield _Change(at, name, "", 1)
            if domain in domains:
                yield _Change(at, name, domain, 1)


def _final_events(session: Session, send_id: int, domains: frozenset[str]) -> Iterator[_Change]:
    """The final events of these mail domains, and the first delivered email of the send."""
    of_send = _event.c.send_id == send_id
    delivered = of_send & (_event.c.kind == EventKind.DELIVERED)
    first = session.scalar(select(func.min(_event.c.received_at)).where(delivered))
    final = of_send & _event.c.kind.in_(FINAL_EVENTS)
    if len(domains) <= _MOST_NAMED:
        final &= _event.c.domain.in_(sorted(domains))
    key = _event.c.received_at, _event.c.kind, _event.c.domain
    events = session.execute(
        select(*key, func.count()).where(final).group_by(*key).order_by(_event.c.received_at),
        execution_options={"yield_per": _SLICE},
    )
    for at, kind, domain, number in events:
        if first is not None and first <= at:
            yield _Change(first, EventKind.DELIVERED, "", 1)
            first = None
        if domain in domains:
            yield _Change(at, kind, domain, number)
    if first is not None:
        yield _Change(first, EventKind.DELIVERED, "", 1)


def _silent(
    session: Session, send: Row[Any], rule: SilenceRule, batches: Sequence[Row[Any]]
) -> Pause | None:
    """The first pause by a rule about silence: looks when the silence of each batch would be long
    enough, except batches of which a later event is known."""
    end = min(send.finished_at or datetime.now(UTC), datetime.now(UTC))
    heard: datetime | None = None
    for departed in sorted(batch.departed_at for batch in batches if batch.departed_at):
        at = departed + rule.silence
        if at > end:
            break
        if heard is not None and departed <= heard + event_silence.TOLERANCE:
            continue
        silence = event_silence.of_send(
            session, send.id, limit=rule.silence, now=at, received_by=at, departed_by=at
        )
        if silence is None:
            heard = event_silence.last_event(session, now=at, received_by=at)
            continue
        later = event_silence.of_send(session, send.id, limit=rule.silence, now=at, departed_by=at)
        accepted = sum(batch.size for batch in batches if batch.settled_at <= at)
        return Pause(
            send.id,
            send.slug,
            at,
            accepted=accepted,
            accepted_in_all=sum(batch.size for batch in batches),
            affected=silence.emails,
            whole=max(accepted, silence.emails),
            in_vain=later is None,
            tells=rule.action == "tell",
        )
    return None


def beside_each_other(
    results: Mapping[str, Backtest],
) -> list[tuple[Rule, str, Sequence[Pause]]]:
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
