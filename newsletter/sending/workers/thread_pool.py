"""The workers of a process; on SQLite they are threads that claim batches from the ledger."""

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
#: Seconds to wait after an error.
_RETRY_DELAY = 2.0
#: Allocations between two collections of the youngest objects.
_GC_THRESHOLD = 50_000


class Workers(Protocol):
    """Sends what is due, from ``start`` to ``stop``."""

    def start(self) -> None:
        """Start to send."""
        ...

    def stop(self) -> None:
        """Stop sending; return when the requests under way are finished and settled."""
        ...

    @property
    def is_working(self) -> bool:
        """Whether all threads that send are running."""
        ...


class WorkerPool:
    """The workers of this process, its heartbeat, and its comparison of the departure log."""

    def __init__(
        self,
        database: Engine,
        workers: Workers,
        heartbeat: Heartbeat,
        log_file: DepartureLogFile | None,
    ) -> None:
        self._workers = workers
        self._heartbeat = heartbeat
        #: The name of this process in the ledger.
        self.name = heartbeat.name
        self._log = LogKeeper(database, log_file)

    def start(self) -> None:
        """Compare the departure log with the database, then start to send."""
        self._log.start()
        self._heartbeat.start()
        self._workers.start()

    def stop(self) -> None:
        """Stop sending; return when the requests under way are finished and settled."""
        self._workers.stop()
        self._heartbeat.stop()
        self._log.stop()

    @property
    def is_working(self) -> bool:
        """Whether all threads that send are running."""
        return self._workers.is_working


class ThreadPool:
    """The worker threads of one process: each sends one due batch after the other."""

    def __init__(
        self, wakeups: Wakeups, make_dispatcher: Callable[[], Dispatcher], *, concurrency: int
    ) -> None:
        self._wakeups = wakeups
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(make_dispatcher(),), name=f"dispatch-{n}")
            for n in range(concurrency)
        ]

    def start(self) -> None:
        """Start to send."""
        tune_garbage_collector()
        self._wakeups.enter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending; return when all threads have settled their batches and ended."""
        self._stopping.set()
        self._wakeups.wake_all()
        for thread in self._threads:
            thread.join()
        self._wakeups.leave()

    @property
    def is_working(self) -> bool:
        """Whether all threads that send are running."""
        return all(thread.is_alive() for thread in self._threads)

    def _work(self, dispatcher: Dispatcher) -> None:
        while not self._stopping.is_set():
            seen = self._wakeups.count
            try:
                if not dispatcher.send_next(more=self._may_continue):
                    self._wakeups.wait(seen, self._stopping)
            except Exception:  # noqa: BLE001 (whatever it is, this thread must not end)
                # An answer is kept and settled later. A batch without an answer stays in flight
                # and becomes uncertain when its lease ends.
                _log.exception("could not send or settle a batch; trying again")
                self._stopping.wait(_RETRY_DELAY)
        try:
            dispatcher.release()
        except Exception:  # noqa: BLE001 (the thread ends in any case)
            _log.exception("could not settle the last batch; it will be recovered later")

    def _may_continue(self) -> bool:
        return not self._stopping.is_set()


def tune_garbage_collector() -> None:
    """Run the garbage collector less often.

    A batch creates ten thousand short-lived objects. With the default threshold the collector
    would take a fifth of the time and find nothing.
    """
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
