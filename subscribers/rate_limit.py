"""Rate limits, counted in rows so that they hold across all processes.

The window slides in steps of a quarter of its length. Each row counts the hits of one step and
stays until the newest of them is as old as the window, so no period of that length has more
hits than allowed. In return, a full limit opens up to one step late.
"""

import hmac
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from sqlalchemy import delete, func, select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from subscribers.models import RateLimit

_limit = table_of(RateLimit)
#: The purpose of the limit on emails to one mailbox that somebody else may have requested.
SINGLE_MAILS = "signup mail"
_STEPS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def hit(session: Session, key: bytes, *, limit: int, window: timedelta, now: datetime) -> bool:
    """Count one attempt under ``key``. Returns False, and counts nothing, at the limit.

    Attempts with the same key wait for each other until the transaction ends, so two concurrent
    ones cannot both be the last. A key must always be used with the same window.
    """
    step = window / _STEPS
    ends = _EPOCH + ((now - _EPOCH) // step + 1) * step + window
    earlier = select(func.coalesce(func.sum(_limit.c.count), 0)).where(
        _limit.c.key == key, _limit.c.window_end > now, _limit.c.window_end != ends
    )
    before = session.scalar(earlier) or 0
    # The same two statements in either case, so that the duration reveals nothing.
    insert = insert_into(session, _limit).values(
        key=key, window_end=ends, count=1 if before < limit else 0
    )
    counted = session.scalar(
        insert.on_conflict_do_update(
            index_elements=["key", "window_end"],
            set_={"count": _limit.c.count + 1},
            where=_limit.c.count + before < limit,
        ).returning(_limit.c.count)
    )
    return bool(counted)


def key_of(secret: bytes, purpose: str, value: str) -> bytes:
    """The key of a value for one purpose: a keyed hash, so that the table holds no addresses."""
    return hmac.digest(secret, f"limit\0{purpose}\0{value}".encode(), "sha256")[:16]


def network_of(host: str) -> str:
    """What counts as one network address: for IPv6 the /64, which one household is assigned."""
    try:
        address = ip_address(host)
    except ValueError:  # the path of a socket, or a name
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)


def sweep(session: Session, *, now: datetime) -> int:
    """Delete expired rows; returns how many."""
    result = session.execute(delete(_limit).where(_limit.c.window_end <= now))
    return result.rowcount  # type: ignore[attr-defined,no-any-return]
