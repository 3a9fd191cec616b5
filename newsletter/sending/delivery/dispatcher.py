"""One batch from claim to settlement: write, then send, then write.

Commits on its own, three times: the claim, the departure before the first byte
leaves, and the settlement. A crash between any two leaves a state that says so. While
there is more to do, a settlement and the next claim share a commit.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from newsletter.links import Links
from newsletter.provider.gateway import Accepted, Gateway, NotSent, Outcome, Refused
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.personalize import PreparedVariant, VariantCache, personalize
from newsletter.sending.delivery.retry_policy import Decision, Settled, decide
from newsletter.sending.delivery.settlement import settle
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.ledger import batch_store, send_store
from newsletter.sending.ledger.batch_store import ClaimedBatch, SkippedRecipient
from newsletter.sending.ledger.recipients import EligibleRecipient, recipients
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.planning import reschedule
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.sending.states import SendState

_log = logging.getLogger(__name__)
#: Seconds between two looks for single mails while none is there.
_NOTICE_INTERVAL = 0.5
#: Workers that are merely busy are late by less, and a timetable is not made anew more often.
_ON_TIME = timedelta(minutes=1)
#: It may be yesterday in the publication's zone.
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A batch with the provider's answer, which is written down as soon as that can be done."""

    batch: ClaimedBatch
    people: Sequence[EligibleRecipient]
    decision: Decision


class Dispatcher:
    """Sends batches one by one for one worker thread; not to be shared between threads."""

    def __init__(
        self,
        database: Engine,
        gateway: Gateway,
        links: Links,
        *,
        worker: Heartbeat,
        base_url: str,
        sender_email: str,
        sender_name: str,
        reply_to: str = "",
        publication: str = "",
        mailbox: str = "",
        request_timeout: timedelta,
        journal: DepartureLogFile | None = None,
        patience: timedelta = timedelta(hours=1),
        warm_up: WarmUp | None = None,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._links = links
        self._worker = worker
        self._base_url = base_url
        self._mailbox = mailbox
        self._sender_email = sender_email
        self._sender_name = sender_name
        self._reply_to = reply_to
        self._publication = publication
        self._journal = journal
        self._patience = patience
        self._warm_up = warm_up
        # Twice the longest request, so that only a dead worker's lease ever ends.
        self._lease = 2 * request_timeout + timedelta(seconds=60)
        self._words = VariantCache()
        self._look_for_notices_at = 0.0
        self._answered: _Answered | None = None
        self._next: ClaimedBatch | None = None

    def send_next(self, *, more: Callable[[], bool] = lambda: False) -> bool:
        """Send what is due next, single mails before batches; False when nothing is due.

        While ``more`` says so, the batch after it is claimed together with the settlement;
        the next call sends that one, or ``let_go`` gives it back.
        """
        # A look for notices before each batch would cost a tenth of it.
        looks = time.monotonic() >= self._look_for_notices_at
        if looks and self.send_notice():
            return True
        return self._send_batch(None, more) or (not looks and self.send_notice())

    def send_batch(self, send_id: int, number: int) -> bool:
        """Send this very batch if it is due and nobody else has it; False otherwise."""
        return self._send_batch((send_id, number), lambda: False)

    def send_notice(self) -> bool:
        """Send the earliest single mail that is due; False when there is none."""
        with reading(self._database) as session:
            if not outbox.any_due(session, now=datetime.now(UTC)):
                self._look_for_notices_at = time.monotonic() + _NOTICE_INTERVAL
                return False
        with transaction(self._database) as session:
            notice = outbox.claim(session, now=datetime.now(UTC), lease=self._lease)
        if notice is None:
            return False
        outcome = self._gateway.send(
            outbox.request(
                notice,
                sender_email=self._sender_email,
                sender_name=self._sender_name,
                reply_to=self._reply_to,
            )
        )
        decision = decide(outcome, attempt=notice.attempt, size=1, jitter=random.random())  # noqa: S311
        if not isinstance(decision, Settled):
            _log.warning("notice %s: %s", notice.id, decision)
        with transaction(self._database) as session:
            outbox.settle(session, notice, decision, now=datetime.now(UTC))
        return True

    def let_go(self) -> None:
        """Write down what was answered and give back what is claimed: this worker ends."""
        self._settle()
        if self._next is not None:
            with transaction(self._database) as session:
                batch_store.put_back(session, self._next, detail="", departed=False)
                send_store.drop_cancelled(session, now=datetime.now(UTC))
            self._next = None
        self._worker.let_go(self)

    def _send_batch(self, only: tuple[int, int] | None, more: Callable[[], bool]) -> bool:
        self._settle()
        batch = self._claim(only)
        if batch is None:
            return False
        if self._behind_its_time(batch):
            return True
        with reading(self._database) as session:
            words = self._words.of(session, batch.variant_id)
            people, barred = recipients(
                session,
                batch,
                now=datetime.now(UTC),
                with_attributes=words.placeholders.uses_attributes,
            )
        if not people:
            with transaction(self._database) as session:
                batch_store.skipped(session, batch, barred, now=datetime.now(UTC))
            return True
        outcome = self._hand_over(batch, words, people, barred)
        if outcome is not None:
            decision = decide(
                outcome,
                attempt=batch.attempt,
                size=len(people),
                jitter=random.random(),  # noqa: S311
            )
            self._answered = _Answered(batch, people, decision)
            self._settle(more)
        return True

    def _claim(self, only: tuple[int, int] | None) -> ClaimedBatch | None:
        if only is None and (kept := self._next) is not None:
            self._next = None
            return kept
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            name, lease = self._worker.name, self._lease
            batch = batch_store.claim(session, name, now=now, lease=lease, only=only)
            if batch is None and only is None:
                batch = batch_store.claim_probe(session, name, now=now, lease=lease)
            if batch is None:
                send_store.finish(session, now=now)
            else:
                self._worker.renew(session, now=now)
        if batch is None:
            self._worker.let_go(self)
        else:
            self._worker.hold(self)
        return batch

    def _settle(self, more: Callable[[], bool] = lambda: False) -> None:
        """Write the answer down. What fails stays in hand, for the next try: an answer that
        came must not turn into doubt because the database was away for a moment."""
        answered = self._answered
        if answered is None:
            return
        claimed = None
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            settle(
                session,
                answered.batch,
                answered.people,
                answered.decision,
                now=now,
                patience=self._patience,
                jitter=random.random(),  # noqa: S311
            )
            if more():
                claimed = batch_store.claim(session, self._worker.name, now=now, lease=self._lease)
            if claimed is None:
                send_store.finish(session, now=now)
        self._answered, self._next = None, claimed

    def _hand_over(
        self,
        batch: ClaimedBatch,
        words: PreparedVariant,
        people: Sequence[EligibleRecipient],
        barred: Sequence[SkippedRecipient],
    ) -> Outcome | None:
        """Let the request leave; None when nothing left and that is written down."""
        try:
            request = personalize(
                batch,
                words,
                people,
                links=self._links,
                base_url=self._base_url,
                mailbox=self._mailbox,
                publication=self._publication,
            )
        except Exception as error:  # noqa: BLE001 (whatever it is, the send must not spin)
            # One bad value must not spin here for ever, nor cost anybody the issue.
            _log.exception("send %s, batch %s: cannot be written", batch.send_id, batch.number)
            self._give_up(batch, f"cannot be written: {type(error).__name__}: {error}")
            return None
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            if not batch_store.depart(session, batch, barred, now=now, lease=self._lease):
                batch_store.put_back(session, batch, detail="", departed=False)
                send_store.drop_cancelled(session, now=now)
                return None
        if self._journal is None:
            return self._gateway.send(request)
        try:
            self._journal.left(batch, words.about, people, barred, now=now)
        except OSError as error:
            self._give_up(batch, f"the journal cannot be written: {error}", departed=True)
            return None
        outcome = self._gateway.send(request)
        self._note(self._journal, batch, outcome)
        return outcome

    def _note(self, journal: DepartureLogFile, batch: ClaimedBatch, outcome: Outcome) -> None:
        now = datetime.now(UTC)
        try:
            match outcome:
                case Accepted(message_id):
                    journal.answered(batch, taken=True, message_id=message_id, now=now)
                case NotSent() | Refused():
                    journal.answered(batch, taken=False, now=now)
        except OSError:
            # The departure stands there: a restored database would ask the operator.
            _log.exception("the journal cannot be written")

    def _behind_its_time(self, batch: ClaimedBatch) -> bool:
        """Give a batch that nobody sent in time another moment, and all that waits behind it.

        What was to leave while nothing ran, or while a hold lasted, would else leave at
        once: within quiet hours, and above every limit.
        """
        now = datetime.now(UTC)
        if now - batch.due <= _ON_TIME:
            return False
        warm_up = self._warm_up
        if not batch.paced and (warm_up is None or warm_up.is_over(now.date() - _A_DAY)):
            return False
        with transaction(self._database) as session:
            if batch_store.put_back(session, batch, detail="", departed=False):
                reschedule.reschedule_or_pause(session, batch.send_id, now=now, warm_up=warm_up)
                send_store.drop_cancelled(session, now=now)
        return True

    def _give_up(self, batch: ClaimedBatch, why: str, *, departed: bool = False) -> None:
        """Put back what surely did not leave, and let the operator look at its send."""
        with transaction(self._database) as session:
            reason = f"batch {batch.number}: {why}"[:1000]
            batch_store.put_back(session, batch, detail=reason, departed=departed)
            send_store.move_send(
                session,
                batch.send_id,
                SendState.PAUSED,
                reason=reason,
                paused_at=datetime.now(UTC),
            )
