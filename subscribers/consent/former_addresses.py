"""Previous addresses of subscribers. Neither imports nor operators can add them again.

Otherwise the subscriber would get each issue twice, and at the old address even after they
unsubscribed at the new one. Only a confirmed signup from the old address ends this.
"""

from datetime import datetime

from sqlalchemy import delete, select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from subscribers.models import FormerAddress

_former = table_of(FormerAddress)

#: Why reports say that such an address was not added.
REASON = "changed address"


def add(session: Session, address_hash: bytes, subscriber_id: int, *, at: datetime) -> None:
    """Record that this subscriber no longer uses this address."""
    row = insert_into(session, _former).values(
        address_hash=address_hash, subscriber_id=subscriber_id, at=at
    )
    newer = {name: row.excluded[name] for name in ("subscriber_id", "at")}
    session.execute(row.on_conflict_do_update(index_elements=["address_hash"], set_=newer))


def remove(session: Session, address_hash: bytes) -> None:
    """Delete the record: the owner has proved that they read email there."""
    session.execute(delete(_former).where(_former.c.address_hash == address_hash))


def is_former(session: Session, address_hash: bytes, *, since: datetime | None = None) -> bool:
    """Whether a subscriber gave this address up, or did so after ``since``."""
    row = select(_former.c.at).where(_former.c.address_hash == address_hash)
    if since is not None:
        row = row.where(_former.c.at > since)
    return session.scalar(row) is not None
