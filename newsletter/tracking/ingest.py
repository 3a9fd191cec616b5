"""Events in: each stored once, applied, counted, in the caller's transaction.

Works on sets: the cost of a post is a handful of statements, whatever its size. All
effects may be repeated without harm, so even an event that slips past the key
changes nothing twice but a count.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from newsletter.provider.events import Event, Kind
from newsletter.sending import evidence
from newsletter.sending.states import DeliveryState
from newsletter.tracking import counts
from newsletter.tracking.models import EventRow
from newsletter.tracking.policy import Whose, effects
from subscribers import engagement, suppression
from subscribers.models import SuppressionReason
from subscribers.schema import Session, insert_into, table_of

_T = TypeVar("_T")
_event = table_of(EventRow)

#: The keyed hash of an address as an event spells it; None for what is no address.
HashOf = Callable[[str], bytes | None]


@dataclass(slots=True)
class Ingested:
    """What a post brought."""

    new: int = 0
    repeated: int = 0
    suppressed: int = 0


@dataclass(slots=True)
class _Changes:
    """The effects of many events, gathered so that each is written once for all."""

    batches: set[tuple[int, int]] = field(default_factory=set)
    deliveries: dict[tuple[int, DeliveryState, str | None], set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    people: dict[tuple[SuppressionReason, str], set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    addresses: dict[tuple[SuppressionReason, str], set[bytes]] = field(
        default_factory=lambda: defaultdict(set)
    )
    opened: dict[int, datetime] = field(default_factory=dict)
    clicked: dict[int, datetime] = field(default_factory=dict)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)


def ingest(
    session: Session, events: Sequence[Event], *, now: datetime, hash_of: HashOf
) -> Ingested:
    """Store and apply what is new among ``events``; repeats are only counted."""
    unique = {event.key: event for event in events}
    fresh = _store(session, list(unique.values()), now)
    changes = _Changes()
    for event in fresh:
        _gather(changes, event, hash_of)
    # Acceptance first: a delivery has to be accepted before it can be delivered.
    evidence.prove(session, changes.batches, now=now, detail="proved by an event")
    # In the order of the life of a mail, so that the last word stands.
    for (issue_id, state, reason), people in sorted(
        changes.deliveries.items(), key=lambda item: _ORDER[item[0][1]]
    ):
        evidence.advance(session, issue_id, people, state, reason)
    done = Ingested(new=len(fresh), repeated=len(events) - len(fresh))
    done.suppressed = _suppress(session, changes, now)
    engagement.record(session, opened=changes.opened, clicked=changes.clicked)
    counts.add(session, changes.counts)
    return done


_ORDER = {state: rank for rank, state in enumerate(DeliveryState)}


def _store(session: Session, events: Sequence[Event], now: datetime) -> list[Event]:
    """Insert the events; those whose key is known already are not among the returned."""
    if not events:
        return []
    rows = [
        {
            "key": event.key,
            "kind": event.kind.value,
            "at": event.at,
            "received_at": now,
            "issue_id": event.issue_id,
            "send_id": event.send_id,
            "batch": event.batch,
            "subscriber_id": event.subscriber_id,
            "by_machine": event.by_machine,
            "raw": event.raw,
        }
        for event in events
    ]
    statement = insert_into(session, _event).on_conflict_do_nothing(index_elements=["key"])
    stored = set(session.scalars(statement.returning(_event.c.key), rows))
    return [event for event in events if event.key in stored]


def _gather(changes: _Changes, event: Event, hash_of: HashOf) -> None:
    if event.send_id is not None:
        changes.counts[event.send_id, "machine_open" if event.by_machine else event.kind] += 1
        if event.batch is not None and event.kind is not Kind.UNSUBSCRIBE:
            changes.batches.add((event.send_id, event.batch))
    effect = effects(event)
    person = event.subscriber_id
    if effect.delivery and event.issue_id is not None and person is not None:
        reason = event.reason or None if effect.delivery is not DeliveryState.DELIVERED else None
        changes.deliveries[event.issue_id, effect.delivery, reason].add(person)
    if effect.suppress:
        why = (effect.suppress, f"{event.kind}: {event.reason}".rstrip(": "))
        if person is not None and effect.whose is Whose.PERSON:
            changes.people[why].add(person)
        if event.email and (hashed := hash_of(event.email)):
            changes.addresses[why].add(hashed)
    if effect.engaged and person is not None:
        latest = changes.clicked if event.kind is Kind.CLICK else changes.opened
        latest[person] = max(event.at, latest.get(person, event.at))


def _suppress(session: Session, changes: _Changes, now: datetime) -> int:
    suppressed = 0
    for (reason, words), people in _weakest_first(changes.people.items()):
        suppressed += suppression.add(session, people, reason, at=now, evidence=words)
    for (reason, words), hashes in _weakest_first(changes.addresses.items()):
        suppressed += suppression.add_addresses(session, hashes, reason, at=now, evidence=words)
    return suppressed


def _weakest_first(
    items: Iterable[tuple[tuple[SuppressionReason, str], _T]],
) -> list[tuple[tuple[SuppressionReason, str], _T]]:
    ranks = list(SuppressionReason)
    return sorted(items, key=lambda item: ranks.index(item[0][0]))
