"""Who does the work inside this process, and on SQLite how: threads that ask the ledger."""

import gc
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine

from newsletter.sending.delivery.dispatcher import Dispatcher
from newsletter.sending.heartbeat import Heartbeat
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.sending.recovery.known_logs import LogKeeper
from newsletter.wakeups import Wakeups

_log = logging.getLogger(__name__)
#: After the database or anything else failed, in seconds.
_TROUBLED = 2.0
#: Allocations between two collections of the youngest objects.
_COLLECT_AFTER = 50_000


class Workers(Protocol):
    """Whoever sends what is due, from ``start`` to ``stop``."""

    def start(self) -> None:
        """Begin to send."""
        ...

    def stop(self) -> None:
        """Finish the requests under way, begin no more, and return when all is written down."""
        ...


class WorkerPool:
    """The workers of this process and what they need: a heartbeat, and looks into the log."""

    def __init__(
        self,
        database: Engine,
        workers: Workers,
        heartbeat: Heartbeat,
        log_file: DepartureLogFile | None,
    ) -> None:
        self._workers = workers
        self._heartbeat = heartbeat
        #: By which this process is known to the others.
        self.name = heartbeat.name
        self._log = LogKeeper(database, log_file)

    def start(self) -> None:
        """Begin to send, after a look whether this machine knows more than the database."""
        self._log.start()
        self._heartbeat.start()
        self._workers.start()

    def stop(self) -> None:
        """Finish the requests under way, begin no more, and return when all is written down."""
        self._workers.stop()
        self._heartbeat.stop()
        self._log.stop()


class ThreadPool:
    """Workers of one process: each thread takes the earliest due batch, and the next, and so on."""

    def __init__(
        self, wakeups: Wakeups, dispatcher: Callable[[], Dispatcher], *, concurrency: int
    ) -> None:
        self._wakeups = wakeups
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(dispatcher(),), name=f"dispatch-{n}")
            for n in range(concurrency)
        ]

    def start(self) -> None:
        """Begin to send."""
        spare_the_collector()
        self._wakeups.enter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the requests under way, begin no more, and return when all threads have ended."""
        self._stopping.set()
        self._wakeups.rouse()
        for thread in self._threads:
            thread.join()
        self._wakeups.leave()

    def _work(self, dispatcher: Dispatcher) -> None:
        while not self._stopping.is_set():
            seen = self._wakeups.count
            try:
                if not dispatcher.send_next(more=self._going_on):
                    self._wakeups.wait(seen, self._stopping)
            except Exception:  # noqa: BLE001 (whatever it is, this thread must not be missing for ever)
                # What was answered is kept and written down when that can be done. What left
                # without an answer stays in flight, and is in doubt when its lease ends.
                _log.exception("a batch could not be dealt with; trying again")
                self._stopping.wait(_TROUBLED)
        try:
            dispatcher.let_go()
        except Exception:  # noqa: BLE001 (a thread's end has nobody to tell)
            _log.exception("what was under way cannot be written down; it is looked into later")

    def _going_on(self) -> bool:
        return not self._stopping.is_set()


def spare_the_collector() -> None:
    """A batch makes ten thousand short-lived objects; with the usual threshold the collector
    runs in the midst of each, and finds nothing (a fifth of the time)."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
