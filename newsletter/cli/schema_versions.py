"""Upgrades the database at the start of a service, and stops a process that it has outgrown."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from newsletter.db import engine as db
from newsletter.db import upgrade_backup
from newsletter.db.orm import Session
from newsletter.errors import DatabaseError

_log = logging.getLogger(__name__)


def upgrade(url: str, *, backups: str, say: Callable[[str], None]) -> None:
    """Bring the database to this program's version, and ``say`` what was done.

    A backup is made first, in the folder ``backups`` of the settings.
    """
    engine = db.open_database(url)

    def back_up(before: str, after: str) -> None:
        say(f"The database is of version {before}. It is backed up, then upgraded.")
        file = upgrade_backup.make(engine, db.beside(url, backups), after, now=datetime.now(UTC))
        say(f"The backup is {file}." if file else upgrade_backup.NONE_MADE)

    try:
        before, after = db.upgrade(engine, prepare=back_up)
    finally:
        engine.dispose()
    if before != after:
        say(f"The database went from version {before or 'nothing'} to {after}.")


class Outdated:
    """Notices that a newer release has upgraded the database, and stops this process once.

    It observes the wakeups of the process, so it looks after commits and every half minute.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._error: DatabaseError | None = None

    def __call__(self, session: Session) -> None:
        """Compare the version of the database with this program's."""
        if self._error is not None:
            return
        try:
            db.require_known_version(session)
        except DatabaseError as error:
            self._error = error
            _log.error("%s; this process finishes its work and stops", error.message)
            self._stop()

    def raise_if_noticed(self) -> None:
        """Raise the error that ended the process, after it has stopped."""
        if self._error is not None:
            raise self._error
