"""Takes addresses off the provider's suppression lists once they may be emailed again.

SendGrid drops every email to an address on its lists, whatever our own suppressions say. An
address leaves those lists when its owner confirmed a signup, when an operator lifted its bounce,
and after a bounce that says nothing about the mailbox (newsletter.tracking.events.policy). Until
it has left them, a drop that SendGrid explains by its lists suppresses nobody here.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Row, and_, case, delete, func, or_, select, update

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.dialect import insert_into
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import NothingToDoError, ProviderError, UserError
from newsletter.provider.account import Account, Ask, SuppressionListing, Wait, patient
from newsletter.tracking.models import SoftBounce
from newsletter.tracking.models_reconcile import ListRemoval
from subscribers.consent import suppression
from subscribers.models import Subscriber, Suppression, SuppressionReason

_log = logging.getLogger(__name__)
_removal, _suppression = table_of(ListRemoval), table_of(Suppression)
_subscriber, _soft = table_of(Subscriber), table_of(SoftBounce)

#: Addresses to one request.
_SLICE = 500
#: After a failure, doubled each time; a key without the right to change the lists stays so.
_AGAIN, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)
#: Events that are told later than this are not expected: SendGrid tries a post for a day.
_KEEP = timedelta(days=40)
#: SendGrid's clock and ours differ.
_CLOCKS = timedelta(minutes=1)


class Removal(NamedTuple):
    """Until when the provider's entries of an address are over, and when they were removed."""

    since: datetime | None
    own_wish: bool
    done_at: datetime | None

    def ends(self, reason: SuppressionReason, at: datetime, *, listed: bool) -> bool:
        """Whether an event or entry of ``at`` suppresses nobody any more.

        ``listed``: it is a drop for what stands on the provider's list, since whenever.
        """
        is_bounce = reason is SuppressionReason.BOUNCED
        if listed:
            over = self.done_at is None or at <= self.done_at + _CLOCKS
            return over and (is_bounce or self.own_wish)
        # newsletter.tracking.events.resubscription decides about requests before the new opt-in.
        return is_bounce and self.since is not None and at <= self.since


def add(
    session: Session,
    addresses: Mapping[bytes, str],
    *,
    now: datetime,
    since: datetime | None = None,
    own_wish: bool = False,
) -> None:
    """Have addresses (by their hash) taken off the provider's lists within seconds.

    Bounces until ``since`` are over; without it they still count as soft bounces.
    """
    rows = [
        {
            "address_hash": hashed,
            "email": addresses[hashed],
            "since": since,
            "own_wish": own_wish,
            "attempt": 0,
            "next_at": now,
            "done_at": None,
        }
        # Sorted: two transactions that write the same rows must not deadlock.
        for hashed in sorted(addresses)
    ]
    if not rows:
        return
    insert = insert_into(session, _removal)
    later = and_(
        insert.excluded.since.is_not(None),
        or_(_removal.c.since.is_(None), insert.excluded.since > _removal.c.since),
    )
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["address_hash"],
            set_={
                **{c: insert.excluded[c] for c in ("email", "attempt", "next_at", "done_at")},
                "since": case((later, insert.excluded.since), else_=_removal.c.since),
                # A wish still counts after a bounce: what it ended stays ended.
                "own_wish": or_(insert.excluded.own_wish, _removal.c.own_wish),
            },
        ),
        rows,
    )


def removals(session: Session, address_hashes: Iterable[bytes]) -> dict[bytes, Removal]:
    """The removals of these addresses."""
    columns = _removal.c.address_hash, _removal.c.since, _removal.c.own_wish, _removal.c.done_at
    wanted = select(*columns).where(_removal.c.address_hash.in_(sorted(set(address_hashes))))
    return {row[0]: Removal(*row[1:]) for row in session.execute(wanted)}


def lift_bounces(
    session: Session,
    *,
    by: Actor,
    why: str,
    now: datetime,
    address_hash: bytes | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str = "",
) -> int:
    """Lift the bounce of one address, or of all that bounced between two times with a text.

    Returns how many subscribers can be emailed again. ``since`` and ``until`` are inclusive;
    ``text`` is part of the receiving server's answer, whatever its letter case. A complaint, an
    unsubscribe and an operator's own suppression stay. Writes an audit entry with the reason.

    Raises UserError without a reason or a choice, NothingToDoError when no bounce fits.
    """
    why = " ".join("".join(c if c.isprintable() else " " for c in why).split())[:500]
    if not why:
        raise UserError(
            "give the reason", place="reason", hint="The audit log keeps why a bounce was lifted."
        )
    if address_hash is None and since is None:
        raise UserError("name an address, or the time from which bounces are lifted", place="since")
    if since is not None and until is not None and until < since:
        raise UserError("the end is before the beginning", place="until")
    chosen = bounced(session, address_hash=address_hash, since=since, until=until, text=text)
    if not chosen:
        raise NothingToDoError(
            "no bounce fits",
            hint="Only subscribers who are suppressed because of a bounce can be lifted so.",
        )
    hashes = [row.address_hash for row in chosen]
    for begin in range(0, len(hashes), _SLICE):
        part = hashes[begin : begin + _SLICE]
        suppression.lift(session, part)
        session.execute(delete(_soft).where(_soft.c.address_hash.in_(part)))
    add(session, {row.address_hash: row.email for row in chosen}, now=now, since=now)
    one = address_hash is not None
    detail: dict[str, str | int] = {"reason": why, "subscribers": len(chosen)}
    if since is not None:
        detail["since"] = since.isoformat()
    if until is not None:
        detail["until"] = until.isoformat()
    if text:
        detail["text"] = text[:200]
    audit.record(
        session,
        by,
        "bounce lifted" if one else "bounces lifted",
        now=now,
        subject=f"subscriber {chosen[0].id}" if one else "",
        **detail,
    )
    return len(chosen)


def bounced(
    session: Session,
    *,
    address_hash: bytes | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str = "",
) -> Sequence[Row[Any]]:
    """Subscribers who are suppressed because of a bounce: id, email, address_hash, evidence."""
    conditions: list[ColumnElement[bool]] = [_suppression.c.reason == SuppressionReason.BOUNCED]
    if address_hash is not None:
        conditions.append(_suppression.c.address_hash == address_hash)
    if since is not None:
        conditions.append(_suppression.c.at >= since)
    if until is not None:
        conditions.append(_suppression.c.at <= until)
    if text:
        said = func.lower(_suppression.c.evidence)
        conditions.append(said.contains(text.lower(), autoescape=True))
    return session.execute(
        select(_subscriber.c.id, _subscriber.c.email)
        .add_columns(_suppression.c.address_hash, _suppression.c.at, _suppression.c.evidence)
        .join(_suppression, _suppression.c.address_hash == _subscriber.c.address_hash)
        .where(*conditions)
        .order_by(_subscriber.c.id)
    ).all()


@dataclass(frozen=True, slots=True)
class ListRemover:
    """Asks the provider to take addresses off its lists, in slices, and tries again later."""

    database: Engine
    ask: Ask

    def run(self, *, now: datetime, wait: Wait) -> int:
        """Do what is due; returns how many addresses are off the lists now.

        Raises ProviderError after noting when the rest is tried again.
        """
        removed = 0
        while rows := self._due(now):
            try:
                self._remove(rows, wait)
            except ProviderError:
                self._put_off(rows, now)
                raise
            removed += len(rows)
            with transaction(self.database) as session:
                for row in rows:
                    # What was asked for meanwhile has set another time, and stays due.
                    session.execute(
                        update(_removal)
                        .where(
                            _removal.c.address_hash == row.address_hash,
                            _removal.c.next_at == row.next_at,
                        )
                        .values(done_at=now, email="")
                    )
        return removed

    def _due(self, now: datetime) -> Sequence[Row[Any]]:
        due = select(_removal).where(_removal.c.done_at.is_(None), _removal.c.next_at <= now)
        with reading(self.database) as session:
            return session.execute(due.order_by(_removal.c.next_at).limit(_SLICE)).all()

    def _remove(self, rows: Sequence[Row[Any]], wait: Wait) -> None:
        account = Account(patient(self.ask, wait))
        with reading(self.database) as session:
            suppressed = set(
                session.scalars(
                    select(_suppression.c.address_hash).where(
                        _suppression.c.address_hash.in_([row.address_hash for row in rows])
                    )
                )
            )
        # Whoever is suppressed again by now stays on the provider's lists, too.
        rows = [row for row in rows if row.address_hash not in suppressed]
        if not rows:
            return
        emails = [row.email for row in rows]
        account.remove_all(SuppressionListing.BOUNCES, emails)
        account.remove_all(SuppressionListing.INVALID, emails)
        for row in rows:
            if row.own_wish:
                for listing in (SuppressionListing.SPAM_REPORTS, SuppressionListing.UNSUBSCRIBES):
                    entry = account.find(listing, row.email)
                    # What they said since then counts; its event is on its way here.
                    if entry is not None and entry.at <= row.since:
                        account.remove(listing, entry)

    def _put_off(self, rows: Sequence[Row[Any]], now: datetime) -> None:
        with transaction(self.database) as session:
            for row in rows:
                pause = min(_AGAIN * 2 ** min(row.attempt, 10), _LONGEST_WAIT)
                session.execute(
                    update(_removal)
                    .where(_removal.c.address_hash == row.address_hash)
                    .values(attempt=row.attempt + 1, next_at=now + pause)
                )


def sweep(session: Session, *, now: datetime) -> None:
    """Forget removals that no late event can be about."""
    session.execute(delete(_removal).where(_removal.c.done_at < now - _KEEP))
