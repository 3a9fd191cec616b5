"""Consent records: what a subscriber agreed to, when, where and with which wording.

Rows are added and never changed, with one exception: network address and browser help to prove
a disputed consent for a while, and are deleted afterwards.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import func, insert, or_, select, update

from newsletter.db.orm import Session, table_of
from subscribers.models import Consent, Subscriber

_consent, _subscriber = table_of(Consent), table_of(Subscriber)
_MAX_SOURCE = 100
_MAX_WORDING = 2000
_MAX_AGENT = 500

#: Only a confirmed signup resubscribes somebody (subscribers.signup). Other acts of consent come
#: from links in emails, which get forwarded.
IS_OPT_IN = (_consent.c.act == "confirmed", _consent.c.source.startswith("form:"))


@dataclass(frozen=True, slots=True)
class Act:
    """One opt-in or opt-out; ``act`` is requested, confirmed, imported or withdrawn."""

    at: datetime
    act: str
    source: str = ""
    wording: str = ""
    ip: str | None = None
    user_agent: str | None = None


def record(session: Session, subscriber_id: int, acts: Sequence[Act]) -> None:
    """Add consent records of a subscriber."""
    session.execute(
        insert(_consent),
        [
            {
                **asdict(act),
                "subscriber_id": subscriber_id,
                "source": act.source[:_MAX_SOURCE],
                "wording": act.wording[:_MAX_WORDING],
                "user_agent": act.user_agent[:_MAX_AGENT] if act.user_agent else None,
            }
            for act in acts
        ],
    )


def of_subscriber(session: Session, subscriber_id: int) -> list[Act]:
    """A subscriber's consent records, oldest first."""
    rows = session.execute(
        select(_consent)
        .where(_consent.c.subscriber_id == subscriber_id)
        .order_by(_consent.c.at, _consent.c.id)
    )
    return [Act(r.at, r.act, r.source, r.wording, r.ip, r.user_agent) for r in rows]


def latest_opt_ins(
    session: Session, address_hashes: Sequence[bytes], *, lock: bool = False
) -> dict[bytes, datetime]:
    """Address hash → when its subscriber last confirmed a signup.

    With ``lock``, waits for subscribers who are confirming a signup at this moment.
    """
    people = select(_subscriber.c.id, _subscriber.c.address_hash)
    people = people.where(_subscriber.c.address_hash.in_(address_hashes)).order_by(_subscriber.c.id)
    if lock:
        people = people.with_for_update(read=True)
    owner = {row.id: row.address_hash for row in session.execute(people)}
    acts = (
        select(_consent.c.subscriber_id, func.max(_consent.c.at).label("at"))
        .where(_consent.c.subscriber_id.in_(owner), *IS_OPT_IN)
        .group_by(_consent.c.subscriber_id)
    )
    return {owner[row.subscriber_id]: row.at for row in session.execute(acts)}


def erase_network_data(session: Session, *, before: datetime) -> int:
    """Empty network address and browser of records before this time; returns how many rows."""
    result = session.execute(
        update(_consent)
        .where(
            _consent.c.at < before,
            or_(_consent.c.ip.is_not(None), _consent.c.user_agent.is_not(None)),
        )
        .values(ip=None, user_agent=None)
    )
    return result.rowcount  # type: ignore[attr-defined,no-any-return]
