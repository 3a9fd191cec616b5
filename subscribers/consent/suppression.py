"""The only writer of suppressions: who must not be mailed, why, and what shows it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
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

from newsletter.db.orm import Session, insert_into, table_of
from newsletter.errors import UserError
from subscribers.models import Subscriber, Suppression, SuppressionReason

_suppression = table_of(Suppression)
_subscriber = table_of(Subscriber)
#: Position in the enumeration is strength: complaint outweighs leaving outweighs bounce.
_STRENGTH = {reason.value: rank for rank, reason in enumerate(SuppressionReason)}
#: What a person said themselves.
_OWN_WORD = (SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED)

#: Where a session's ``info`` keeps whom it has suppressed and whom no longer, in this order,
#: for whoever wants to know of it once that is committed.
NEWS = "suppressions"


class LiftError(UserError):
    """A suppression that is not the operators' to lift."""


class Suppressed(NamedTuple):
    """An address that was newly or more strongly suppressed, or has another reason beneath."""

    address_hash: bytes
    reason: str
    at: datetime


class Lifted(NamedTuple):
    """An address whose suppressions until then are over."""

    address_hash: bytes


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

    Returns how many are newly or more strongly suppressed: a stronger reason replaces a weaker
    one, a weaker one changes nothing. So does the same, but that who leaves again has left then.
    """
    proofs = addressed(session, dict.fromkeys(subscriber_ids, Proof(at, evidence)))
    return add_proved(session, proofs, reason)


def addressed(session: Session, people: Mapping[int, Proof]) -> dict[bytes, Proof]:
    """Subscribers' numbers with proofs → the same under the addresses that they have now."""
    rows = session.execute(
        select(_subscriber.c.id, _subscriber.c.address_hash)
        .where(_subscriber.c.id.in_(list(people)))
        .order_by(_subscriber.c.id)
        # Somebody who changes their address at this moment is waited for. As strong as what
        # an update of the row takes: two that share it would wait for each other there.
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
        _put_beneath(session, {h: proofs[h].at for h in proofs if h not in written}, reason)
    if reason in _OWN_WORD:
        _leave_again(session, {h: proofs[h].at for h in proofs if h not in written})
    _tell(session, [Suppressed(h, reason.value, proofs[h].at) for h in sorted(written)])
    return len(written)


def lift(session: Session, address_hashes: Sequence[bytes]) -> int:
    """Let these addresses be mailed again, after their owners opted in anew."""
    statement = delete(_suppression).where(_suppression.c.address_hash.in_(address_hashes))
    lifted = session.scalars(statement.returning(_suppression.c.address_hash)).all()
    _tell(session, [Lifted(hashed) for hashed in sorted(lifted)])
    return len(lifted)


def lift_by_hand(session: Session, address_hash: bytes, *, evidence: str) -> str | None:
    """Take back what an operator decided; returns the reason that stays, None when none does.

    Whoever left, bounced or complained besides, before it or after it, stays out for that:
    only their own opting in anew lifts it. LiftError for any other reason than an operator's.
    """
    row = session.execute(
        select(_suppression).where(_suppression.c.address_hash == address_hash).with_for_update()
    ).one_or_none()
    if row is None:
        raise LiftError("nothing holds their mail back any more")
    if row.reason != SuppressionReason.MANUAL:
        raise LiftError(
            f"they stay out: {row.reason}",
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
    _tell(
        session,
        [Lifted(address_hash), Suppressed(address_hash, row.underlying_reason, row.underlying_at)],
    )
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


def _put_beneath(
    session: Session, moments: Mapping[bytes, datetime], reason: SuppressionReason
) -> None:
    """Remember what an operator's decision hides, so that lifting it revives nobody who left."""
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
    held = sorted(hidden)
    for hashed in held:
        session.execute(
            update(_suppression)
            .where(_suppression.c.address_hash == hashed)
            .values(underlying_reason=reason.value, underlying_at=moments[hashed])
        )
    _tell(session, [Suppressed(hashed, reason.value, moments[hashed]) for hashed in held])


def _tell(session: Session, news: Sequence[Suppressed | Lifted]) -> None:
    session.info.setdefault(NEWS, []).extend(news)


def _leave_again(session: Session, moments: Mapping[bytes, datetime]) -> None:
    """Whoever left and leaves once more has left since then: a link from between is over."""
    if not moments:
        return
    later = bindparam("later", type_=_suppression.c.at.type)
    session.connection().execute(
        update(_suppression)
        .where(
            _suppression.c.address_hash == bindparam("who"),
            _suppression.c.at < later,
            or_(*(_suppression.c.reason == reason for reason in _OWN_WORD)),
        )
        .values(at=later),
        [{"who": hashed, "later": moments[hashed]} for hashed in sorted(moments)],
    )


def _strength(reason: ColumnElement[str]) -> ColumnElement[int]:
    return case(_STRENGTH, value=reason, else_=0)
