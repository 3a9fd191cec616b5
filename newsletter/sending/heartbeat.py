"""The heartbeat of each process that sends: a row with a lease, renewed while it has batches.

While the lease lasts, no other process recovers the worker's batches. When the worker dies, they
are recovered within seconds, however long a request may take. A process without batches does not
renew its lease: the commit that claims its next batch does.
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
#: The lease. Four heartbeats may be missed, because a busy database may be slow to write one.
_LEASE = timedelta(seconds=15)
_KEEP_DEAD = timedelta(hours=1)


class Heartbeat:
    """Renews the lease of this process while it has batches, from ``start`` to ``stop``."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat")
        self._holders = set[object]()
        #: Set while there are holders; ``stop`` also sets it, to wake the thread.
        self._holding = threading.Event()

    def start(self) -> None:
        """Create the row of this process, and start the thread that renews it."""
        with transaction(self._database) as session:
            beat(session, self.name, now=datetime.now(UTC))
        self._thread.start()

    def renew(self, session: Session, *, now: datetime) -> None:
        """Renew the lease in the transaction that claims a batch, unless the thread renews it."""
        if not self._holders:
            beat(session, self.name, now=now)

    def add_holder(self, holder: object) -> None:
        """Renew the lease from now on: this holder has a batch, which is committed."""
        self._holders.add(holder)
        self._holding.set()

    def remove_holder(self, holder: object) -> None:
        """Stop renewing the lease if no other holder has a batch."""
        self._holders.discard(holder)

    def stop(self) -> None:
        """Stop the thread and delete the row of this process."""
        self._stopping.set()
        self._holding.set()
        self._thread.join()
        try:
            with transaction(self._database) as session:
                session.execute(delete(_worker).where(_worker.c.name == self.name))
        except Exception as error:  # noqa: BLE001 (the process must stop in any case)
            _log.warning("could not delete the worker's row; its lease expires: %s", error)

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            if not self._holders:
                self._holding.clear()
                if not self._holders:  # no holder was added since the line above
                    self._holding.wait()
                continue
            try:
                with transaction(self._database) as session:
                    beat(session, self.name, now=datetime.now(UTC))
            except Exception:  # noqa: BLE001 (the next heartbeat may succeed)
                _log.exception("could not write the heartbeat")


def beat(session: Session, name: str, *, now: datetime) -> None:
    """Renew the worker's lease, or create its row."""
    insert = insert_into(session, _worker).values(
        name=name, started_at=now, alive_until=now + _LEASE
    )
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["name"], set_={"alive_until": insert.excluded.alive_until}
        )
    )


def alive(session: Session, now: datetime) -> bool:
    """Whether any worker's lease is valid."""
    return bool(session.scalar(select(exists().where(_worker.c.alive_until > now))))


def delete_dead(session: Session, *, now: datetime) -> None:
    """Delete the rows of workers that died long ago."""
    session.execute(delete(_worker).where(_worker.c.alive_until < now - _KEEP_DEAD))
