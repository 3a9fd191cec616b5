"""Replays a departure log into a restored database.

The log has the recipients and the outcome of each request. The parts of a plan that the
database lost are written again from it, so that a new plan excludes these recipients. If the
whole send is lost, its recipients are stored as those of a forgotten send (forgotten_sends.py).
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
    batches,
    deliveries,
    forgotten_sends,
    interventions,
    sends,
)
from newsletter.sending.ledger.claimed_batch import SkippedRecipient
from newsletter.sending.models import Batch, Delivery, Part, Send
from newsletter.sending.recovery.departure_log import (
    ACCEPTED,
    LEFT,
    NOT_ACCEPTED,
    Departure,
    LogReader,
    address_prefixes,
)
from newsletter.sending.states import MISSED, BatchState, DeliveryState, SendState
from subscribers.consent import records as consent_records
from subscribers.consent import suppression
from subscribers.consent.suppression import Proof, Suppressed
from subscribers.models import Suppression, SuppressionReason

_log = logging.getLogger(__name__)
_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_suppression = table_of(Suppression)

_ACCEPTED = "departure log: the provider accepted it"
_UNANSWERED = (
    "departure log: it left and was not answered; the database was restored from a backup since"
)
_SUPPRESSED = "departure log; the database was restored from a backup since"
#: Addresses per query.
_CHUNK = 1000
#: Deliveries in these states are changed by the replay.
_OPEN = frozenset({DeliveryState.PLANNED, *MISSED})
#: Outcome → its certainty: of several lines of a batch the most certain one counts.
_CERTAINTY = {NOT_ACCEPTED: 0, LEFT: 1, ACCEPTED: 2}


@dataclass(slots=True)
class ReplayReport:
    """Counts of what a replay changed: batches, sends, recipients and suppressions."""

    accepted: int = 0
    uncertain: int = 0
    #: Sends that the database has lost entirely.
    unknown_sends: int = 0
    #: Recipients of their requests that were not stored before.
    forgotten: int = 0
    #: Requests of such sends without an issue, written by an older version.
    unnamed: int = 0
    #: Suppressions that the database had lost.
    suppressed: int = 0
    #: Sends that were paused because an operator had paused or cancelled them.
    stopped: int = 0
    #: Damaged parts of the log, as text.
    damage: list[str] = field(default_factory=list)
    #: File of the log → bytes that the database has read.
    read: dict[str, int] = field(default_factory=dict, compare=False, repr=False)


def replay(
    session: Session, log: LogReader, *, now: datetime, after: Mapping[str, int] | None = None
) -> ReplayReport:
    """Write to the database what it lost and a departure log has.

    Accepted batches become accepted, unanswered ones uncertain, and lost suppressions are
    restored. The recipients of a send that the database has lost are stored, so that they get
    its issue from no other send. ``after`` (file → bytes) is what the database has read before.
    """
    contents = log.read(after or {})
    work = _Replay(session, log, now, ReplayReport(damage=contents.damage, read=contents.read))
    report = work.report
    suppressed = [
        (hashed, list(reasons.values())) for hashed, reasons in contents.suppressions.items()
    ]
    for begin in range(0, len(suppressed), _CHUNK):
        report.suppressed += _restore_suppressions(
            session, dict(suppressed[begin : begin + _CHUNK])
        )
    ids = sorted(
        {
            send_id
            for send_id, _ in [*contents.departures, *contents.accepted, *contents.interventions]
        }
    )
    rows = session.execute(select(_send).where(_send.c.id.in_(ids))).all() if ids else []
    known = {(row.id, row.created_at.astimezone(UTC).isoformat()): row for row in rows}
    for key, departures in contents.departures.items():
        send = known.get(key)
        if send is None:
            work.store_forgotten(key, departures)
        elif send.summarized_at is None:
            work.restore_batches(send, departures)
    for key, numbers in contents.accepted.items():
        if key in known:
            accepted = [(key[0], number) for number in numbers]
            report.accepted += batches.mark_accepted(
                session, accepted, now=now, detail=_ACCEPTED, finish=False
            )
    forgotten_sends.skip_planned_recipients(session, work.forgotten_ids)
    for key, (what, at) in contents.interventions.items():
        if key in known:
            report.stopped += interventions.restore(session, key[0], what, at, now=now)
    sends.finish(session, now=now)
    return report


@dataclass(frozen=True, slots=True)
class _Members:
    """The recipients of a request, by their current subscriber ids."""

    people: Sequence[int]
    skipped: Sequence[SkippedRecipient]


@dataclass(slots=True)
class _Replay:
    """The replay of one log into one database, with its report."""

    session: Session
    log: LogReader
    now: datetime
    report: ReplayReport
    forgotten_ids: set[int] = field(default_factory=set)

    def store_forgotten(self, key: tuple[int, str], departures: Sequence[Departure]) -> None:
        """Store the recipients of a send that the database has lost."""
        new = 0
        for one in departures:
            if one.what == NOT_ACCEPTED:
                continue
            if one.send_info is None:
                self.report.unnamed += 1
                continue
            people = address_prefixes(self.log.line_at(one.line))
            new += self._store_recipients(key[0], datetime.fromisoformat(key[1]), one, people)
        self.report.unknown_sends += 1
        self.report.forgotten += new
        if new:
            _log.warning(
                "send %s, created %s, is in the departure log but not in this database",
                *key,
                extra={"send": key[0]},
            )

    def _store_recipients(
        self, number: int, made_at: datetime, one: Departure, prefixes: Sequence[bytes]
    ) -> int:
        assert one.send_info is not None
        forgotten_id = forgotten_sends.get_or_create(
            self.session, number, made_at, one.send_info, now=self.now
        )
        self.forgotten_ids.add(forgotten_id)
        return forgotten_sends.add_recipients(
            self.session, forgotten_id, one.batch, prefixes, answered=one.what == ACCEPTED
        )

    def restore_batches(self, send: Row[Any], departures: Sequence[Departure]) -> None:
        """Bring the batches of a send to the states of their requests in the log."""
        session, now, report = self.session, self.now, self.report
        rows = {
            row.number: row
            for row in session.execute(select(_batch).where(_batch.c.send_id == send.id))
        }
        before, last = report.accepted + report.uncertain, max(one.batch for one in departures)
        for number, one in sorted(_latest_by_batch(departures).items()):
            row = rows.get(number)
            if one.what == NOT_ACCEPTED or (row is not None and not _is_behind(row, one)):
                continue
            _rewrite_batch(session, send, one, self._members(send, one), row, beyond=last)
            if one.what == ACCEPTED:
                batches.mark_accepted(
                    session, [(send.id, number)], now=now, detail=_ACCEPTED, finish=False
                )
                report.accepted += 1
            else:
                batches.mark_uncertain(session, send.id, [number], now=now, detail=_UNANSWERED)
                report.uncertain += 1
        if report.accepted + report.uncertain > before:
            _update_counts(session, send)
            if send.state == SendState.SENT:
                # It was retried since the backup: sends.finish marks it sent again.
                sends.move_send(session, send.id, SendState.SENDING, finished_at=None)

    def _members(self, send: Row[Any], one: Departure) -> _Members:
        line = self.log.line_at(one.line)
        if one.send_info is None:  # an older version wrote subscriber ids
            recorded = [
                SkippedRecipient(person=person, hash=None, why=why) for person, why in line["skip"]
            ]
            return _Members(line["people"], recorded)
        prefixes = address_prefixes(line)
        skipped = {bytes.fromhex(hexed): why for hexed, why in line["skip"]}
        known = forgotten_sends.subscriber_ids(self.session, [*prefixes, *skipped])
        if unknown := [prefix for prefix in prefixes if prefix not in known]:
            # They signed up after the backup. If they sign up again, they must not get it twice.
            self._store_recipients(send.id, send.created_at, one, unknown)
        return _Members(
            [known[prefix] for prefix in prefixes if prefix in known],
            [
                SkippedRecipient(person=known[prefix], hash=prefix.hex(), why=why)
                for prefix, why in skipped.items()
                if prefix in known
            ],
        )


def _restore_suppressions(session: Session, logged: Mapping[bytes, Sequence[Suppressed]]) -> int:
    """Restore lost suppressions, except of addresses that opted in since; returns how many."""
    rows = session.execute(select(_suppression).where(_suppression.c.address_hash.in_(logged)))
    here = {row.address_hash: row for row in rows}
    lost = {
        hashed: missing
        for hashed, ones in logged.items()
        if (missing := [one for one in ones if _is_lost(one, here.get(hashed))])
    }
    opted_in = consent_records.latest_opt_ins(session, list(lost)) if lost else {}
    proofs: dict[SuppressionReason, dict[bytes, Proof]] = defaultdict(dict)
    for hashed, missing in lost.items():
        for one in missing:
            if hashed not in opted_in or opted_in[hashed] <= one.at:
                proofs[SuppressionReason(one.reason)][hashed] = Proof(one.at, _SUPPRESSED)
    # The weakest first, so that a manual suppression keeps the others as underlying reason.
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


def _latest_by_batch(departures: Sequence[Departure]) -> dict[int, Departure]:
    """Batch → the accepted request, or else the last unanswered one, or else the last.

    The log may have several histories of a batch if a backup was restored before.
    """
    latest: dict[int, Departure] = {}
    for one in departures:
        known = latest.setdefault(one.batch, one)
        if _CERTAINTY[one.what] >= _CERTAINTY[known.what]:
            latest[one.batch] = one
    return latest


def _rewrite_batch(
    session: Session,
    send: Row[Any],
    one: Departure,
    recipients: _Members,
    row: Row[Any] | None,
    *,
    beyond: int,
) -> None:
    """Make the recipients of the logged request the only planned ones of the batch."""
    members = [*recipients.people, *(skipped["person"] for skipped in recipients.skipped)]
    if row is None:
        session.execute(insert(_batch).values(**_lost_batch(send, one, len(recipients.people))))
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
            # One comparison per state: executemany cannot expand an IN list.
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
    deliveries.skip(session, send.issue_id, recipients.skipped)


def _lost_batch(send: Row[Any], one: Departure, size: int) -> dict[str, Any]:
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
    """Move planned recipients that were not in the request to a new batch."""
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
    # The log may have batches with the next numbers that the database has lost.
    number = max(session.execute(last).scalar_one(), beyond) + 1
    changes = {"number": number, "state": BatchState.PENDING, "size": len(others)}
    session.execute(
        insert(_batch).values(**{**row._mapping, **changes, "attempt": 0, "resent": False})
    )
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == send.issue_id, _delivery.c.subscriber_id.in_(others))
        .values(batch=number)
    )


def _update_counts(session: Session, send: Row[Any]) -> None:
    """Update batch sizes and ``send.planned`` after recipients were written or moved."""
    own = select(func.count()).where(_delivery.c.send_id == send.id)
    sizes = own.where(_delivery.c.batch == _batch.c.number).scalar_subquery()
    session.execute(update(_batch).where(_batch.c.send_id == send.id).values(size=sizes))
    if send.started_at is not None:
        session.execute(
            update(_send)
            .where(_send.c.id == send.id)
            .values(planned=own.scalar_subquery() + _send.c.transferred)
        )


def _is_behind(row: Row[Any], one: Departure) -> bool:
    """Whether the batch's state is older than the departure."""
    if row.state in {BatchState.ACCEPTED, BatchState.REJECTED, BatchState.SKIPPED}:
        return False
    # This is also so after a crash between the answer and its commit.
    if one.what == ACCEPTED or row.attempt < one.attempt:
        return True
    return bool(row.attempt == one.attempt and row.state == BatchState.CLAIMED)
