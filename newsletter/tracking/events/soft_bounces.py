"""Soft bounces: one says little; several within some days say that the mailbox is out of use.

An address is suppressed once ``Thresholds.soft_bounces`` of its bounces lie within
``Thresholds.soft_bounce_days``. Only the set of its bounces decides: their order and repeats do
not matter, and a delivery in between cancels none, because it may be reported late. Only a new
opt-in cancels those before it.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select

from newsletter.db.dialect import insert_into, lock
from newsletter.db.orm import Session, table_of
from newsletter.tracking.events.suppression_policy import Thresholds
from newsletter.tracking.models import SoftBounce

_bounce = table_of(SoftBounce)


def add(
    session: Session,
    bounces: Mapping[tuple[bytes, bytes], datetime],
    rules: Thresholds,
    since: Mapping[bytes, datetime],
) -> set[bytes]:
    """Store the bounces, (address hash, event key) → time; returns the hashes that have too many.

    Bounces from before ``since`` (address hash → time of the last opt-in) do not count.
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
    counted: defaultdict[bytes, list[datetime]] = defaultdict(list)
    of_these = _bounce.c.address_hash.in_({address for address, _ in bounces})
    for address, at in session.execute(
        select(_bounce.c.address_hash, _bounce.c.at).where(of_these).order_by(_bounce.c.at)
    ):
        if at >= since.get(address, at):
            counted[address].append(at)
    return {address for address, times in counted.items() if _too_many(times, rules)}


def _too_many(times: list[datetime], rules: Thresholds) -> bool:
    lasts = times[rules.soft_bounces - 1 :]
    return any(
        last - first <= rules.soft_bounce_days for first, last in zip(times, lasts, strict=False)
    )
