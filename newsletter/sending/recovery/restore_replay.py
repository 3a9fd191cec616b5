"""Bringing a restored database up to what this machine remembers of its departures.

The departure log tells of each batch who was in its request and what came of it. Whatever part
of the plan the database has lost is written again from there, so that a plan made anew
leaves these people out. Of a send that it has lost as a whole the people are kept apart
(forgotten.py).
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.sending.ledger import (
    batch_store,
    confirmations,
    forgotten_sends,
    interventions,
    send_store,
)
from newsletter.sending.ledger.batch_store import SkippedRecipient
from newsletter.sending.models import Batch, Delivery, Part, Send
from newsletter.sending.recovery.departure_log import (
    BACK,
    LEFT,
    TAKEN,
    Departure,
    LogReader,
    people_of,
)
from newsletter.sending.states import MISSED, BatchState, DeliveryState, SendState
from subscribers.consent import records as consent_records
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof, Suppressed
from subscribers.models import Suppression, SuppressionReason

_log = logging.getLogger(__name__)
_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_suppression = table_of(Suppression)

_TAKEN = "by the journal, the provider took it"
_UNANSWERED = (
    "by the journal it left unanswered; the database, restored from a backup, did not know"
)
_LEFT = "by the journal; the database, restored from a backup, did not know"
#: Addresses looked up at once.
_CHUNK = 1000
#: Deliveries that a line of the journal may say more about.
_OPEN = frozenset({DeliveryState.PLANNED, *MISSED})
_SURE = {BACK: 0, LEFT: 1, TAKEN: 2}


@dataclass(slots=True)
class ReplayReport:
    """What the journal knew better than the database, in batches."""

    accepted: int = 0
    doubtful: int = 0
    #: Sends that the database has forgotten as a whole.
    unknown_sends: int = 0
    #: People in their requests who were not known to have been.
    forgotten: int = 0
    #: Requests of such sends of which an older version did not write down the issue.
    unnamed: int = 0
    #: People who had left, or whose address had failed.
    suppressed: int = 0
    #: Sends that an operator had paused or cancelled.
    stopped: int = 0
    #: Where the log is damaged.
    damage: list[str] = field(default_factory=list)
    #: File of the log → how far it is known now.
    read: dict[str, int] = field(default_factory=dict, compare=False, repr=False)


def replay(
    session: Session, log: LogReader, *, now: datetime, after: Mapping[str, int] | None = None
) -> ReplayReport:
    """Write down what a departure log knows and the database does not.

    Batches that were taken become accepted, those that left unanswered uncertain; people
    whom it suppressed are suppressed. Of a send that the database has forgotten, who was in its
    requests is kept: they get its issue from no other. ``after`` says what of each file is known
    already.
    """
    told = log.tell(after or {})
    work = _Replay(session, log, now, ReplayReport(damage=told.damage, read=told.read))
    recalled = work.recalled
    who = [(hashed, list(reasons.values())) for hashed, reasons in told.suppressions.items()]
    for begin in range(0, len(who), _CHUNK):
        recalled.suppressed += _suppress_again(session, dict(who[begin : begin + _CHUNK]))
    ids = sorted({send_id for send_id, _ in [*told.departures, *told.taken, *told.interventions]})
    rows = session.execute(select(_send).where(_send.c.id.in_(ids))).all() if ids else []
    sends = {(row.id, row.created_at.astimezone(UTC).isoformat()): row for row in rows}
    for key, departures in told.departures.items():
        send = sends.get(key)
        if send is None:
            work.remember(key, departures)
        elif send.summarized_at is None:
            work.recall(send, departures)
    for key, numbers in told.taken.items():
        if key in sends:
            proved = [(key[0], number) for number in numbers]
            recalled.accepted += confirmations.mark_accepted(
                session, proved, now=now, detail=_TAKEN, finish=False
            )
    forgotten_sends.take_out_of_plans(session, work.forgotten_ids)
    for key, (what, at) in told.interventions.items():
        if key in sends:
            recalled.stopped += interventions.recall(session, key[0], what, at, now=now)
    send_store.finish(session, now=now)
    return recalled


@dataclass(frozen=True, slots=True)
class _Members:
    """The people of a request, by today's numbers."""

    people: Sequence[int]
    barred: Sequence[SkippedRecipient]


@dataclass(slots=True)
class _Replay:
    """One log, one database, and what has been found so far."""

    session: Session
    log: LogReader
    now: datetime
    recalled: ReplayReport
    forgotten_ids: set[int] = field(default_factory=set)

    def remember(self, key: tuple[int, str], departures: Sequence[Departure]) -> None:
        """Keep who was in the requests of a forgotten send."""
        new = 0
        for one in departures:
            if one.what == BACK:
                continue
            if one.about is None:
                self.recalled.unnamed += 1
                continue
            people = people_of(self.log.line_at(one.line))
            new += self._keep(key[0], datetime.fromisoformat(key[1]), one, people)
        self.recalled.unknown_sends += 1
        self.recalled.forgotten += new
        if new:
            _log.warning("the departure log knows send %s, made %s; this database not", *key)

    def _keep(
        self, number: int, made_at: datetime, one: Departure, prefixes: Sequence[bytes]
    ) -> int:
        assert one.about is not None
        forgotten_id = forgotten_sends.remember(
            self.session, number, made_at, one.about, now=self.now
        )
        self.forgotten_ids.add(forgotten_id)
        return forgotten_sends.add(
            self.session, forgotten_id, one.batch, prefixes, answered=one.what == TAKEN
        )

    def recall(self, send: Row[Any], departures: Sequence[Departure]) -> None:
        """Bring the batches of a send to where its requests have got."""
        session, now, recalled = self.session, self.now, self.recalled
        rows = {
            row.number: row
            for row in session.execute(select(_batch).where(_batch.c.send_id == send.id))
        }
        before, last = recalled.accepted + recalled.doubtful, max(one.batch for one in departures)
        for number, one in sorted(_best(departures).items()):
            row = rows.get(number)
            if one.what == BACK or (row is not None and not _behind(row, one)):
                continue
            _rewrite(session, send, one, self._members(send, one), row, beyond=last)
            if one.what == TAKEN:
                confirmations.mark_accepted(
                    session, [(send.id, number)], now=now, detail=_TAKEN, finish=False
                )
                recalled.accepted += 1
            else:
                confirmations.mark_uncertain(
                    session, send.id, [number], now=now, detail=_UNANSWERED
                )
                recalled.doubtful += 1
        if recalled.accepted + recalled.doubtful > before:
            _count_again(session, send)
            if send.state == SendState.SENT:
                # It was retried since the backup: it is sent once more when all of that adds up.
                send_store.move_send(session, send.id, SendState.SENDING, finished_at=None)

    def _members(self, send: Row[Any], one: Departure) -> _Members:
        line = self.log.line_at(one.line)
        if one.about is None:  # of an older version, which wrote numbers
            barred = [
                SkippedRecipient(person=person, hash=None, why=why) for person, why in line["skip"]
            ]
            return _Members(line["people"], barred)
        prefixes = people_of(line)
        skipped = {bytes.fromhex(hexed): why for hexed, why in line["skip"]}
        known = forgotten_sends.ids_of(self.session, [*prefixes, *skipped])
        if lost := [prefix for prefix in prefixes if prefix not in known]:
            # They signed up after the backup. Should they do so again, they have had it.
            self._keep(send.id, send.created_at, one, lost)
        return _Members(
            [known[prefix] for prefix in prefixes if prefix in known],
            [
                SkippedRecipient(person=known[prefix], hash=prefix.hex(), why=why)
                for prefix, why in skipped.items()
                if prefix in known
            ],
        )


def _suppress_again(session: Session, who: Mapping[bytes, Sequence[Suppressed]]) -> int:
    """Suppress these unless they are, or have opted in again since; returns how many."""
    rows = session.execute(select(_suppression).where(_suppression.c.address_hash.in_(who)))
    here = {row.address_hash: row for row in rows}
    lost = {
        hashed: missing
        for hashed, words in who.items()
        if (missing := [one for one in words if _is_lost(one, here.get(hashed))])
    }
    back = consent_records.latest_opt_ins(session, list(lost)) if lost else {}
    proofs: dict[SuppressionReason, dict[bytes, Proof]] = defaultdict(dict)
    for hashed, missing in lost.items():
        for one in missing:
            if hashed not in back or back[hashed] <= one.at:
                proofs[SuppressionReason(one.reason)][hashed] = Proof(one.at, _LEFT)
    # The weakest first, so that an operator's word has the others beneath it.
    for reason in SuppressionReason:
        suppression.add_with_proofs(session, proofs[reason], reason)
    return len(set().union(*proofs.values()))


def _is_lost(one: Suppressed, here: Row[Any] | None) -> bool:
    reason = SuppressionReason(one.reason)
    if here is None or suppression.is_stronger(reason, here.reason):
        return True
    hides = here.reason == SuppressionReason.MANUAL and reason != SuppressionReason.MANUAL
    return hides and (
        here.underlying_reason is None or suppression.is_stronger(reason, here.underlying_reason)
    )


def _best(departures: Sequence[Departure]) -> dict[int, Departure]:
    """Of each batch the request that was taken; else the last without an answer; else the last.

    The log may tell of more than one past of a batch, where a backup was restored before.
    """
    best: dict[int, Departure] = {}
    for one in departures:
        known = best.setdefault(one.batch, one)
        if _SURE[one.what] >= _SURE[known.what]:
            best[one.batch] = one
    return best


def _rewrite(
    session: Session,
    send: Row[Any],
    one: Departure,
    who: _Members,
    row: Row[Any] | None,
    *,
    beyond: int,
) -> None:
    """Let the batch hold those who were in its request, and nobody else who is planned."""
    members = [*who.people, *(barred["person"] for barred in who.barred)]
    if row is None:
        session.execute(insert(_batch).values(**_lost(send, one, len(who.people))))
    else:
        _move_others(session, send, row, members, beyond=beyond)
    if not members:
        return
    written = insert_into(session, _delivery)
    session.connection().execute(
        written.on_conflict_do_update(
            index_elements=["issue_id", "subscriber_id"],
            set_={
                "send_id": written.excluded.send_id,
                "batch": written.excluded.batch,
                "state": written.excluded.state,
                "reason": None,
            },
            # Comparisons one by one: a statement for many rows takes no list.
            where=or_(*(_delivery.c.state == state for state in sorted(_OPEN))),
        ),
        [
            {
                "issue_id": send.issue_id,
                "subscriber_id": person,
                "send_id": send.id,
                "batch": one.batch,
                "state": DeliveryState.PLANNED,
            }
            for person in members
        ],
    )
    batch_store.skip(session, send.issue_id, who.barred)


def _lost(send: Row[Any], one: Departure, size: int) -> dict[str, Any]:
    return {
        "send_id": send.id,
        "number": one.batch,
        "variant_id": one.variant,
        "part": Part.SAMPLE if send.test else Part.WHOLE,
        "zone": "",
        "state": BatchState.CLAIMED,
        "size": size,
        "not_before": one.at,
        "attempt": one.attempt,
        "departed_at": one.at,
        "detail": "",
    }


def _move_others(
    session: Session, send: Row[Any], row: Row[Any], members: Sequence[int], *, beyond: int
) -> None:
    """Whoever was planned here and was not in the request gets a batch of their own."""
    others = session.scalars(
        select(_delivery.c.subscriber_id).where(
            _delivery.c.send_id == send.id,
            _delivery.c.batch == row.number,
            _delivery.c.state == DeliveryState.PLANNED,
            _delivery.c.subscriber_id.not_in(members),
        )
    ).all()
    if not others:
        return
    last = select(func.max(_batch.c.number)).where(_batch.c.send_id == send.id)
    # The journal may know batches that the database has lost, under numbers that follow.
    number = max(session.execute(last).scalar_one(), beyond) + 1
    fresh = {"number": number, "state": BatchState.PENDING, "size": len(others)}
    session.execute(
        insert(_batch).values(**{**row._mapping, **fresh, "attempt": 0, "resent": False})
    )
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == send.issue_id, _delivery.c.subscriber_id.in_(others))
        .values(batch=number)
    )


def _count_again(session: Session, send: Row[Any]) -> None:
    """Sizes and the plan's sum, after people were written again or moved."""
    mine = select(func.count()).where(_delivery.c.send_id == send.id)
    sizes = mine.where(_delivery.c.batch == _batch.c.number).scalar_subquery()
    session.execute(update(_batch).where(_batch.c.send_id == send.id).values(size=sizes))
    if send.started_at is not None:
        session.execute(
            update(_send)
            .where(_send.c.id == send.id)
            .values(planned=mine.scalar_subquery() + _send.c.transferred)
        )


def _behind(row: Row[Any], one: Departure) -> bool:
    """Whether the database stands before the moment that the log tells of."""
    if row.state in {BatchState.ACCEPTED, BatchState.REJECTED, BatchState.SKIPPED}:
        return False
    # A crash between the answer and its settlement, too.
    if one.what == TAKEN or row.attempt < one.attempt:
        return True
    return bool(row.attempt == one.attempt and row.state == BatchState.CLAIMED)
