"""Takes addresses off the provider's suppression lists once they may be emailed again.

SendGrid drops every email to an address on its lists, whatever our own suppressions say. An
address leaves those lists when its owner confirmed a signup, when an operator lifted its bounce,
and after a bounce that says nothing about the mailbox (events.suppression_policy). Until it has
left them, a drop that SendGrid explains by its lists suppresses nobody here.
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
from newsletter.tracking.models import ListRemoval, SoftBounce
from subscribers.consent import suppression
from subscribers.models import Subscriber, Suppression, SuppressionReason

_log = logging.getLogger(__name__)
_removal, _suppression = table_of(ListRemoval), table_of(Suppression)
_subscriber, _soft = table_of(Subscriber), table_of(SoftBounce)

#: Addresses in one request.
_SLICE = 500
#: The wait after a failure doubles each time, because an API key without the permission to
#: change the lists fails until it is replaced.
_FIRST_RETRY, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)
#: SendGrid's clock and ours may differ by this much.
CLOCK_TOLERANCE = timedelta(minutes=1)
#: No event is reported later than this: SendGrid retries a post for a day.
_KEEP = timedelta(days=40)


class Removal(NamedTuple):
    """Until when the provider's entries of an address do not count, and when they were removed."""

    since: datetime | None
    own_wish: bool
    done_at: datetime | None

    def overrides(self, reason: SuppressionReason, at: datetime, *, listed: bool) -> bool:
        """Whether an event or list entry of ``at`` suppresses nobody because of this removal.

        ``listed``: the event is a drop because of an entry of the provider's list of any age.
        """
        is_bounce = reason is SuppressionReason.BOUNCED
        if listed:
            outdated = self.done_at is None or at <= self.done_at + CLOCK_TOLERANCE
            return outdated and (is_bounce or self.own_wish)
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
    """Schedule the removal of ``addresses`` (hash → address) from the provider's lists.

    Bounces until ``since`` do not count any more; without it they still count as soft bounces.
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
                # A confirmed opt-in still counts after a bounce: what it ended stays ended.
                "own_wish": or_(insert.excluded.own_wish, _removal.c.own_wish),
            },
        ),
        rows,
    )


def removals(session: Session, address_hashes: Iterable[bytes]) -> dict[bytes, Removal]:
    """The removals of these addresses."""
    columns = _removal.c.address_hash, _removal.c.since, _removal.c.own_wish, _removal.c.done_at
    query = select(*columns).where(_removal.c.address_hash.in_(sorted(set(address_hashes))))
    return {row[0]: Removal(*row[1:]) for row in session.execute(query)}


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

    Raises UserError without a reason or a choice, NothingToDoError when no bounce matches.
    """
    why = " ".join("".join(c if c.isprintable() else " " for c in why).split())[:500]
    if not why:
        raise UserError(
            "the reason is missing", place="reason", hint="The audit log shows it. Enter a reason."
        )
    if address_hash is None and since is None:
        raise UserError("enter an address, or the time of the first bounce to lift", place="since")
    if since is not None and until is not None and until < since:
        raise UserError("the end is before the start", place="until")
    chosen = bounced(session, address_hash=address_hash, since=since, until=until, text=text)
    if not chosen:
        raise NothingToDoError(
            "no bounce matches",
            hint="This lifts only the suppressions that a bounce caused.",
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
        "suppression lifted" if one else "suppressions lifted",
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
        evidence = func.lower(_suppression.c.evidence)
        conditions.append(evidence.contains(text.lower(), autoescape=True))
    return session.execute(
        select(_subscriber.c.id, _subscriber.c.email)
        .add_columns(_suppression.c.address_hash, _suppression.c.at, _suppression.c.evidence)
        .join(_suppression, _suppression.c.address_hash == _subscriber.c.address_hash)
        .where(*conditions)
        .order_by(_subscriber.c.id)
    ).all()


@dataclass(frozen=True, slots=True)
class ListRemover:
    """Asks the provider to take addresses off its lists, in slices, and retries after failures."""

    database: Engine
    ask: Ask

    def run(self, *, now: datetime, wait: Wait) -> int:
        """Process all due removals; returns how many addresses it processed.

        Raises ProviderError after scheduling the retry of the rest.
        """
        removed = 0
        while rows := self._due(now):
            try:
                self._remove(rows, wait)
            except ProviderError:
                self._postpone(rows, now)
                raise
            removed += len(rows)
            with transaction(self.database) as session:
                for row in rows:
                    # A removal that was requested again meanwhile has another time, and stays due.
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
        # An address that is suppressed again by now stays on the provider's lists, too.
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
                    # A later entry counts; its event is on its way here.
                    if entry is not None and entry.at <= row.since:
                        account.remove(listing, entry)

    def _postpone(self, rows: Sequence[Row[Any]], now: datetime) -> None:
        with transaction(self.database) as session:
            for row in rows:
                wait = min(_FIRST_RETRY * 2 ** min(row.attempt, 10), _LONGEST_WAIT)
                session.execute(
                    update(_removal)
                    .where(_removal.c.address_hash == row.address_hash)
                    .values(attempt=row.attempt + 1, next_at=now + wait)
                )


def delete_old(session: Session, *, now: datetime) -> None:
    """Delete removals that no late event can be about."""
    session.execute(delete(_removal).where(_removal.c.done_at < now - _KEEP))
