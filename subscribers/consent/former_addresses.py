"""Addresses that somebody gave up for another one: a list that still has one adds nobody.

Otherwise the person would get each issue twice, and at the old address even after they left
under the new one. Only the owner's proof that they want mail there ends it.
"""

from datetime import datetime

from sqlalchemy import delete, select

from newsletter.db.orm import Session, insert_into, table_of
from subscribers.models import FormerAddress

_former = table_of(FormerAddress)

#: Why such an address is not added, in reports.
REASON = "changed address"


def give_up(session: Session, address_hash: bytes, subscriber_id: int, *, at: datetime) -> None:
    """Remember that this person has another address now."""
    row = insert_into(session, _former).values(
        address_hash=address_hash, subscriber_id=subscriber_id, at=at
    )
    newer = {name: row.excluded[name] for name in ("subscriber_id", "at")}
    session.execute(row.on_conflict_do_update(index_elements=["address_hash"], set_=newer))


def take_up(session: Session, address_hash: bytes) -> None:
    """Forget it: somebody has proved that they are reached there."""
    session.execute(delete(_former).where(_former.c.address_hash == address_hash))


def is_given_up(session: Session, address_hash: bytes, *, since: datetime | None = None) -> bool:
    """Whether somebody gave this address up, or did so after ``since``."""
    known = select(_former.c.at).where(_former.c.address_hash == address_hash)
    if since is not None:
        known = known.where(_former.c.at > since)
    return session.scalar(known) is not None
