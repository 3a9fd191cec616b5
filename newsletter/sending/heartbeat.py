"""Which processes that send are alive: a row each, renewed every few seconds while it sends.

While its row is fresh nobody takes a worker's batches from it. When it dies, others
have them back within seconds, however long a request may take. A process that holds no batch
renews nothing: the commit that claims its next batch makes its row fresh again.
"""

import logging
import os
import socket
import threading
import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, exists, select

from newsletter.db.dialect import insert_into
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Worker

_log = logging.getLogger(__name__)
_worker = table_of(Worker)

_INTERVAL = 3.0  # seconds
#: Four beats may be missed: a database under load is slow to take one.
_ALIVE = timedelta(seconds=15)
_FORGET = timedelta(hours=1)


class Heartbeat:
    """Says that this process is alive while it holds batches, from ``start`` to ``stop``."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat")
        self._holders = set[object]()
        #: Set while there are holders, and to let the thread notice its end.
        self._holding = threading.Event()

    def start(self) -> None:
        """Beat once, so that this process is known, and from now on whenever it holds batches."""
        with transaction(self._database) as session:
            beat(session, self.name, now=datetime.now(UTC))
        self._thread.start()

    def renew(self, session: Session, *, now: datetime) -> None:
        """Make the row fresh in the transaction that claims a batch, unless it is fresh anyway."""
        if not self._holders:
            beat(session, self.name, now=now)

    def hold(self, holder: object) -> None:
        """Go on beating: this holder has a batch, which is committed."""
        self._holders.add(holder)
        self._holding.set()

    def let_go(self, holder: object) -> None:
        """This holder has no batch any more; the last one ends the beating."""
        self._holders.discard(holder)

    def stop(self) -> None:
        """End the beating and say goodbye."""
        self._stopping.set()
        self._holding.set()
        self._thread.join()
        try:
            with transaction(self._database) as session:
                session.execute(delete(_worker).where(_worker.c.name == self.name))
        except Exception as error:  # noqa: BLE001 (nothing of an end may stop the rest of it)
            _log.warning("no goodbye, the row ends by itself: %s", error)

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            if not self._holders:
                self._holding.clear()
                if not self._holders:  # nobody has begun since the line above
                    self._holding.wait()
                continue
            try:
                with transaction(self._database) as session:
                    beat(session, self.name, now=datetime.now(UTC))
            except Exception:  # noqa: BLE001 (whatever it is, the next beat may succeed)
                _log.exception("the heartbeat cannot be written")


def beat(session: Session, name: str, *, now: datetime) -> None:
    """Renew the worker's row."""
    insert = insert_into(session, _worker).values(
        name=name, started_at=now, alive_until=now + _ALIVE
    )
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"], set_={"alive_until": insert.excluded.alive_until}
        )
    )


def alive(session: Session, now: datetime) -> bool:
    """Whether any process that sends was heard of lately."""
    return bool(session.scalar(select(exists().where(_worker.c.alive_until > now))))


def forget_dead(session: Session, *, now: datetime) -> None:
    """Remove the rows of workers that ended without a goodbye long ago."""
    session.execute(delete(_worker).where(_worker.c.alive_until < now - _FORGET))
