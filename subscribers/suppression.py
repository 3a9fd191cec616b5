"""The only writer of suppressions: who must not be mailed, why, and what shows it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, case, delete, select

from subscribers.models import Subscriber, Suppression, SuppressionReason
from subscribers.schema import Session, insert_into, table_of

_suppression = table_of(Suppression)
_subscriber = table_of(Subscriber)
#: Position in the enumeration is strength: complaint outweighs bounce outweighs leaving.
_STRENGTH = {reason.value: rank for rank, reason in enumerate(SuppressionReason)}


#: Where a session's ``info`` keeps whom it has suppressed, for whoever wants to know of it once
#: that is committed.
NEWS = "suppressed"


class Suppressed(NamedTuple):
    """An address that was newly or more strongly suppressed."""

    address_hash: bytes
    reason: str
    at: datetime


class Proof(NamedTuple):
    """When it happened that an address must not be mailed any more, and what shows it."""

    at: datetime
    evidence: str


def add(
    session: Session,
    subscriber_ids: Iterable[int],
    reason: SuppressionReason,
    *,
    at: datetime,
    evidence: str,
) -> int:
    """Suppress these people, under the addresses that they have now.

    Returns how many are newly or more strongly suppressed: a stronger reason replaces
    a weaker one, the same or a weaker one changes nothing.
    """
    hashes = session.scalars(
        select(_subscriber.c.address_hash)
        .where(_subscriber.c.id.in_(list(subscriber_ids)))
        # Somebody who changes their address at this moment is waited for.
        .with_for_update(read=True)
    )
    return add_addresses(session, hashes, reason, at=at, evidence=evidence)


def add_addresses(
    session: Session,
    address_hashes: Iterable[bytes],
    reason: SuppressionReason,
    *,
    at: datetime,
    evidence: str,
) -> int:
    """The same for addresses, known to the audience or not."""
    proof = Proof(at, evidence)
    return add_proved(session, dict.fromkeys(address_hashes, proof), reason)


def add_proved(session: Session, proofs: Mapping[bytes, Proof], reason: SuppressionReason) -> int:
    """The same for addresses that each have a time and evidence of their own."""
    # Sorted: two transactions that suppress the same addresses must not deadlock.
    rows = [
        {
            "address_hash": hashed,
            "reason": reason.value,
            "at": proofs[hashed].at,
            "evidence": proofs[hashed].evidence[:1000],
        }
        for hashed in sorted(proofs)
    ]
    if not rows:
        return 0
    insert = insert_into(session, _suppression)
    statement = insert.on_conflict_do_update(
        index_elements=["address_hash"],
        set_={column: insert.excluded[column] for column in ("reason", "at", "evidence")},
        where=_strength(insert.excluded.reason) > _strength(_suppression.c.reason),
    ).returning(_suppression.c.address_hash)
    written = set(session.scalars(statement, rows))
    news = session.info.setdefault(NEWS, [])
    news += [Suppressed(h, reason.value, proofs[h].at) for h in sorted(written)]
    return len(written)


def lift(session: Session, address_hashes: Sequence[bytes]) -> int:
    """Let these addresses be mailed again, after their owners opted in anew."""
    statement = delete(_suppression).where(_suppression.c.address_hash.in_(address_hashes))
    return session.execute(statement).rowcount  # type: ignore[attr-defined,no-any-return]


def is_stronger(reason: SuppressionReason, other: str) -> bool:
    """Whether a reason would replace another one."""
    return _STRENGTH[reason.value] > _STRENGTH[other]


def _strength(reason: ColumnElement[str]) -> ColumnElement[int]:
    return case(_STRENGTH, value=reason, else_=0)
