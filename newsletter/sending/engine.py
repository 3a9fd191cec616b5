"""Who does the work: dispatching threads inside this process."""

import gc
import logging
import os
import socket
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from newsletter.sending.dispatch import Dispatcher

_log = logging.getLogger(__name__)
#: An idle thread looks for due batches this often, in seconds.
_IDLE = 0.2
#: After the database failed, in seconds.
_TROUBLED = 2.0
#: Allocations between two collections of the youngest objects.
_COLLECT_AFTER = 50_000


class Workers:
    """Threads that send whatever is due until they are told to stop."""

    def __init__(self, dispatcher: Callable[[str], Dispatcher], *, concurrency: int) -> None:
        self._stopping = threading.Event()
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._threads = [
            threading.Thread(
                target=self._work, args=(dispatcher(f"{name}:{n}"),), name=f"dispatch-{n}"
            )
            for n in range(concurrency)
        ]

    def start(self) -> None:
        """Begin to send."""
        # A batch makes ten thousand short-lived objects; with the usual threshold the
        # collector runs in the midst of each, and finds nothing (a fifth of the time).
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER, 20, 50)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the requests under way, begin no more, and return when all threads have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, dispatcher: Dispatcher) -> None:
        while not self._stopping.is_set():
            try:
                idle = 0.0 if dispatcher.send_next() else _IDLE
            except SQLAlchemyError:
                # What was in flight stands in the ledger as such and is looked into later.
                _log.exception("the database failed; trying again")
                idle = _TROUBLED
            if idle:
                self._stopping.wait(idle)
