"""The suppression list: which addresses must not be emailed, why, and the proof.

Only this module writes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    bindparam,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from newsletter.db import webhook_queue
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import UserError
from subscribers.models import Subscriber, Suppression, SuppressionReason

_suppression = table_of(Suppression)
_subscriber = table_of(Subscriber)
#: The position in the enumeration is the strength: complaint > unsubscribe > bounce.
_STRENGTH = {reason.value: rank for rank, reason in enumerate(SuppressionReason)}
#: Reasons that the subscriber gave themselves.
_OWN_CHOICE = (SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED)

#: The reasons that webhook endpoints can be told about.
_EVENTS = {
    SuppressionReason.BOUNCED: WebhookEvent.SUBSCRIBER_BOUNCED,
    SuppressionReason.UNSUBSCRIBED: WebhookEvent.SUBSCRIBER_UNSUBSCRIBED,
    SuppressionReason.COMPLAINED: WebhookEvent.SUBSCRIBER_COMPLAINED,
}

#: The key of a session's ``info`` that lists its suppressed and lifted addresses, in this order.
#: Code that runs after the commit reads it.
CHANGES = "suppressions"


class LiftError(UserError):
    """An operator may not lift this suppression."""


class Suppressed(NamedTuple):
    """A newly or more strongly suppressed address, or one with a new underlying reason."""

    address_hash: bytes
    reason: str
    at: datetime


class Lifted(NamedTuple):
    """An address whose suppressions until now are over."""

    address_hash: bytes


class Proof(NamedTuple):
    """When an address became one that must not be emailed, and the evidence."""

    at: datetime
    evidence: str


def reason_of(session: Session, address_hash: bytes) -> str | None:
    """Why this address must not be emailed; None if it may."""
    return reasons_of(session, [address_hash]).get(address_hash)


def reasons_of(session: Session, address_hashes: Iterable[bytes]) -> dict[bytes, str]:
    """Address hash → reason, for those of the addresses that are suppressed."""
    rows = session.execute(
        select(_suppression.c.address_hash, _suppression.c.reason).where(
            _suppression.c.address_hash.in_(list(address_hashes))
        )
    )
    return {row.address_hash: row.reason for row in rows}


def find(session: Session, address_hash: bytes, *, lock: bool = False) -> Row[Any] | None:
    """The suppression of this address, if any; with ``lock``, until the transaction ends."""
    rows = select(_suppression).where(_suppression.c.address_hash == address_hash)
    return session.execute(rows.with_for_update() if lock else rows).one_or_none()


def add(
    session: Session,
    subscriber_ids: Iterable[int],
    reason: SuppressionReason,
    *,
    at: datetime,
    evidence: str,
) -> int:
    """Suppress these subscribers, at the addresses that they have now.

    Returns how many are newly or more strongly suppressed. A stronger reason replaces a weaker
    one. A weaker or equal one changes nothing, except that unsubscribing again renews the time.
    """
    proofs = proofs_by_address(session, dict.fromkeys(subscriber_ids, Proof(at, evidence)))
    return add_with_proofs(session, proofs, reason)


def proofs_by_address(session: Session, people: Mapping[int, Proof]) -> dict[bytes, Proof]:
    """Replaces subscriber ids with the hashes of their current addresses."""
    rows = session.execute(
        select(_subscriber.c.id, _subscriber.c.address_hash)
        .where(_subscriber.c.id.in_(list(people)))
        .order_by(_subscriber.c.id)
        # Waits for a concurrent change of address. The lock is as strong as that of an update of
        # the row: two transactions that shared a weaker one would deadlock at the update.
        .with_for_update(key_share=True)
    )
    return {row.address_hash: people[row.id] for row in rows}


def add_addresses(
    session: Session,
    address_hashes: Iterable[bytes],
    reason: SuppressionReason,
    *,
    at: datetime,
    evidence: str,
) -> int:
    """Like ``add``, for addresses of subscribers or of anybody else."""
    proof = Proof(at, evidence)
    return add_with_proofs(session, dict.fromkeys(address_hashes, proof), reason)


def add_with_proofs(
    session: Session, proofs: Mapping[bytes, Proof], reason: SuppressionReason
) -> int:
    """Like ``add_addresses``, with a time and evidence for each address."""
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
    hidden = reason is SuppressionReason.MANUAL
    statement = insert.on_conflict_do_update(
        index_elements=["address_hash"],
        set_={
            **{column: insert.excluded[column] for column in ("reason", "at", "evidence")},
            "underlying_reason": _suppression.c.reason if hidden else null(),
            "underlying_at": _suppression.c.at if hidden else null(),
        },
        where=_strength(insert.excluded.reason) > _strength(_suppression.c.reason),
    ).returning(_suppression.c.address_hash)
    written = set(session.scalars(statement, rows))
    if len(written) < len(rows) and is_stronger(SuppressionReason.MANUAL, reason):
        _set_underlying(session, {h: proofs[h].at for h in proofs if h not in written}, reason)
    if reason in _OWN_CHOICE:
        _renew(session, {h: proofs[h].at for h in proofs if h not in written})
    _add_changes(session, [Suppressed(h, reason.value, proofs[h].at) for h in sorted(written)])
    if written and (event := _EVENTS.get(reason)) is not None:
        people = select(_subscriber.c.id, _subscriber.c.email)
        theirs = people.where(_subscriber.c.address_hash.in_(sorted(written)))
        webhook_queue.report_subscribers(session, event, theirs)
    return len(written)


def lift(session: Session, address_hashes: Sequence[bytes]) -> int:
    """Allow emails to these addresses again, after their owners opted in again."""
    statement = delete(_suppression).where(_suppression.c.address_hash.in_(address_hashes))
    lifted = session.scalars(statement.returning(_suppression.c.address_hash)).all()
    _add_changes(session, [Lifted(hashed) for hashed in sorted(lifted)])
    return len(lifted)


def lift_manual(session: Session, address_hash: bytes, *, evidence: str) -> str | None:
    """Lift an operator's suppression; returns the reason that remains, or None.

    Addresses that also unsubscribed, bounced or complained, before or afterwards, stay
    suppressed for that: only a new opt-in of the owner lifts it. Raises LiftError if the reason
    is not an operator's.
    """
    row = find(session, address_hash, lock=True)
    if row is None:
        raise LiftError("this address is no longer suppressed")
    if row.reason != SuppressionReason.MANUAL:
        raise LiftError(
            f"this address stays suppressed: {row.reason}",
            hint="Only the person can come back, by signing up again and confirming it.",
        )
    if row.underlying_reason is None:
        lift(session, [address_hash])
        return None
    values = {"reason": row.underlying_reason, "at": row.underlying_at, "evidence": evidence[:1000]}
    session.execute(
        update(_suppression)
        .where(_suppression.c.address_hash == address_hash)
        .values(**values, underlying_reason=None, underlying_at=None)
    )
    remaining = Suppressed(address_hash, row.underlying_reason, row.underlying_at)
    _add_changes(session, [Lifted(address_hash), remaining])
    return str(row.underlying_reason)


def reasons(session: Session) -> dict[int, str]:
    """Subscriber → reason, of all suppressed subscribers."""
    rows = session.execute(
        select(_subscriber.c.id, _suppression.c.reason).join(
            _suppression, _suppression.c.address_hash == _subscriber.c.address_hash
        )
    )
    return {row.id: row.reason for row in rows}


def count(session: Session) -> int:
    """How many addresses are suppressed, those of erased subscribers included."""
    return session.scalar(select(func.count()).select_from(_suppression)) or 0


def is_stronger(reason: SuppressionReason, other: str) -> bool:
    """Whether a reason would replace another one."""
    return _STRENGTH[reason.value] > _STRENGTH[other]


def _set_underlying(
    session: Session, moments: Mapping[bytes, datetime], reason: SuppressionReason
) -> None:
    """Store the reason under an operator's one, so that lifting theirs revives nobody who left."""
    hidden = session.scalars(
        select(_suppression.c.address_hash).where(
            _suppression.c.address_hash.in_(moments),
            _suppression.c.reason == SuppressionReason.MANUAL,
            or_(
                _suppression.c.underlying_reason.is_(None),
                _strength(_suppression.c.underlying_reason) < _strength(literal(reason.value)),
            ),
        )
    )
    changed = sorted(hidden)
    for hashed in changed:
        session.execute(
            update(_suppression)
            .where(_suppression.c.address_hash == hashed)
            .values(underlying_reason=reason.value, underlying_at=moments[hashed])
        )
    _add_changes(session, [Suppressed(hashed, reason.value, moments[hashed]) for hashed in changed])


def _add_changes(session: Session, changes: Sequence[Suppressed | Lifted]) -> None:
    session.info.setdefault(CHANGES, []).extend(changes)


def _renew(session: Session, moments: Mapping[bytes, datetime]) -> None:
    """Set the time of a repeated unsubscribe: it ends confirmation links sent in between."""
    if not moments:
        return
    later = bindparam("later", type_=_suppression.c.at.type)
    session.connection().execute(
        update(_suppression)
        .where(
            _suppression.c.address_hash == bindparam("who"),
            _suppression.c.at < later,
            or_(*(_suppression.c.reason == reason for reason in _OWN_CHOICE)),
        )
        .values(at=later),
        [{"who": hashed, "later": moments[hashed]} for hashed in sorted(moments)],
    )


def _strength(reason: ColumnElement[str]) -> ColumnElement[int]:
    return case(_STRENGTH, value=reason, else_=0)
