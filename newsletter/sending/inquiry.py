"""Doubt: the provider's own record is asked whether it took a batch, where the operator has one.

A mail of the batch to one of its people proves that all of it was taken. That none is found
proves nothing, for the record is late and may have holes: the doubt stays, and is asked about
again. The place and the pace of questions stand in memory, so that a restart only asks anew.
"""

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, exists, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import ProviderError
from newsletter.provider import activity
from newsletter.provider.account import Ask, TryAgainError
from newsletter.sending.ledger import confirmations, send_store
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import BatchState
from subscribers.models import Subscriber

_log = logging.getLogger(__name__)
_batch, _delivery, _person = table_of(Batch), table_of(Delivery), table_of(Subscriber)
_send = table_of(Send)

#: The record shows a mail a while after it was taken, and for 30 days.
_FIRST, _LAST = timedelta(minutes=2), timedelta(days=30)
_AGAIN: Final = timedelta(minutes=10)
#: After a refusal; a rate limit that names no time is over in a minute.
_PAUSE, _LIMITED = timedelta(hours=1), timedelta(minutes=1)


class Inquiry:
    """Asks about one doubtful batch at a time."""

    def __init__(self, database: Engine, ask: Ask, hash_of: Callable[[str], bytes | None]) -> None:
        self._database, self._ask, self._hash_of = database, ask, hash_of
        self._asked: dict[tuple[int, int], datetime] = {}
        self._not_before: datetime | None = None

    def run(self, *, now: datetime) -> tuple[int, int] | None:
        """Ask about the batch that waits longest, if it is time; (send, number) once proved."""
        if self._not_before is not None and now < self._not_before:
            return None
        doubt = self._next(now)
        if doubt is None:
            return None
        send_id, number = doubt
        with reading(self._database) as session:
            made_at = session.scalars(select(_send.c.created_at).where(_send.c.id == send_id)).one()
        try:
            emails = activity.recipients(self._ask, send_id=send_id, batch=number, made_at=made_at)
        except ProviderError as error:
            self._put_off(error, now)
            return None
        self._asked[doubt] = now
        hashes = {hashed for email in emails if (hashed := self._hash_of(email))}
        with transaction(self._database) as session:
            if _is_to_one_of(session, send_id, number, hashes):
                detail = "proved by a mail in SendGrid's Email Activity"
                settled = confirmations.mark_accepted(session, [doubt], now=now, detail=detail)
                return doubt if settled else None
            send_store.note_doubt(
                session,
                send_id,
                number,
                f"SendGrid's Email Activity showed none of its mails at {now:%Y-%m-%d %H:%M} UTC, "
                "which proves nothing",
            )
        return None

    def _next(self, now: datetime) -> tuple[int, int] | None:
        with reading(self._database) as session:
            doubts = session.execute(
                select(_batch.c.send_id, _batch.c.number)
                .where(
                    _batch.c.state == BatchState.UNCERTAIN,
                    _batch.c.departed_at.between(now - _LAST, now - _FIRST),
                )
                .order_by(_batch.c.departed_at, _batch.c.send_id, _batch.c.number)
            )
            open_ones = [(row.send_id, row.number) for row in doubts]
        # What was settled meanwhile is forgotten.
        self._asked = {doubt: self._asked[doubt] for doubt in open_ones if doubt in self._asked}
        due = (d for d in open_ones if d not in self._asked or self._asked[d] + _AGAIN <= now)
        return next(due, None)

    def _put_off(self, error: ProviderError, now: datetime) -> None:
        if isinstance(error, TryAgainError):
            self._not_before = now + (error.retry_after or _LIMITED)
            _log.info("SendGrid's Email Activity will be asked again later: %s", error)
        else:
            self._not_before = now + _PAUSE
            _log.error("SendGrid's Email Activity cannot be asked about doubts: %s", error)


def _is_to_one_of(session: Session, send_id: int, number: int, hashes: Collection[bytes]) -> bool:
    """Whether one of these addresses is somebody's of the batch: else it is another program's."""
    return bool(
        session.scalar(
            select(
                exists(
                    select(1).where(
                        _delivery.c.send_id == send_id,
                        _delivery.c.batch == number,
                        _delivery.c.subscriber_id == _person.c.id,
                        _person.c.address_hash.in_(hashes),
                    )
                )
            )
        )
    )
