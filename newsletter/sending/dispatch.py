"""One batch from claim to settlement: write, then send, then write.

Commits on its own, three times: the claim, the departure before the first byte
leaves, and the settlement. A crash between any two leaves a state that says so.
"""

import logging
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from newsletter.database import reading, transaction
from newsletter.links import Links
from newsletter.provider.gateway import Gateway, MailRequest
from newsletter.rendering.placeholders import Placeholders
from newsletter.sending import ledger, notices, oversight
from newsletter.sending.ledger import Barred, Claimed
from newsletter.sending.models import Variant
from newsletter.sending.personalise import Words, personalise
from newsletter.sending.recipients import Person, recipients
from newsletter.sending.retry import (
    Decision,
    Doubt,
    Reject,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    decide,
)
from newsletter.sending.states import SendState
from subscribers.schema import Session

_log = logging.getLogger(__name__)
#: Sends under way at once are few; each keeps its words in memory.
_KEPT_VARIANTS = 8
#: Seconds between two looks for single mails while none is there.
_NOTICE_INTERVAL = 0.5


class Dispatcher:
    """Sends batches one by one for one worker thread; not to be shared between threads."""

    def __init__(
        self,
        database: Engine,
        gateway: Gateway,
        links: Links,
        *,
        worker: str,
        base_url: str,
        sender_email: str,
        sender_name: str,
        mailbox: str = "",
        request_timeout: timedelta,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._links = links
        self._worker = worker
        self._base_url = base_url
        self._mailbox = mailbox
        self._sender_email = sender_email
        self._sender_name = sender_name
        # Twice the longest request, so that only a dead worker's lease ever ends.
        self._lease = 2 * request_timeout + timedelta(seconds=60)
        self._words: dict[int, Words] = {}
        self._look_for_notices_at = 0.0

    def send_next(self) -> bool:
        """Send what is due next, single mails before batches; False when nothing is due."""
        return self._send_notice() or self._send_batch()

    def _send_notice(self) -> bool:
        # A look before each batch would cost a tenth of it.
        if time.monotonic() < self._look_for_notices_at:
            return False
        with reading(self._database) as session:
            if not notices.any_due(session, now=datetime.now(UTC)):
                self._look_for_notices_at = time.monotonic() + _NOTICE_INTERVAL
                return False
        with transaction(self._database) as session:
            notice = notices.claim(session, now=datetime.now(UTC), lease=self._lease)
        if notice is None:
            return False
        outcome = self._gateway.send(
            notices.request(notice, sender_email=self._sender_email, sender_name=self._sender_name)
        )
        decision = decide(outcome, attempt=notice.attempt, size=1, jitter=random.random())  # noqa: S311
        if not isinstance(decision, Settled):
            _log.warning("notice %s: %s", notice.id, decision)
        with transaction(self._database) as session:
            notices.settle(session, notice, decision, now=datetime.now(UTC))
        return True

    def _send_batch(self) -> bool:
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            batch = ledger.claim(session, self._worker, now=now, lease=self._lease)
            if batch is None:
                oversight.finish(session, now=now)
                return False
        with reading(self._database) as session:
            words = self._words_of(session, batch.variant_id)
            people, barred = recipients(
                session, batch, now=now, with_attributes=words.placeholders.uses_attributes
            )
        if not people:
            with transaction(self._database) as session:
                ledger.skipped(session, batch, barred, now=datetime.now(UTC))
            return True
        request = self._request(batch, words, people)
        if request is None or not self._depart(batch, barred):
            return True
        outcome = self._gateway.send(request)
        decision = decide(
            outcome,
            attempt=batch.attempt,
            size=len(people),
            jitter=random.random(),  # noqa: S311
        )
        with transaction(self._database) as session:
            settle(session, batch, people, decision, now=datetime.now(UTC))
        return True

    def _request(
        self, batch: Claimed, words: Words, people: Sequence[Person]
    ) -> MailRequest | None:
        try:
            return personalise(
                batch,
                words,
                people,
                links=self._links,
                base_url=self._base_url,
                mailbox=self._mailbox,
            )
        except Exception as error:  # noqa: BLE001 (whatever it is, the send must not spin)
            # One bad value must not spin here for ever, nor cost anybody the issue.
            _log.exception("send %s, batch %s: cannot be written", batch.send_id, batch.number)
            with transaction(self._database) as session:
                reason = f"batch {batch.number} cannot be written: {type(error).__name__}: {error}"
                ledger.put_back(
                    session, batch, after=datetime.now(UTC), detail=reason, departed=False
                )
                oversight.move_send(session, batch.send_id, SendState.PAUSED, reason=reason[:1000])
            return None

    def _depart(self, batch: Claimed, barred: Sequence[Barred]) -> bool:
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            if ledger.depart(session, batch, barred, now=now, lease=self._lease):
                return True
            ledger.put_back(session, batch, after=now, detail="", departed=False)
            return False

    def _words_of(self, session: Session, variant_id: int) -> Words:
        words = self._words.get(variant_id)
        if words is None:
            variant = session.get_one(Variant, variant_id)
            session.expunge(variant)
            words = Words(variant, Placeholders.from_json(variant.placeholders))
            if len(self._words) >= _KEPT_VARIANTS:
                self._words.clear()
            self._words[variant_id] = words
        return words


def settle(
    session: Session,
    batch: Claimed,
    people: Sequence[Person],
    decision: Decision,
    *,
    now: datetime,
) -> None:
    """Write down what was decided about a batch that left with these people."""
    match decision:
        case Settled(message_id):
            ledger.accepted(session, batch, now=now, message_id=message_id)
        case TryAgain(wait, reason):
            ledger.put_back(session, batch, after=now + wait, detail=reason)
        case Reject(reason):
            ledger.rejected(session, batch, now=now, reason=reason)
        case RejectOne(index, reason):
            person = people[index]["id"]
            ledger.rejected_one(session, batch, person, now=now, reason=reason)
        case Split(reason):
            half = [person["id"] for person in people[len(people) // 2 :]]
            ledger.split(session, batch, half, now=now, reason=reason)
        case StopSend(reason):
            ledger.put_back(session, batch, after=now, detail=reason)
            oversight.move_send(session, batch.send_id, SendState.PAUSED, reason=reason[:1000])
        case Doubt(reason):
            ledger.doubted(session, batch, reason=reason)
    if not isinstance(decision, Settled):
        _log.warning("send %s, batch %s: %s", batch.send_id, batch.number, decision)
