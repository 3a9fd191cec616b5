"""Changes the state of one batch, from claim to settlement, for one worker.

Each statement names the expected state and attempt (fencing). A late worker changes nothing, and
the result tells it so. batches.py changes batches in bulk.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.ledger import (
    batches,
    deliveries,
    provider_backoff,
    reschedule,
    restore_gate,
    sends,
)
from newsletter.sending.ledger.claimed_batch import (
    ClaimedBatch,
    EligibleRecipient,
    Probe,
    SkippedRecipient,
)
from newsletter.sending.models import Batch, Part, Send
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import is_paced
from newsletter.sending.reasons import PauseCause
from newsletter.sending.retry_policy import (
    Decision,
    RejectBatch,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    Uncertain,
    backoff,
)
from newsletter.sending.states import BATCH_NEXT, BatchState, SendState

_log = logging.getLogger(__name__)
_send, _batch = table_of(Send), table_of(Batch)

#: No batch is larger: SendGrid takes up to 1,000 recipients in one request.
_LARGEST = 1000
#: A batch is on time within this delay: busy workers may be a few seconds late.
_ON_TIME = timedelta(minutes=1)
#: In the publication's time zone it may still be yesterday.
_ONE_DAY = timedelta(days=1)

#: The states of a batch when its answer comes; uncertain if the answer is late.
_ANSWERED = (BatchState.IN_FLIGHT, BatchState.UNCERTAIN)

# The statements are built once, because every batch uses them.
_CANDIDATES = (
    select(
        _batch.c.send_id,
        _batch.c.number,
        _batch.c.variant_id,
        _batch.c.attempt,
        _batch.c.size,
        _batch.c.not_before,
        _send.c.issue_id,
        _send.c.topics,
        _send.c.created_at,
        _send.c.timetable,
        _send.c.track_clicks,
        _send.c.track_opens,
    )
    .join(_send, _send.c.id == _batch.c.send_id)
    .where(
        # A literal, not a parameter, so that the database can use the partial index.
        _batch.c.state == literal_column(f"'{BatchState.PENDING}'"),
        _batch.c.not_before <= bindparam("now"),
        _batch.c.part != Part.REST,
        _send.c.state == SendState.SENDING,
        ~restore_gate.CLOSED,
    )
    .limit(1)
    .with_for_update(of=_batch, skip_locked=True)
)
_EARLIEST = (_batch.c.not_before, _batch.c.send_id, _batch.c.number)
_DUE = _CANDIDATES.where(~provider_backoff.blocks()).order_by(*_EARLIEST)
_DUE_BATCH = _DUE.where(
    _batch.c.send_id == bindparam("of_send"), _batch.c.number == bindparam("of_number")
)
#: A resent batch may have been accepted before, and events may prove it. A split would separate
#: them, so it becomes a probe only if there is no other batch, and then as a whole.
_PROBE_CANDIDATE = _CANDIDATES.add_columns(_batch.c.resent).order_by(
    _batch.c.resent, _batch.c.size > bindparam("most"), *_EARLIEST
)
_IS_ATTEMPT = (
    _batch.c.send_id == bindparam("of_send"),
    _batch.c.number == bindparam("of_number"),
    _batch.c.attempt == bindparam("of_attempt"),
)
_CLAIM = (
    update(_batch)
    .where(*_IS_ATTEMPT, _batch.c.state == BatchState.PENDING)
    .values(
        state=BatchState.CLAIMED,
        attempt=bindparam("of_attempt") + 1,
        worker=bindparam("by"),
        lease_until=bindparam("until"),
    )
)
_DEPART = (
    update(_batch)
    .where(
        *_IS_ATTEMPT,
        _batch.c.state == BatchState.CLAIMED,
        exists(
            select(1).where(_send.c.id == bindparam("of_send"), _send.c.state == SendState.SENDING)
        ),
        ~provider_backoff.blocks(),
    )
    .values(
        state=BatchState.IN_FLIGHT, departed_at=bindparam("now"), lease_until=bindparam("until")
    )
)
_ACCEPT = (
    update(_batch)
    .where(*_IS_ATTEMPT, _batch.c.state == BatchState.IN_FLIGHT)
    .values(
        state=BatchState.ACCEPTED,
        settled_at=bindparam("now"),
        message_id=bindparam("answer"),
        detail="",
    )
)


class BatchStore:
    """Claims, departs, settles and releases the batches of one worker.

    The methods write in the caller's transaction and never commit.
    """

    def __init__(
        self,
        worker: str,
        *,
        lease: timedelta,
        patience: timedelta = timedelta(hours=1),
        warm_up: WarmUp | None = None,
    ) -> None:
        self._worker = worker
        self._lease = lease
        self._patience = patience
        self._warm_up = warm_up

    def claim(
        self, session: Session, *, now: datetime, only: tuple[int, int] | None = None
    ) -> ClaimedBatch | None:
        """Claim the earliest due batch of any send; None if there is none.

        With ``only``, claim just this (send, number). During a backoff only a probe can be
        claimed, and only without ``only``. If nothing is due, sends whose batches are all
        settled are marked as sent.
        """
        found = _due(session, now, only)
        if found is not None:
            at = _BatchKey(found.number, found.attempt, found.size)
            claimed = self._write_claim(session, found, at, now=now)
        else:
            claimed = self._claim_probe(session, now=now) if only is None else None
        if claimed is None:
            sends.finish(session, now=now)
        return claimed

    def is_late(self, batch: ClaimedBatch, *, now: datetime) -> bool:
        """Whether the batch missed its time in a timetable or a warm-up, and needs another."""
        if now - batch.due <= _ON_TIME:
            return False
        warm_up = self._warm_up
        return batch.paced or (warm_up is not None and not warm_up.is_over(now.date() - _ONE_DAY))

    def reschedule(self, session: Session, batch: ClaimedBatch, *, now: datetime) -> None:
        """Release a late batch, and give all pending batches of its send new times.

        Otherwise all batches that were due while no worker ran, or during a backoff, would leave
        at once, within quiet hours and above the limits.
        """
        if _requeue(session, batch, (BatchState.CLAIMED,)):
            reschedule.reschedule_or_pause(session, batch.send_id, now=now, warm_up=self._warm_up)
            batches.drop_cancelled(session, now=now)

    def depart(
        self,
        session: Session,
        batch: ClaimedBatch,
        skipped: Sequence[SkippedRecipient],
        *,
        now: datetime,
    ) -> bool:
        """Mark the batch in flight; the caller commits before the request leaves.

        Releases the batch and returns False if the claim was lost, the send was paused or
        cancelled, or a backoff has begun since.
        """
        probe = provider_backoff.NO_PROBE if batch.probe is None else batch.probe.number
        values = {**_key_values(batch), "now": now, "until": now + self._lease, "probe": probe}
        if not changed(session, _DEPART, values):
            self.release(session, batch, now=now)
            return False
        deliveries.skip(session, batch.issue_id, skipped)
        return True

    def skip(
        self,
        session: Session,
        batch: ClaimedBatch,
        skipped: Sequence[SkippedRecipient],
        *,
        now: datetime,
    ) -> None:
        """Settle a claimed batch whose recipients are all skipped."""
        if _move(session, batch, (BatchState.CLAIMED,), BatchState.SKIPPED, settled_at=now):
            deliveries.skip(session, batch.issue_id, skipped)

    def release(self, session: Session, batch: ClaimedBatch, *, now: datetime) -> None:
        """Make a claimed batch pending again: its request has not left."""
        _requeue(session, batch, (BatchState.CLAIMED,))
        batches.drop_cancelled(session, now=now)

    def give_up(
        self,
        session: Session,
        batch: ClaimedBatch,
        cause: PauseCause,
        reason: str,
        *,
        now: datetime,
        departed: bool,
    ) -> None:
        """Make the batch pending again and pause its send, because it cannot be sent now.

        ``departed`` says that it is marked in flight, although its request has not left.
        """
        why = f"batch {batch.number}: {reason}"[:1000]
        _requeue(session, batch, _ANSWERED if departed else (BatchState.CLAIMED,), why)
        sends.pause(session, batch.send_id, cause, reason=why, now=now)

    def settle(
        self,
        session: Session,
        batch: ClaimedBatch,
        recipients: Sequence[EligibleRecipient],
        decision: Decision,
        *,
        now: datetime,
        jitter: float,
    ) -> None:
        """Apply the decision on the provider's answer to a batch of these recipients.

        If the provider cannot be reached or does not answer, only probes leave; after the store's
        ``patience`` the send is paused. ``jitter`` in [0, 1) varies the time of the next probe.
        """
        if not isinstance(decision, Settled):
            _log.warning(
                "send %s, batch %s: %s",
                batch.send_id,
                batch.number,
                decision,
                extra={"send": batch.send_id, "batch": batch.number},
            )
        match decision:
            case Settled(message_id):
                _accept(session, batch, now=now, message_id=message_id)
            case TryAgain(wait, reason, set_by_provider=True):
                _requeue(session, batch, _ANSWERED, reason)
                provider_backoff.back_off(session, now=now, until=now + wait, reason=reason)
            case TryAgain(_, reason):
                _requeue(session, batch, _ANSWERED, reason)
                self._back_off(session, batch, reason, now=now, jitter=jitter)
            case RejectBatch() | RejectOne() | Split():
                _refuse(session, batch, recipients, decision, now=now)
            case StopSend(cause, reason):
                _requeue(session, batch, _ANSWERED, reason)
                sends.pause(session, batch.send_id, cause, reason=reason, now=now)
            case Uncertain(reason):
                uncertain = (BatchState.IN_FLIGHT,), BatchState.UNCERTAIN
                _move(session, batch, *uncertain, detail=reason[:1000])
                self._back_off(session, batch, reason, now=now, jitter=jitter)

    def _claim_probe(self, session: Session, *, now: datetime) -> ClaimedBatch | None:
        """Claim a batch as the probe of a backoff, if a probe is due.

        For the small first probe a larger batch is split; the rest keeps its number and time.
        None if there is no backoff, its wait lasts, another probe is under way, or no batch is
        due.
        """
        probe = provider_backoff.due_probe(session, now=now)
        if probe is None:
            return None
        most = _LARGEST if probe.whole else provider_backoff.PROBE_SIZE
        found = session.execute(_PROBE_CANDIDATE, {"now": now, "most": most}).one_or_none()
        if found is None:
            return None
        at, some = _BatchKey(found.number, found.attempt, found.size), list[int]()
        if found.size > most and not found.resent:
            some = deliveries.planned(session, found.send_id, found.number, at_most=most)
        if some:
            at = _BatchKey(_next_number(session, found.send_id), 0, len(some))
        if not provider_backoff.start_probe(
            session,
            probe,
            send_id=found.send_id,
            batch=at.number,
            attempt=at.attempt + 1,
            now=now,
        ):
            return None
        if some:
            _split_off(session, found, some, number=at.number)
        return self._write_claim(session, found, at, now=now, probe=probe)

    def _write_claim(
        self,
        session: Session,
        found: Row[Any],
        at: "_BatchKey",
        *,
        now: datetime,
        probe: Probe | None = None,
    ) -> ClaimedBatch | None:
        taken = {
            "of_send": found.send_id,
            "of_number": at.number,
            "of_attempt": at.attempt,
            "by": self._worker,
            "until": now + self._lease,
        }
        if not changed(session, _CLAIM, taken):
            return None
        return ClaimedBatch(
            send_id=found.send_id,
            number=at.number,
            issue_id=found.issue_id,
            variant_id=found.variant_id,
            attempt=at.attempt + 1,
            size=at.size,
            topics=tuple(found.topics),
            made_at=found.created_at,
            due=found.not_before,
            paced=is_paced(found.timetable),
            probe=probe,
            track_clicks=found.track_clicks,
            track_opens=found.track_opens,
        )

    def _back_off(
        self, session: Session, batch: ClaimedBatch, reason: str, *, now: datetime, jitter: float
    ) -> None:
        lasted = provider_backoff.fail(
            session,
            now=now,
            reason=reason,
            wait=lambda failures: backoff(failures, jitter),
            probe=batch.probe,
        )
        if lasted > self._patience:
            minutes = int(lasted.total_seconds() // 60)
            why = f"for {minutes} minutes: {reason}"
            sends.pause(session, batch.send_id, PauseCause.OUTAGE, reason=why, now=now)


class _BatchKey(NamedTuple):
    """The number, attempt and size of the batch to claim."""

    number: int
    attempt: int
    size: int


def _due(session: Session, now: datetime, only: tuple[int, int] | None) -> Row[Any] | None:
    values: dict[str, Any] = {"now": now, "probe": provider_backoff.NO_PROBE}
    if only is None:
        return session.execute(_DUE, values).one_or_none()
    return session.execute(
        _DUE_BATCH, {**values, "of_send": only[0], "of_number": only[1]}
    ).one_or_none()


def _accept(
    session: Session, batch: ClaimedBatch, *, now: datetime, message_id: str | None
) -> None:
    """Mark a batch as accepted, and store the message id even if an event has proved it before."""
    if batch.probe is not None:
        provider_backoff.record_success(session, batch.probe)
    if changed(session, _ACCEPT, {**_key_values(batch), "now": now, "answer": message_id}):
        deliveries.accept(session, batch.send_id, batch.number)
        return
    # An event has proved it, or the batch is uncertain, and the late answer settles it.
    batches.mark_accepted(
        session, [(batch.send_id, batch.number)], now=now, detail="the answer came late"
    )
    session.execute(
        update(_batch)
        .where(
            *_is_attempt(batch),
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.message_id.is_(None),
        )
        .values(message_id=message_id)
    )


def _refuse(
    session: Session,
    batch: ClaimedBatch,
    recipients: Sequence[EligibleRecipient],
    decision: RejectBatch | RejectOne | Split,
    *,
    now: datetime,
) -> None:
    """Reject the recipients that the provider refused; the others are sent again."""
    match decision:
        case RejectBatch(reason):
            values = {"settled_at": now, "detail": reason[:1000]}
            if _move(session, batch, _ANSWERED, BatchState.REJECTED, **values):
                deliveries.reject(session, batch.send_id, [batch.number], reason=reason)
        case RejectOne(index, reason):
            if _requeue(session, batch, _ANSWERED, reason):
                refused = recipients[index]["id"]
                deliveries.reject_one(session, batch.issue_id, refused, reason=reason)
        case Split(reason):
            if _requeue(session, batch, _ANSWERED, reason):
                half = [recipient["id"] for recipient in recipients[len(recipients) // 2 :]]
                _split_off(session, batch, half, number=_next_number(session, batch.send_id))


def _requeue(
    session: Session, batch: ClaimedBatch, sources: Sequence[BatchState], reason: str = ""
) -> bool:
    """Make the batch pending again: its request was not accepted, or never left.

    It keeps its time in the timetable. ``sources`` may include uncertain, for a late answer.
    """
    return _move(
        session,
        batch,
        sources,
        BatchState.PENDING,
        detail=reason[:1000],
        worker=None,
        lease_until=None,
        departed_at=None,
    )


def _next_number(session: Session, send_id: int) -> int:
    last = select(func.max(_batch.c.number)).where(_batch.c.send_id == send_id)
    return int(session.execute(last).scalar_one()) + 1


def _split_off(
    session: Session, batch: ClaimedBatch | Row[Any], subscribers: Sequence[int], *, number: int
) -> None:
    """Move these recipients of a pending batch to a new batch of this number."""
    same = _batch.c.send_id == batch.send_id, _batch.c.number == batch.number
    changed(session, update(_batch).where(*same).values(size=_batch.c.size - len(subscribers)))
    row = session.execute(select(_batch).where(*same)).mappings().one()
    session.execute(
        insert(_batch).values(
            **{**row, "number": number, "size": len(subscribers), "attempt": 0, "departed_at": None}
        )
    )
    deliveries.move_to_batch(session, batch.issue_id, subscribers, number=number)


def _move(
    session: Session,
    batch: ClaimedBatch,
    sources: Sequence[BatchState],
    target: BatchState,
    **values: object,
) -> bool:
    assert all(target in BATCH_NEXT[source] for source in sources), target
    moved = (
        update(_batch)
        .where(*_is_attempt(batch), _batch.c.state.in_(sources))
        .values(state=target, **values)
    )
    return changed(session, moved) == 1


def _key_values(batch: ClaimedBatch) -> dict[str, Any]:
    return {"of_send": batch.send_id, "of_number": batch.number, "of_attempt": batch.attempt}


def _is_attempt(batch: ClaimedBatch) -> tuple[ColumnElement[bool], ...]:
    return (
        _batch.c.send_id == batch.send_id,
        _batch.c.number == batch.number,
        _batch.c.attempt == batch.attempt,
    )
