"""Sends batches, and the single emails of the outbox.

The dispatcher commits three times for a batch: the claim, the departure before the first byte
leaves, and the settlement. After a crash, the state says how far the batch came. While more
batches are due, a settlement and the next claim share a commit.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from newsletter import metrics
from newsletter.db.engine import reading, transaction
from newsletter.links import Links
from newsletter.provider.gateway import Accepted, Gateway, MailRequest, NotSent, Outcome, Refused
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.personalize import PreparedVariant, VariantCache, personalize
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.ledger import sends
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.ledger.claimed_batch import (
    ClaimedBatch,
    EligibleRecipient,
    SkippedRecipient,
)
from newsletter.sending.ledger.recipients import recipients
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.reasons import PauseCause
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.sending.retry_policy import (
    Decision,
    RejectBatch,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    Uncertain,
    decide,
)
from newsletter.tracing import BatchTrace, TracedSend

_log = logging.getLogger(__name__)
#: Seconds between two queries of the outbox while it is empty.
_OUTBOX_INTERVAL = 0.5
#: The outcome of an attempt in the traces.
_OUTCOMES: dict[type[Decision], str] = {
    Settled: "accepted",
    TryAgain: "requeued",
    RejectBatch: "rejected",
    RejectOne: "recipient rejected",
    Split: "split",
    StopSend: "paused",
    Uncertain: "uncertain",
}


@dataclass(frozen=True, slots=True)
class _Answered:
    """A batch and what follows from the provider's answer, until it is settled."""

    batch: ClaimedBatch
    recipients: Sequence[EligibleRecipient]
    decision: Decision
    trace: BatchTrace


@dataclass(frozen=True, slots=True)
class SenderIdentity:
    """The sender of single emails, and the publication's name, which may change at any time."""

    email: str
    name: str
    reply_to: str = ""
    publication: str = ""


class Dispatcher:
    """Sends batches one by one for one worker thread; not to be shared between threads.

    The steps of a batch:

    1. Claim the earliest batch that is due, and commit. One that is late gets a new time.
    2. Read its recipients; skip those who unsubscribed or were suppressed since planning.
    3. Personalize: build the one request of the batch.
    4. Mark the batch in flight, and commit. From here on a crash leaves it uncertain.
    5. Write to the departure log, with which a restored database is compared.
    6. Send the request.
    7. Write the answer to the departure log.
    8. Decide what follows from the answer.
    9. Settle the batch, and commit.
    """

    def __init__(
        self,
        database: Engine,
        gateway: Gateway,
        links: Links,
        *,
        worker: Heartbeat,
        base_url: str,
        sender: Callable[[], SenderIdentity],
        mailbox: str = "",
        request_timeout: timedelta,
        log_file: DepartureLogFile | None = None,
        patience: timedelta = timedelta(hours=1),
        warm_up: WarmUp | None = None,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._links = links
        self._worker = worker
        self._base_url = base_url
        self._mailbox = mailbox
        self._sender = sender
        self._log_file = log_file
        # Twice the longest request, so that only a dead worker's lease ever ends.
        self._lease = 2 * request_timeout + timedelta(seconds=60)
        self._batches = BatchStore(
            worker.name, lease=self._lease, patience=patience, warm_up=warm_up
        )
        self._variants = VariantCache()
        self._query_outbox_at = 0.0
        self._answered: _Answered | None = None
        self._next: ClaimedBatch | None = None

    def send_next(self, *, more: Callable[[], bool] = lambda: False) -> bool:
        """Send what is due next, single emails before batches; False when nothing is due.

        While ``more()`` is true, the batch after it is claimed together with the settlement;
        the next call sends that one, or ``release`` releases it.
        """
        # A query of the outbox before each batch would cost a tenth of the throughput.
        outbox_first = time.monotonic() >= self._query_outbox_at
        if outbox_first and self.send_outbox_email():
            return True
        return self._send_batch(None, more) or (not outbox_first and self.send_outbox_email())

    def send_batch(self, send_id: int, number: int) -> bool:
        """Send this one batch if it is due and no other worker has it; False otherwise."""
        return self._send_batch((send_id, number), lambda: False)

    def send_outbox_email(self) -> bool:
        """Send the earliest due email of the outbox; False when there is none."""
        with reading(self._database) as session:
            if not outbox.any_due(session, now=datetime.now(UTC)):
                self._query_outbox_at = time.monotonic() + _OUTBOX_INTERVAL
                return False
        with transaction(self._database) as session:
            email = outbox.claim(session, now=datetime.now(UTC), lease=self._lease)
        if email is None:
            return False
        sender = self._sender()
        outcome = self._gateway.send(
            outbox.request(
                email,
                sender_email=sender.email,
                sender_name=sender.name,
                reply_to=sender.reply_to,
            )
        )
        decision = decide(outcome, attempt=email.attempt, size=1, jitter=random.random())  # noqa: S311
        if not isinstance(decision, Settled):
            _log.warning("outbox email %s: %s", email.id, decision)
        with transaction(self._database) as session:
            outbox.settle(session, email, decision, now=datetime.now(UTC))
        return True

    def release(self) -> None:
        """Settle the answered batch and release the claimed one, because this worker stops."""
        self._settle()
        if self._next is not None:
            with transaction(self._database) as session:
                self._batches.release(session, self._next, now=datetime.now(UTC))
            self._next = None
        self._worker.remove_holder(self)

    def _send_batch(self, only: tuple[int, int] | None, more: Callable[[], bool]) -> bool:
        # First the answer whose settlement failed, so that its batch does not become uncertain.
        self._settle()
        # 1. Claim.
        batch = self._claim(only)
        if batch is None:
            return False
        send = TracedSend(batch.send_id, batch.made_at)
        trace = BatchTrace(send, batch.number, batch.attempt, size=batch.size)
        with trace:
            self._send_claimed(batch, trace, more)
        return True

    def _send_claimed(
        self, batch: ClaimedBatch, trace: BatchTrace, more: Callable[[], bool]
    ) -> None:
        now = datetime.now(UTC)
        if self._batches.is_late(batch, now=now):
            with transaction(self._database) as session:
                self._batches.reschedule(session, batch, now=now)
            trace.end("rescheduled")
            return
        # 2. Read its recipients.
        with reading(self._database) as session:
            variant = self._variants.get(session, batch.variant_id)
            eligible, skipped = recipients(
                session,
                batch,
                now=datetime.now(UTC),
                with_attributes=variant.placeholders.uses_attributes,
            )
        trace.issue = variant.send_info.slug
        if not eligible:
            with transaction(self._database) as session:
                self._batches.skip(session, batch, skipped, now=datetime.now(UTC))
            metrics.RECIPIENTS.add(len(skipped), outcome="skipped")
            trace.end("skipped")
            return
        # 3. Personalize.
        request = self._personalized(batch, variant, eligible)
        if request is None:
            trace.end("paused", failed=True)
            return
        # 4. Mark in flight.
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            departed = self._batches.depart(session, batch, skipped, now=now)
        if not departed:
            trace.end("released")
            return
        metrics.RECIPIENTS.add(len(skipped), outcome="skipped")
        # 5. Write to the departure log.
        if not self._write_departure(batch, variant, eligible, skipped, now):
            trace.end("paused", failed=True)
            return
        # 6. Send the request.
        outcome = self._gateway.send(request)
        # 7. Write the answer to the departure log.
        self._write_answer(batch, outcome)
        # 8. Decide.
        jitter = random.random()  # noqa: S311
        decision = decide(outcome, attempt=batch.attempt, size=len(eligible), jitter=jitter)
        # 9. Settle.
        self._answered = _Answered(batch, eligible, decision, trace)
        self._settle(more)

    def _claim(self, only: tuple[int, int] | None) -> ClaimedBatch | None:
        """Claim a batch, or take the one that the last settlement has claimed."""
        if only is None and (claimed := self._next) is not None:
            self._next = None
            return claimed
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            batch = self._batches.claim(session, now=now, only=only)
            if batch is not None:
                self._worker.renew(session, now=now)
        if batch is None:
            self._worker.remove_holder(self)
        else:
            self._worker.add_holder(self)
        return batch

    def _personalized(
        self,
        batch: ClaimedBatch,
        variant: PreparedVariant,
        eligible: Sequence[EligibleRecipient],
    ) -> MailRequest | None:
        """The request; None when it cannot be built, and the send is paused."""
        try:
            return personalize(
                batch,
                variant,
                eligible,
                links=self._links,
                base_url=self._base_url,
                mailbox=self._mailbox,
                publication=self._sender().publication,
            )
        except Exception as error:  # noqa: BLE001 (any error pauses the send, or each claim would meet it again)
            _log.exception(
                "send %s, batch %s: the request cannot be built",
                batch.send_id,
                batch.number,
                extra={"send": batch.send_id, "batch": batch.number},
            )
            why = f"the request cannot be built: {type(error).__name__}: {error}"
            self._give_up(batch, PauseCause.REQUEST, why, departed=False)
            return None

    def _write_departure(
        self,
        batch: ClaimedBatch,
        variant: PreparedVariant,
        eligible: Sequence[EligibleRecipient],
        skipped: Sequence[SkippedRecipient],
        now: datetime,
    ) -> bool:
        """Write the departure to the log; if that fails, pause the send and return False."""
        if self._log_file is None:
            return True
        try:
            self._log_file.record_departure(batch, variant.send_info, eligible, skipped, now=now)
        except OSError as error:
            why = f"the departure log cannot be written: {error}"
            self._give_up(batch, PauseCause.DEPARTURE_LOG, why, departed=True)
            return False
        return True

    def _write_answer(self, batch: ClaimedBatch, outcome: Outcome) -> None:
        if self._log_file is None:
            return
        now = datetime.now(UTC)
        try:
            match outcome:
                case Accepted(message_id):
                    self._log_file.record_answer(
                        batch, accepted=True, message_id=message_id, now=now
                    )
                case NotSent() | Refused():
                    self._log_file.record_answer(batch, accepted=False, now=now)
        except OSError:
            # The log has the departure without an answer: after a restore, it is uncertain.
            _log.exception("the departure log cannot be written")

    def _give_up(self, batch: ClaimedBatch, cause: PauseCause, why: str, *, departed: bool) -> None:
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            self._batches.give_up(session, batch, cause, why, now=now, departed=departed)

    def _settle(self, more: Callable[[], bool] = lambda: False) -> None:
        """Write what follows from the answer; claim the next batch in the same commit.

        When this fails, the answer is kept for the next try, so that the batch does not become
        uncertain because the database failed for a moment.
        """
        answered = self._answered
        if answered is None:
            return
        claimed = None
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            self._batches.settle(
                session,
                answered.batch,
                answered.recipients,
                answered.decision,
                now=now,
                jitter=random.random(),  # noqa: S311
            )
            if more():
                claimed = self._batches.claim(session, now=now)
            else:
                sends.finish(session, now=now)
        self._answered, self._next = None, claimed
        _count(answered)
        answered.trace.end(
            _OUTCOMES[type(answered.decision)],
            failed=not isinstance(answered.decision, Settled),
        )


def _count(answered: _Answered) -> None:
    """Count the recipients of a settled batch, except those who are sent again."""
    size = len(answered.recipients)
    match answered.decision:
        case Settled():
            metrics.RECIPIENTS.add(size, outcome="accepted")
        case RejectBatch():
            metrics.RECIPIENTS.add(size, outcome="rejected")
        case RejectOne():
            metrics.RECIPIENTS.add(1, outcome="rejected")
        case Uncertain():
            metrics.RECIPIENTS.add(size, outcome="uncertain")
