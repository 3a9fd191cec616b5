"""The background of imports: a thread of the service that takes up one list after the other.

Only the machine on which a file lies can read it, so each process looks for lists whose
file it sees. A list that was interrupted is begun again: an import finds unchanged what it
has taken over before.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from newsletter.db.engine import reading, transaction
from newsletter.errors import UserError
from newsletter.imports import import_jobs
from newsletter.imports.import_jobs import ClaimedImport, LostError
from newsletter.imports.upload_store import UploadStore
from newsletter.wakeups import Wakeups
from subscribers.transfer.import_run import import_people

_log = logging.getLogger(__name__)
#: How often a list says how far it is, in seconds.
_SAYS = 1.0
#: After the database failed, in seconds.
_TROUBLED = 5.0
_SWEEP = 3600.0


class _StoppedError(Exception):
    """An operator stopped this list."""


class _LeavingError(Exception):
    """The service stops."""


class Importer:
    """Works on uploaded lists from ``start`` to ``stop``."""

    def __init__(
        self,
        database: Engine,
        shelf: UploadStore,
        address_key: Callable[[], bytes],
        wakeups: Wakeups,
        *,
        keep: timedelta,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._shelf = shelf
        self._address_key = address_key
        self._keep = keep
        self._leaving = threading.Event()
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._thread = threading.Thread(target=self._work, name="imports")

    def start(self) -> None:
        """Begin to look for lists."""
        self._wakeups.enter()
        self._thread.start()

    def stop(self) -> None:
        """Put back what is under way, after the rows in hand, and return."""
        self._leaving.set()
        self._wakeups.rouse()
        self._thread.join()
        self._wakeups.leave()

    def work_once(self) -> bool:
        """Work on one list, if any waits; returns whether one did."""
        with reading(self._database) as session:
            if not import_jobs.waits(session, now=datetime.now(UTC)):
                return False
        with transaction(self._database) as session:
            claimed = import_jobs.claim(
                session, self._name, has=self._shelf.has, now=datetime.now(UTC)
            )
        if claimed is None:
            return False
        try:
            self._take(claimed)
        except LostError:
            _log.warning("import %s is in another process's hands", claimed.id)
        return True

    def sweep(self) -> None:
        """Delete files that nobody needs any more."""
        now = datetime.now(UTC)
        with transaction(self._database) as session:
            over = import_jobs.sweep(session, before=now - self._keep, now=now)
            known = import_jobs.known(session)
        for job_id in over:
            self._shelf.drop(job_id)
        for path in self._shelf.strays(known, before=now - timedelta(days=1)):
            path.unlink(missing_ok=True)

    def _work(self) -> None:
        swept = -_SWEEP
        while not self._leaving.is_set():
            seen = self._wakeups.count
            try:
                if time.monotonic() - swept > _SWEEP:
                    self.sweep()
                    swept = time.monotonic()
                if not self.work_once():
                    self._wakeups.wait(seen, self._leaving)
            except (SQLAlchemyError, OSError):
                _log.exception("imports: the database or the folder failed; trying again")
                self._leaving.wait(_TROUBLED)

    def _take(self, claimed: ClaimedImport) -> None:
        """Import the list and write down what came of it. May raise LostError."""
        report, problem, hint, stopped = None, "", "", False
        try:
            report = import_people(
                self._database,
                self._shelf.upload(claimed.id),
                address_key=self._address_key(),
                now=datetime.now(UTC),
                name=claimed.name,
                options=claimed.options,
                rejects=self._shelf.rejects(claimed.id),
                progress=self._teller(claimed),
                filename=claimed.name,
            )
        except _LeavingError:
            with transaction(self._database) as session:
                import_jobs.put_back(session, claimed)
            return
        except _StoppedError:
            stopped, problem = True, "stopped by an operator; what was taken over stays"
        except UserError as error:
            problem, hint = error.message, error.hint or ""
        except (LostError, OperationalError):
            raise  # the database's troubles pass, and the list is begun again
        except Exception:  # noqa: BLE001 (a list that breaks must not end the background)
            _log.exception("import %s broke", claimed.id)
            problem, hint = "it broke", "The service's own log says how."
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            if report is None:
                import_jobs.fail(session, claimed, problem, hint, stopped=stopped, now=now)
            else:
                import_jobs.finish(session, claimed, report, now=now)
        if report is None or not claimed.options.dry_run:
            self._shelf.drop(claimed.id, rejects=False)

    def _teller(self, claimed: ClaimedImport) -> Callable[[int, float], None]:
        """What the import calls now and then: it lets us say how far it is, and stop it."""
        said = 0.0

        def tell(rows: int, part: float) -> None:
            nonlocal said
            if self._leaving.is_set():
                raise _LeavingError
            if time.monotonic() - said < _SAYS:
                return
            said = time.monotonic()
            with transaction(self._database) as session:
                if import_jobs.tell(session, claimed, rows, part, now=datetime.now(UTC)):
                    raise _StoppedError

        return tell
