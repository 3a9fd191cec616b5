"""How often something may be tried: counted in rows, so that all processes count together.

A window slides in steps of a quarter of its length. Each row counts the hits of one
step and holds until the youngest of them is as old as the window, so no stretch of
time of that length ever sees more hits than allowed. The price is that a full limit
opens up to one step late.
"""

import hmac
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from sqlalchemy import delete, func, select

from newsletter.db.orm import Session, insert_into, table_of
from subscribers.models import RateLimit

_limit = table_of(RateLimit)
#: The purpose under which mails to a mailbox count that somebody else may have asked for.
SINGLE_MAILS = "signup mail"
_STEPS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def hit(session: Session, key: bytes, *, limit: int, window: timedelta, now: datetime) -> bool:
    """Count one try under ``key``; False, and nothing is counted, when the limit is reached.

    Tries of one key wait for each other until the transaction ends, so two that come at
    once cannot both be the last. One key always goes with one window.
    """
    step = window / _STEPS
    ends = _EPOCH + ((now - _EPOCH) // step + 1) * step + window
    earlier = select(func.coalesce(func.sum(_limit.c.count), 0)).where(
        _limit.c.key == key, _limit.c.window_end > now, _limit.c.window_end != ends
    )
    before = session.scalar(earlier) or 0
    # The same two statements whichever way it goes: how long it takes tells nothing.
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
    """The key of a value for one purpose: the table holds no addresses of either kind."""
    return hmac.digest(secret, f"limit\0{purpose}\0{value}".encode(), "sha256")[:16]


def network_of(host: str) -> str:
    """What counts as one network address: of IPv6 the /64, which a single home is given."""
    try:
        address = ip_address(host)
    except ValueError:  # a socket file or a name: all of them count as one
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)


def sweep(session: Session, *, now: datetime) -> int:
    """Delete what no longer limits anything; returns how many rows."""
    result = session.execute(delete(_limit).where(_limit.c.window_end <= now))
    return result.rowcount  # type: ignore[attr-defined,no-any-return]
