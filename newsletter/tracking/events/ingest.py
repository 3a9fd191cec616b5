"""Events in: each stored once, applied, counted, in the caller's transaction.

Works on sets: the cost of a post is a handful of statements, whatever its size. What is
in the end depends on which events came, not on their order, repeats or posts. Rows are
taken in one order (batches, deliveries, people, addresses, figures; each sorted), so that
posts at the same time wait for each other and do not deadlock. An import takes the table of
people first as well.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row, func, select

from newsletter.db import bulk_rows
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import Event, EventKind
from newsletter.sending.delivery import outbox
from newsletter.sending.ledger import confirmations, forgotten_sends
from newsletter.sending.ledger.confirmations import DeliveryRef, DeliveryUpdate
from newsletter.sending.states import DeliveryState
from newsletter.tracking import event_horizon, list_removal
from newsletter.tracking.events import attribution, bot_detection, soft_bounces
from newsletter.tracking.events.attribution import HashOf
from newsletter.tracking.events.policy import SuppressionScope, Thresholds, effects
from newsletter.tracking.events.resubscription import Resubscriptions, is_superseded, opt_ins
from newsletter.tracking.list_removal import Removal
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.counters import PEOPLE, CountedEvent, CounterDelta
from subscribers import engagement
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof
from subscribers.email_address import without_addresses
from subscribers.models import SuppressionReason

_Who = TypeVar("_Who", int, bytes)
_event = table_of(EventRow)


@dataclass(slots=True)
class Ingested:
    """What a post brought."""

    new: int = 0
    repeated: int = 0
    suppressed: int = 0


@dataclass(slots=True)
class _Changes:
    """The effects of many events, gathered so that each is written once for all."""

    carried: set[DeliveryRef] = field(default_factory=set)
    deliveries: list[DeliveryUpdate] = field(default_factory=list)
    people: dict[SuppressionReason, dict[int, Proof]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    addresses: dict[SuppressionReason, dict[bytes, Proof]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    #: (address hash, event key) → when, and what the last of an address said.
    soft: dict[tuple[bytes, bytes], datetime] = field(default_factory=dict)
    soft_words: dict[bytes, str] = field(default_factory=dict)
    #: The provider lists these addresses for a bounce that says nothing of the mailbox.
    unlisted: dict[bytes, str] = field(default_factory=dict)


def ingest(
    session: Session,
    events: Sequence[Event],
    *,
    now: datetime,
    hash_of: HashOf,
    rules: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> Ingested:
    """Store and apply what is new among ``events``; repeats are only counted."""
    unique = {(event.at, event.key): event for event in events}
    forgotten_sends.prove(
        session,
        {
            (event.send_id, event.made, event.batch)
            for event in unique.values()
            if event.send_id is not None and event.made is not None and event.batch is not None
        },
    )
    known = attribution.attribute_events(session, [unique[key] for key in sorted(unique)], hash_of)
    fresh = _store(session, known, now)
    changes, came = _Changes(), opt_ins(session, fresh, hash_of)
    hashes = {event: _hash_to_suppress(event, hash_of) for event in fresh}
    removals = list_removal.removals(session, filter(None, hashes.values()))
    for event in fresh:
        _gather(changes, event, hashes[event], came, removals)
    # Acceptance first: a delivery has to be accepted before it can be delivered.
    batches = confirmations.open_batches_of(session, changes.carried)
    confirmations.mark_accepted(session, batches, now=now, detail="proved by an event")
    confirmations.apply_updates(session, changes.deliveries)
    since = {hashed: removal.since for hashed, removal in removals.items() if removal.since}
    for address in soft_bounces.add(session, changes.soft, rules, {**since, **came.since()}):
        changes.unlisted.pop(address, None)
        days = rules.soft_bounce_days.days
        words = (
            f"{rules.soft_bounces} soft bounces within {days} days: {changes.soft_words[address]}"
        )
        at = max(at for (hashed, _), at in changes.soft.items() if hashed == address)
        _latest(changes.addresses[SuppressionReason.BOUNCED], address, Proof(at, words))
    outbox.note_outcomes(session, fresh)
    done = Ingested(new=len(fresh), repeated=len(events) - len(fresh))
    tally = _count(session, fresh, rules)
    done.suppressed = _suppress(session, changes)
    list_removal.add(session, changes.unlisted, now=now)
    tally.write(session)
    return done


def _store(session: Session, events: Sequence[Event], now: datetime) -> list[Event]:
    """Insert the events; those whose key is known already are not among the returned."""
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
            # Of a mail to nobody known, as one that asks for a confirmation: whoever has their
            # data erased is not found by it.
            "raw": _nameless(event.raw) if event.subscriber_id is None else event.raw,
        }
        for event in events
    ]
    stored = bulk_rows.insert_new(session, _event, rows, "key")
    return [event for event in events if event.key in stored]


def _nameless(raw: str) -> str:
    entry = orjson.loads(raw).items()
    told = {k: without_addresses(v) if isinstance(v, str) else v for k, v in entry}
    return orjson.dumps(told).decode()


def _hash_to_suppress(event: Event, hash_of: HashOf) -> bytes | None:
    """The hash of the address that the event may suppress; None for most events."""
    return hash_of(event.email) if event.email and effects(event).suppress is not None else None


def _gather(
    changes: _Changes,
    event: Event,
    hashed: bytes | None,
    came: Resubscriptions,
    removals: Mapping[bytes, Removal],
) -> None:
    person, effect = event.subscriber_id, effects(event)
    said = without_addresses(event.reason)
    ids = event.send_id, event.batch, event.issue_id, person
    # Our own page knows nothing of batches.
    if event.kind is not EventKind.UNSUBSCRIBE and None not in ids:
        changes.carried.add(DeliveryRef._make(ids))
    if effect.delivery and event.issue_id is not None and person is not None:
        # Whoever is set apart has a reason: by that they are found.
        apart = effect.delivery is not DeliveryState.DELIVERED
        reason = (said or str(event.kind)) if apart else None
        changes.deliveries.append(DeliveryUpdate(event.issue_id, person, effect.delivery, reason))
    if effect.suppress is None:
        return
    removal = removals.get(hashed) if hashed else None
    if removal and removal.ends(effect.suppress, event.at, listed=effect.listed):
        return
    words = f"{event.kind}: {said}".rstrip(": ")
    proof = Proof(event.at, words)
    if effect.soft:
        if hashed:
            changes.soft[hashed, event.key] = event.at
            changes.soft_words[hashed] = words
            if event.kind is EventKind.BOUNCE and event.email:
                changes.unlisted[hashed] = event.email
        return
    of_person = effect.whose is SuppressionScope.PERSON and not is_superseded(
        event, came.people.get(person)
    )
    if person is not None and of_person:
        _latest(changes.people[effect.suppress], person, proof)
    if hashed and not is_superseded(event, came.addresses.get(hashed)):
        _latest(changes.addresses[effect.suppress], hashed, proof)


def _latest(proofs: dict[_Who, Proof], who: _Who, proof: Proof) -> None:
    proofs[who] = max(proof, proofs.get(who, proof))


def _suppress(session: Session, changes: _Changes) -> int:
    suppressed = 0
    for reason in SuppressionReason:
        people = changes.people.get(reason, {})
        proofs = suppression.proofs_by_address(session, people) if people else {}
        for hashed, proof in changes.addresses.get(reason, {}).items():
            _latest(proofs, hashed, proof)
        suppressed += suppression.add_with_proofs(session, proofs, reason)
    return suppressed


def _count(session: Session, fresh: Sequence[Event], rules: Thresholds) -> CounterDelta:
    """Count the events and note who read, both without machines, unless the figures are final.

    The figures of sends, which all posts write, are still to be written.
    """
    tally, final = (
        CounterDelta(),
        event_horizon.final(session, {e.send_id for e in fresh if e.send_id}),
    )
    counted = [event for event in fresh if event.send_id not in final]
    alike = Counter((_happening(event), bot_detection.by_machine(event)) for event in counted)
    for (one, by_machine), number in alike.items():
        tally.add(one, number, by_machine=by_machine)
    tally.write_people(session)
    clicks = [event for event in counted if event.kind is EventKind.CLICK]
    revealed = bot_detection.reveal(session, clicks, rules)
    for row in revealed:
        one = CountedEvent(
            row.send_id, row.subscriber_id, row.kind, _day(row.at), row.domain, row.link
        )
        tally.add(one, -1)
        tally.add(one, by_machine=True)
    _note_readers(session, fresh, revealed)
    return tally


def _note_readers(session: Session, fresh: Sequence[Event], revealed: Sequence[Row[Any]]) -> None:
    """When people last opened and clicked; what turned out a scanner's is taken back."""
    not_human = {row.key for row in revealed}
    latest: dict[str, dict[int, datetime]] = {EventKind.OPEN: {}, EventKind.CLICK: {}}
    for event in fresh:
        person = event.subscriber_id
        human = not bot_detection.by_machine(event) and event.key not in not_human
        if human and person is not None and effects(event).engaged:
            moments = latest[event.kind]
            moments[person] = max(event.at, moments.get(person, event.at))
    new = {event.key for event in fresh}
    mistaken: dict[int, datetime] = {}
    for row in revealed:
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


def _happening(event: Event) -> CountedEvent:
    return CountedEvent(
        event.send_id,
        # Whom it happened to matters to figures of people only: the others are alike.
        event.subscriber_id if event.kind in PEOPLE else None,
        str(event.kind),
        _day(event.at),
        event.domain,
        event.link,
    )


@lru_cache(maxsize=100_000)  # the seconds of a day
def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()
