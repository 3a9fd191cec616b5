"""The backups that the service makes by itself: when one is due, and what follows it.

The names of the backups in the folder say when the last one was made, so that a restart changes
nothing. The clock's leader calls this, and another process in the same folder is waited for.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.backups.take import latest, take
from newsletter.db import programs
from newsletter.db.backup import BackupStoppedError, Stopped
from newsletter.db.engine import SQLAlchemyError, transaction
from newsletter.errors import BusyError, MachineError, UserError
from newsletter.imports.upload_store import UploadStore

_log = logging.getLogger(__name__)
#: The longest time until a failed backup is tried again.
_RETRY = timedelta(hours=1)


class ScheduledBackups:
    """Makes a backup whenever the latest one is older than ``every``."""

    def __init__(
        self,
        database: Engine,
        folder: Path,
        uploads: UploadStore,
        *,
        every: timedelta,
        keep: int,
        hook: Sequence[str],
    ) -> None:
        self._database, self._folder, self._uploads = database, folder, uploads
        self._every, self._keep, self._hook = every, keep, list(hook)
        self._failed_at: datetime | None = None

    def run_if_due(self, now: datetime, stopped: Stopped) -> None:
        """Make a backup if one is due, and run the hook; a failure is logged and emailed."""
        last = latest(self._folder, now=now)
        if last is not None and now - last < self._every:
            return
        failed = self._failed_at
        if failed is not None and failed <= now < failed + min(_RETRY, self._every):
            return
        try:
            made = take(
                self._database,
                self._folder,
                self._uploads,
                now=now,
                keep=self._keep,
                stopped=stopped,
            )
        except (BackupStoppedError, BusyError) as error:
            _log.info("%s", error)
            return
        except (UserError, SQLAlchemyError) as error:
            self._failed_at = now
            self._report(f"No backup was made: {error}\nIt is tried again within an hour.", now)
            return
        self._failed_at = None
        _log.info("backup %s: %s bytes", made.path, made.manifest.size)
        if self._hook:
            try:
                run_hook(self._hook, made.path, stopped)
            except MachineError as error:
                self._report(f"The backup is in {made.path}, but its hook failed: {error}", now)

    def _report(self, what: str, now: datetime) -> None:
        _log.error("%s", what)
        with transaction(self._database) as session:
            # Once a day at most.
            operator_messages.post(
                session,
                MessageKind.BACKUP_FAILED,
                self._folder,
                now=now,
                occasion=now.date(),
                detail=what,
            )


def run_hook(hook: Sequence[str], backup: Path, stopped: Stopped) -> None:
    """Run a program with the path of a backup as its last argument, without a shell.

    Raises MachineError if it cannot be started or fails, or was stopped with the service.
    """
    place = f"backup.hook: {hook[0]}"
    try:
        code, lines = programs.run([*hook, str(backup.absolute())], stopped=stopped)
    except OSError as error:
        raise MachineError(f"cannot be started: {error.strerror}", place=place) from None
    if code:
        said = lines[-1][:500] if lines else "it printed nothing to stderr"
        raise MachineError(f"it ended with exit code {code}: {said}", place=place)
