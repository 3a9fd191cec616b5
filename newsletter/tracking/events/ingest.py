"""Event ingestion: stores each event once, applies it and counts it, in the caller's transaction.

The pipeline of ``ingest``:

1. Drop events that the post repeats, and record which forgotten sends they name.
2. Attribute each event: an event of another installation loses its IDs (attribution).
3. Store the events; those that are stored already go no further.
4. Judge each new event once: its effects (policy), and the hash of the address that it may
   suppress.
5. Read what outweighs a suppression: later opt-ins (resubscription) and list removals.
6. Collect the changes of all events, so that each table is written once for all of them.
7. Mark batches as accepted, then update deliveries: a delivery has to be accepted before it
   can be delivered.
8. Record soft bounces, and suppress the addresses that have too many.
9. Record the outcomes of single emails (outbox).
10. Count: bots apart (bot_detection), recipients once each; record the last open and click.
11. Write suppressions, then list removals, then the counters.

A post costs a handful of statements, whatever its size. The result depends on which events came,
not on their order, repeats or posts. Rows are locked in one order (batches, deliveries,
subscribers, addresses, counters; each sorted), so that concurrent posts wait for each other and
do not deadlock. An import locks the table of subscribers first, too.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import orjson
from sqlalchemy import Row, func, select

from newsletter.db import bulk_rows
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import Event, EventKind
from newsletter.sending.delivery import outbox
from newsletter.sending.ledger import batches, deliveries, forgotten_sends
from newsletter.sending.ledger.batches import DeliveryRef
from newsletter.sending.ledger.deliveries import DeliveryUpdate
from newsletter.sending.states import DeliveryState
from newsletter.tracking import event_horizon, list_removal
from newsletter.tracking.events import attribution, bot_detection, soft_bounces
from newsletter.tracking.events.attribution import HashOf
from newsletter.tracking.events.resubscription import Resubscriptions, is_superseded, opt_ins
from newsletter.tracking.events.suppression_policy import (
    Effects,
    SuppressionScope,
    Thresholds,
    effects_of,
)
from newsletter.tracking.list_removal import Removal
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.counters import RECIPIENTS, CountedEvent, CounterDelta
from subscribers import engagement
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof
from subscribers.email_address import without_addresses
from subscribers.models import SuppressionReason

_Key = TypeVar("_Key", int, bytes)
_event = table_of(EventRow)


@dataclass(slots=True)
class IngestReport:
    """How many events of a post were new and repeated, and how many addresses it suppressed."""

    new: int = 0
    repeated: int = 0
    suppressed: int = 0
    #: The new events.
    added: Sequence[Event] = ()


class _JudgedEvent(NamedTuple):
    """A new event with what follows from it."""

    event: Event
    effects: Effects
    #: The hash of the address that the event may suppress; None for most events.
    address_hash: bytes | None


@dataclass(slots=True)
class _Changes:
    """The effects of many events, collected so that each table is written once for all."""

    delivery_refs: set[DeliveryRef] = field(default_factory=set)
    deliveries: list[DeliveryUpdate] = field(default_factory=list)
    subscribers: dict[SuppressionReason, dict[int, Proof]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    addresses: dict[SuppressionReason, dict[bytes, Proof]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    #: (address hash, event key) → when it bounced.
    soft_bounces: dict[tuple[bytes, bytes], datetime] = field(default_factory=dict)
    #: Address hash → the evidence of its last soft bounce.
    soft_evidence: dict[bytes, str] = field(default_factory=dict)
    #: Address hash → address that has to leave the provider's bounce list: its bounce says
    #: nothing about the mailbox.
    list_removals: dict[bytes, str] = field(default_factory=dict)


def ingest(
    session: Session,
    events: Sequence[Event],
    *,
    now: datetime,
    hash_of: HashOf,
    rules: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> IngestReport:
    """Store and apply the new ones among ``events``; repeats are only counted."""
    unique = {(event.at, event.key): event for event in events}
    forgotten_sends.mark_answered(
        session,
        {
            (event.send_id, event.made, event.batch)
            for event in unique.values()
            if event.send_id is not None and event.made is not None and event.batch is not None
        },
    )
    attributed = attribution.attribute_events(
        session, [unique[key] for key in sorted(unique)], hash_of
    )
    new = _store(session, attributed, now)
    judged = [_judge(event, hash_of) for event in new]
    resubscriptions, removals = _read_exemptions(session, judged)
    changes = _Changes()
    for one in judged:
        _collect(changes, one, resubscriptions, removals)
    proved = batches.open_batches_of(session, changes.delivery_refs)
    batches.mark_accepted(session, proved, now=now, detail="proved by an event")
    deliveries.apply_updates(session, changes.deliveries)
    since = {hashed: removal.since for hashed, removal in removals.items() if removal.since}
    _apply_soft_bounces(session, changes, rules, {**since, **resubscriptions.since()})
    outbox.note_outcomes(session, new)
    counters = _count(session, judged, rules)
    suppressed = _suppress(session, changes)
    list_removal.add(session, changes.list_removals, now=now)
    counters.write(session)
    return IngestReport(len(new), len(events) - len(new), suppressed, new)


def _store(session: Session, events: Sequence[Event], now: datetime) -> list[Event]:
    """Insert the events; returns those that were not stored before."""
    if not events:
        return []
    rows = [
        {
            "at": event.at,
            "key": event.key,
            "kind": str(event.kind),
            "received_at": now,
            "issue_id": event.issue_id,
            "send_id": event.send_id,
            "batch": event.batch,
            "subscriber_id": event.subscriber_id,
            "domain": event.domain,
            "link": event.link,
            "by_machine": bot_detection.by_machine(event),
            # An event without a subscriber, such as one of a confirmation request, would not be
            # found when its address is erased. So the address is not stored.
            "raw": _without_addresses(event.raw) if event.subscriber_id is None else event.raw,
        }
        for event in events
    ]
    stored = bulk_rows.insert_new(session, _event, rows, "key")
    return [event for event in events if event.key in stored]


def _without_addresses(raw: str) -> str:
    fields = orjson.loads(raw).items()
    cleaned = {k: without_addresses(v) if isinstance(v, str) else v for k, v in fields}
    return orjson.dumps(cleaned).decode()


def _judge(event: Event, hash_of: HashOf) -> _JudgedEvent:
    effects = effects_of(event)
    if effects.suppress is None or not event.email:
        return _JudgedEvent(event, effects, None)
    return _JudgedEvent(event, effects, hash_of(event.email))


def _read_exemptions(
    session: Session, judged: Sequence[_JudgedEvent]
) -> tuple[Resubscriptions, Mapping[bytes, Removal]]:
    """The later opt-ins and the list removals of those whom the events would suppress."""
    suppressing = [one for one in judged if one.effects.suppress is not None]
    hashes = {one.address_hash for one in suppressing if one.address_hash}
    subscribers = {
        one.event.subscriber_id for one in suppressing if one.event.subscriber_id is not None
    }
    return opt_ins(session, subscribers, hashes), list_removal.removals(session, hashes)


def _collect(
    changes: _Changes,
    judged: _JudgedEvent,
    resubscriptions: Resubscriptions,
    removals: Mapping[bytes, Removal],
) -> None:
    event, effects, hashed = judged
    subscriber = event.subscriber_id
    reason = without_addresses(event.reason)
    ids = event.send_id, event.batch, event.issue_id, subscriber
    # Our own unsubscribe page does not know the batch.
    if event.kind is not EventKind.UNSUBSCRIBE and None not in ids:
        changes.delivery_refs.add(DeliveryRef._make(ids))
    if effects.delivery and event.issue_id is not None and subscriber is not None:
        # A failed delivery needs a reason: the list of failed recipients shows it.
        failed = effects.delivery is not DeliveryState.DELIVERED
        changes.deliveries.append(
            DeliveryUpdate(
                event.issue_id,
                subscriber,
                effects.delivery,
                (reason or str(event.kind)) if failed else None,
            )
        )
    if effects.suppress is None:
        return
    removal = removals.get(hashed) if hashed else None
    if removal and removal.overrides(effects.suppress, event.at, listed=effects.listed):
        return
    evidence = f"{event.kind}: {reason}".rstrip(": ")
    proof = Proof(event.at, evidence)
    if effects.soft:
        if hashed:
            changes.soft_bounces[hashed, event.key] = event.at
            changes.soft_evidence[hashed] = evidence
            if event.kind is EventKind.BOUNCE and event.email:
                changes.list_removals[hashed] = event.email
        return
    if (
        effects.scope is SuppressionScope.SUBSCRIBER
        and subscriber is not None
        and not is_superseded(event.at, effects, resubscriptions.subscribers.get(subscriber))
    ):
        _keep_latest(changes.subscribers[effects.suppress], subscriber, proof)
    if hashed and not is_superseded(event.at, effects, resubscriptions.addresses.get(hashed)):
        _keep_latest(changes.addresses[effects.suppress], hashed, proof)


def _keep_latest(proofs: dict[_Key, Proof], key: _Key, proof: Proof) -> None:
    proofs[key] = max(proof, proofs.get(key, proof))


def _apply_soft_bounces(
    session: Session, changes: _Changes, rules: Thresholds, since: Mapping[bytes, datetime]
) -> None:
    """Store the soft bounces, and have the addresses suppressed that have too many."""
    for address in soft_bounces.add(session, changes.soft_bounces, rules, since):
        changes.list_removals.pop(address, None)
        evidence = (
            f"{rules.soft_bounces} soft bounces within {rules.soft_bounce_days.days} days: "
            f"{changes.soft_evidence[address]}"
        )
        at = max(at for (hashed, _), at in changes.soft_bounces.items() if hashed == address)
        _keep_latest(changes.addresses[SuppressionReason.BOUNCED], address, Proof(at, evidence))


def _suppress(session: Session, changes: _Changes) -> int:
    suppressed = 0
    for reason in SuppressionReason:
        subscribers = changes.subscribers.get(reason, {})
        proofs = suppression.proofs_by_address(session, subscribers) if subscribers else {}
        for hashed, proof in changes.addresses.get(reason, {}).items():
            _keep_latest(proofs, hashed, proof)
        suppressed += suppression.add_with_proofs(session, proofs, reason)
    return suppressed


def _count(session: Session, judged: Sequence[_JudgedEvent], rules: Thresholds) -> CounterDelta:
    """Count the events, and record who opened and clicked, without bots and final sends.

    Writes the counters of recipients. The caller writes those of sends, which every post changes.
    """
    counters = CounterDelta()
    final = event_horizon.final_sends(
        session, {one.event.send_id for one in judged if one.event.send_id}
    )
    counted = [one.event for one in judged if one.event.send_id not in final]
    alike = Counter((_counted_event(event), bot_detection.by_machine(event)) for event in counted)
    for (one_kind, by_machine), number in alike.items():
        counters.add(one_kind, number, by_machine=by_machine)
    counters.write_recipients(session)
    clicks = [event for event in counted if event.kind is EventKind.CLICK]
    scanned = bot_detection.mark_scanned_clicks(session, clicks, rules)
    for row in scanned:
        click = CountedEvent(
            row.send_id, row.subscriber_id, row.kind, _day(row.at), row.domain, row.link
        )
        counters.add(click, -1)
        counters.add(click, by_machine=True)
    _record_engagement(session, judged, scanned)
    return counters


def _record_engagement(
    session: Session, judged: Sequence[_JudgedEvent], scanned: Sequence[Row[Any]]
) -> None:
    """Record each subscriber's last open and click; undo a last click that was a scanner's."""
    not_human = {row.key for row in scanned}
    latest: dict[str, dict[int, datetime]] = {EventKind.OPEN: {}, EventKind.CLICK: {}}
    for event, effects, _ in judged:
        subscriber = event.subscriber_id
        human = not bot_detection.by_machine(event) and event.key not in not_human
        if human and subscriber is not None and effects.engaged:
            times = latest[event.kind]
            times[subscriber] = max(event.at, times.get(subscriber, event.at))
    new = {one.event.key for one in judged}
    mistaken: dict[int, datetime] = {}
    for row in scanned:
        if row.key not in new:
            mistaken[row.subscriber_id] = max(row.at, mistaken.get(row.subscriber_id, row.at))
    if mistaken:
        human_clicks = (
            select(_event.c.subscriber_id, func.max(_event.c.at))
            .where(
                _event.c.subscriber_id.in_(mistaken),
                _event.c.kind == EventKind.CLICK,
                _event.c.by_machine.is_(False),
            )
            .group_by(_event.c.subscriber_id)
        )
        others = {row[0]: row[1] for row in session.execute(human_clicks)}
        engagement.replace_bot_clicks(session, mistaken, others)
    engagement.record(session, opened=latest[EventKind.OPEN], clicked=latest[EventKind.CLICK])


def _counted_event(event: Event) -> CountedEvent:
    return CountedEvent(
        event.send_id,
        # The subscriber matters to counters of recipients only. Other events are counted alike.
        event.subscriber_id if event.kind in RECIPIENTS else None,
        str(event.kind),
        _day(event.at),
        event.domain,
        event.link,
    )


@lru_cache(maxsize=100_000)  # the seconds of a day
def _day(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()
