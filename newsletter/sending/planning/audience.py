"""Selects the recipients of a send and counts the excluded subscribers by reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, exists, func, literal, select

from newsletter.db.orm import Session, table_of
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.models import Delivery, Send
from newsletter.sending.states import MISSED
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_delivery, _subscriber = table_of(Delivery), table_of(Subscriber)

#: The exclusion reason of subscribers who are recipients of another send of the same issue.
HAD_IT = "had this issue"
#: The exclusion reason of subscribers in a segment that the send excludes.
EXCLUDED = "in an excluded segment"


@dataclass(frozen=True, slots=True)
class SendAudience:
    """The subscribers that a send chooses, and the rules that exclude some of them.

    ``segments`` and ``excluded`` are segment expressions.
    """

    segments: Sequence[str]
    excluded: Sequence[str] = ()
    #: Slugs of topics. If there are any, subscribers who chose none of them are excluded.
    topics: Sequence[str] = ()
    #: Recipients of other sends of this issue are excluded, unless they missed it there.
    issue_id: int | None = None
    #: If set, the recipients of this send who missed the issue are chosen, not ``segments``.
    missed_in: int | None = None
    #: If set, recipients of this send are not chosen again.
    not_in_send: int | None = None

    def exclusion_reason(self, session: Session, now: datetime) -> ColumnElement[str | None]:
        """The SQL expression of why a chosen subscriber is excluded; NULL for a recipient."""
        reasons: list[ColumnElement[Any]] = [segment_store.exclusion_reason(now, self.topics)]
        if self.excluded:
            is_excluded = segment_store.in_any_segment(session, self.excluded, now)
            reasons.append(case((is_excluded, literal(EXCLUDED))))
        if self.issue_id is not None:
            had_it = exists(
                select(1).where(
                    _delivery.c.issue_id == self.issue_id,
                    _delivery.c.subscriber_id == _subscriber.c.id,
                    _delivery.c.state.not_in(MISSED),
                )
            )
            reasons += [
                case((had_it, literal(HAD_IT))),
                forgotten_sends.exclusion_reason(self.issue_id),
            ]
        return func.coalesce(*reasons) if len(reasons) > 1 else reasons[0]

    def is_chosen(self, session: Session, now: datetime) -> ColumnElement[bool]:
        """The SQL condition that a subscriber is chosen, as a recipient or excluded."""
        if self.missed_in is None:
            within = segment_store.in_any_segment(session, self.segments, now)
            return within if self.not_in_send is None else within & ~self._in_send(self.not_in_send)
        return self._in_send(self.missed_in, _delivery.c.state.in_(MISSED))

    def _in_send(self, send_id: int, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists(
            select(1).where(
                _delivery.c.issue_id == self.issue_id,
                _delivery.c.subscriber_id == _subscriber.c.id,
                _delivery.c.send_id == send_id,
                *conditions,
            )
        )


@dataclass(frozen=True, slots=True)
class AudienceCounts:
    """How many subscribers an audience has, counted at one time."""

    #: (IANA time zone, recipients); one pair with an empty name if not split by zone.
    zones: Sequence[tuple[str, int]]
    #: Exclusion reason → excluded subscribers.
    excluded_counts: Mapping[str, int]
    #: For each of the caller's conditions, the recipients that meet it.
    matching: Sequence[int] = ()

    @property
    def people(self) -> int:
        """The number of recipients."""
        return sum(people for _, people in self.zones)


def audience_of(
    send: Row[Any] | Send, *, missed: bool = False, restored: bool = False
) -> SendAudience:
    """The audience of a send; with ``missed``, only those who missed its issue.

    With ``restored``, a departure log has already restored some recipients of the send; they
    are not chosen again.
    """
    return SendAudience(
        segments=[segment["expression"] for segment in send.segments],
        excluded=[segment["expression"] for segment in send.excluded],
        topics=send.topics,
        issue_id=send.issue_id,
        missed_in=send.id if missed else None,
        not_in_send=send.id if restored else None,
    )


def count(
    session: Session,
    audience: SendAudience,
    *,
    now: datetime,
    split: bool = False,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> AudienceCounts:
    """Count the recipients and excluded subscribers of an audience at ``now``, in one query.

    ``split`` counts by time zone. For each of ``conditions``, the recipients that meet it are
    counted as well.
    """
    reason = audience.exclusion_reason(session, now).label("reason")
    zone = zone_column(split=split).label("zone")
    rows = session.execute(
        select(reason, zone, func.count(), *(func.count().filter(one) for one in conditions))
        .select_from(segment_store.PEOPLE)
        .where(audience.is_chosen(session, now))
        .group_by(reason, zone)
        .order_by(zone, reason)
    ).all()
    excluded_counts: dict[str, int] = {}
    for why, _, people, *_ in rows:
        if why is not None:
            excluded_counts[why] = excluded_counts.get(why, 0) + people
    reached = [row for row in rows if row[0] is None]
    zones = [(name, people) for _, name, people, *_ in reached]
    return AudienceCounts(
        zones, excluded_counts, [sum(row[3 + n] for row in reached) for n in range(len(conditions))]
    )


def zone_column(*, split: bool) -> ColumnElement[str]:
    """The SQL expression of a subscriber's IANA time zone; always empty without ``split``."""
    return func.coalesce(_subscriber.c.timezone, "") if split else literal("")
