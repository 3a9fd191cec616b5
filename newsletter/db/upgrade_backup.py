"""Makes the backup before an upgrade of the database: one file, without keys and uploads.

It reads no tables, unlike newsletter.backups, because their columns are those of another release.
"""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from newsletter.db import private_files
from newsletter.db.backup import copied, sync
from newsletter.db.dialect import is_postgresql
from newsletter.errors import MachineError

NONE_MADE: Final = (
    "No backup was made, because pg_dump is not installed here. Install it (the package "
    "postgresql-client) for backups before upgrades, or make your own as in "
    "docs/guides/backup-and-restore.md."
)


def make(engine: Engine, folder: Path, after: str, *, now: datetime) -> Path | None:
    """Write a backup before the upgrade to version ``after``; returns its file.

    Returns None for PostgreSQL without pg_dump. Raises DatabaseError or MachineError if the backup
    cannot be written; the database should not be changed then.
    """
    if is_postgresql(engine) and shutil.which("pg_dump") is None:
        return None
    suffix = "dump" if is_postgresql(engine) else "db"
    name = f"{Path(str(engine.url.database)).stem}-before-{after}-{now:%Y%m%dT%H%M%SZ}.{suffix}"
    file = (folder / name).absolute()
    unfinished = file.with_name(f".{name}.unfinished")
    try:
        private_files.make_folder(folder)
        with copied(engine, unfinished):
            sync(unfinished)
        unfinished.rename(file)
        sync(file.parent)
    except OSError as error:
        reason = error.strerror or error
        raise MachineError(f"the backup cannot be written: {reason}", place=str(file)) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return file
