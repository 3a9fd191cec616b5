"""The import worker: a thread of the service that runs one import job after the other.

Only the machine that has a file can read it, so each worker claims only jobs whose file it has. An
interrupted import starts again: it finds the rows unchanged that it imported before.
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
from newsletter.imports.import_jobs import ClaimedImport, LeaseLostError
from newsletter.imports.upload_store import UploadStore
from newsletter.wakeups import Wakeups
from subscribers.transfer.import_run import import_people

_log = logging.getLogger(__name__)
#: Seconds between two progress updates.
_PROGRESS_EVERY = 1.0
#: Seconds to wait after an error of the database.
_AFTER_ERROR = 5.0
_SWEEP = 3600.0


class _StoppedError(Exception):
    """An operator stopped this import."""


class _ShutdownError(Exception):
    """The service is stopping."""


class ImportWorker:
    """Runs import jobs in a thread, from ``start`` to ``stop``."""

    def __init__(
        self,
        database: Engine,
        uploads: UploadStore,
        address_key: Callable[[], bytes],
        wakeups: Wakeups,
        *,
        keep: timedelta,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._uploads = uploads
        self._address_key = address_key
        self._keep = keep
        self._stopping = threading.Event()
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._thread = threading.Thread(target=self._work, name="imports")

    def start(self) -> None:
        """Start the thread."""
        self._wakeups.enter()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; a running import is interrupted and starts again later."""
        self._stopping.set()
        self._wakeups.wake_all()
        self._thread.join()
        self._wakeups.leave()

    def work_once(self) -> bool:
        """Run one waiting job; returns whether there was one."""
        with reading(self._database) as session:
            if not import_jobs.has_waiting(session, now=datetime.now(UTC)):
                return False
        with transaction(self._database) as session:
            claimed = import_jobs.claim(
                session, self._name, has=self._uploads.has, now=datetime.now(UTC)
            )
        if claimed is None:
            return False
        try:
            self._run(claimed)
        except LeaseLostError:
            _log.warning("another worker has claimed import %s", claimed.id)
        return True

    def sweep(self) -> None:
        """Delete files that are no longer needed."""
        now = datetime.now(UTC)
        with transaction(self._database) as session:
            expired = import_jobs.sweep(session, before=now - self._keep, now=now)
            known = import_jobs.ids(session)
        for job_id in expired:
            self._uploads.drop(job_id)
        for path in self._uploads.strays(known, before=now - timedelta(days=1)):
            path.unlink(missing_ok=True)

    def _work(self) -> None:
        swept = -_SWEEP
        while not self._stopping.is_set():
            seen = self._wakeups.count
            try:
                if time.monotonic() - swept > _SWEEP:
                    self.sweep()
                    swept = time.monotonic()
                if not self.work_once():
                    self._wakeups.wait(seen, self._stopping)
            except (SQLAlchemyError, OSError):
                _log.exception("imports: the database or the folder failed; trying again")
                self._stopping.wait(_AFTER_ERROR)

    def _run(self, claimed: ClaimedImport) -> None:
        """Run the import and store the result. May raise LeaseLostError."""
        report, problem, hint, stopped = None, "", "", False
        try:
            report = import_people(
                self._database,
                self._uploads.upload(claimed.id),
                address_key=self._address_key(),
                now=datetime.now(UTC),
                name=claimed.name,
                options=claimed.options,
                rejects=self._uploads.rejects(claimed.id),
                progress=self._progress(claimed),
                filename=claimed.name,
            )
        except _ShutdownError:
            with transaction(self._database) as session:
                import_jobs.requeue(session, claimed)
            return
        except _StoppedError:
            stopped, problem = True, "stopped by an operator; rows imported so far are kept"
        except UserError as error:
            problem, hint = error.message, error.hint or ""
        except (LeaseLostError, OperationalError):
            raise  # an error of the database is temporary, and the import starts again
        except Exception:  # noqa: BLE001 (one failing import must not end the worker)
            _log.exception("import %s failed", claimed.id)
            problem, hint = "an internal error", "See the log of the service."
        with transaction(self._database) as session:
            now = datetime.now(UTC)
            if report is None:
                import_jobs.fail(session, claimed, problem, hint, stopped=stopped, now=now)
            else:
                import_jobs.finish(session, claimed, report, now=now)
        if report is None or not claimed.options.dry_run:
            self._uploads.drop(claimed.id, rejects=False)

    def _progress(self, claimed: ClaimedImport) -> Callable[[int, float], None]:
        """The import's progress callback: stores the progress, renews the lease, may stop it."""
        stored = 0.0

        def store(rows: int, part: float) -> None:
            nonlocal stored
            if self._stopping.is_set():
                raise _ShutdownError
            if time.monotonic() - stored < _PROGRESS_EVERY:
                return
            stored = time.monotonic()
            with transaction(self._database) as session:
                if import_jobs.store_progress(session, claimed, rows, part, now=datetime.now(UTC)):
                    raise _StoppedError

        return store
