"""Soft bounces: one says little, several within a time say that the mailbox is out of use.

An address is suppressed once any so long a time holds so many of them. That is decided by
the set of its bounces: neither their order nor repeats matter, and no delivery in
between forgives one, for it may be reported late. Only opting in anew forgives those before it.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select

from newsletter.db.dialect import insert_into, lock
from newsletter.db.orm import Session, table_of
from newsletter.tracking.events.policy import Thresholds
from newsletter.tracking.models import SoftBounce

_bounce = table_of(SoftBounce)


def add(
    session: Session,
    bounces: Mapping[tuple[bytes, bytes], datetime],
    rules: Thresholds,
    since: Mapping[bytes, datetime],
) -> set[bytes]:
    """Note (address hash, event key) → when; returns the addresses that have enough of them.

    Of whoever opted in anew, by address in ``since``, only those count that came after it.
    """
    if not bounces:
        return set()
    # Otherwise neither of two concurrent requests might see that together they reach the limit.
    lock(session, "soft bounces")
    rows = [
        {"address_hash": address, "key": key, "at": at}
        for (address, key), at in sorted(bounces.items())
    ]
    session.execute(insert_into(session, _bounce).on_conflict_do_nothing(), rows)
    known: defaultdict[bytes, list[datetime]] = defaultdict(list)
    of_these = _bounce.c.address_hash.in_({address for address, _ in bounces})
    for address, at in session.execute(
        select(_bounce.c.address_hash, _bounce.c.at).where(of_these).order_by(_bounce.c.at)
    ):
        if at >= since.get(address, at):
            known[address].append(at)
    return {address for address, moments in known.items() if _enough(moments, rules)}


def _enough(moments: list[datetime], rules: Thresholds) -> bool:
    lasts = moments[rules.soft_bounces - 1 :]
    return any(
        last - first <= rules.soft_bounce_days for first, last in zip(moments, lasts, strict=False)
    )
