"""Who is meant by a send, who of them gets it, and why the others do not."""

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

#: The reason shown for people whom another send of the same issue has reached or will.
HAD_IT = "had this issue"
#: The reason shown for people of a segment that the send leaves out.
EXCLUDED = "segment left out"


@dataclass(frozen=True, slots=True)
class SendAudience:
    """Who is meant: expressions of segments, and what keeps people out."""

    segments: Sequence[str]
    excluded: Sequence[str] = ()
    #: Slugs; whoever chose none of them is left out.
    topics: Sequence[str] = ()
    #: Whoever had this issue is left out.
    issue_id: int | None = None
    #: Instead of segments: those who missed the issue in this send.
    missed_in: int | None = None
    #: Whoever is in this send already is not meant once more.
    beside: int | None = None

    def reasons(self, now: datetime) -> ColumnElement[str | None]:
        """Why somebody who is meant does not get it; NULL for those who do."""
        why: list[ColumnElement[Any]] = [segment_store.exclusion_reason(now, self.topics)]
        if self.excluded:
            why.append(case((segment_store.in_any_segment(self.excluded, now), literal(EXCLUDED))))
        if self.issue_id is not None:
            had_it = exists(
                select(1).where(
                    _delivery.c.issue_id == self.issue_id,
                    _delivery.c.subscriber_id == _subscriber.c.id,
                    _delivery.c.state.not_in(MISSED),
                )
            )
            why += [case((had_it, literal(HAD_IT))), forgotten_sends.reason(self.issue_id)]
        return func.coalesce(*why) if len(why) > 1 else why[0]

    def meant(self, now: datetime) -> ColumnElement[bool]:
        """Whether somebody is meant at all."""
        if self.missed_in is None:
            within = segment_store.in_any_segment(self.segments, now)
            return within if self.beside is None else within & ~self._in_send(self.beside)
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
    """An audience in figures, as it was at one moment."""

    #: Zones with how many there get it; one without a name where zones do not matter.
    zones: Sequence[tuple[str, int]]
    #: Reason → people who are meant and do not get it.
    excluded_counts: Mapping[str, int]
    #: Of those who get it, as many as each of the conditions holds for that were counted too.
    also: Sequence[int] = ()

    @property
    def people(self) -> int:
        """How many get it."""
        return sum(people for _, people in self.zones)


def audience_of(
    send: Row[Any] | Send, *, missed: bool = False, recalled: bool = False
) -> SendAudience:
    """The audience of a send, or those who missed the issue in it.

    With ``recalled`` the send has people already, and only the others are meant.
    """
    return SendAudience(
        segments=[segment["expression"] for segment in send.segments],
        excluded=[segment["expression"] for segment in send.excluded],
        topics=send.topics,
        issue_id=send.issue_id,
        missed_in=send.id if missed else None,
        beside=send.id if recalled else None,
    )


def count(
    session: Session,
    audience: SendAudience,
    *,
    now: datetime,
    split: bool = False,
    also: Sequence[ColumnElement[bool]] = (),
) -> AudienceCounts:
    """What an audience would come to if it were planned at ``now``: one look at everybody.

    ``split`` tells time zones apart; ``also`` are conditions whose people are counted too.
    """
    reason = audience.reasons(now).label("reason")
    zone = zone_of_people(split=split).label("zone")
    rows = session.execute(
        select(reason, zone, func.count(), *(func.count().filter(one) for one in also))
        .select_from(segment_store.PEOPLE)
        .where(audience.meant(now))
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
        zones, excluded_counts, [sum(row[3 + n] for row in reached) for n in range(len(also))]
    )


def zone_of_people(*, split: bool) -> ColumnElement[str]:
    """The IANA zone that somebody gave, or nothing for all when zones do not matter."""
    return func.coalesce(_subscriber.c.timezone, "") if split else literal("")
