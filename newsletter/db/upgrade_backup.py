"""Makes the backup before an upgrade of the database.

The copy of SQLite's file is placed beside it. PostgreSQL is copied by pg_dump, into the working
directory; without pg_dump there is no backup, and the operator is told.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from newsletter.db import private_files
from newsletter.db.backup import backup
from newsletter.db.engine import beside
from newsletter.errors import MachineError

NONE_MADE: Final = (
    "No backup was made, because pg_dump is not installed here. Install it (the package "
    "postgresql-client) for backups before upgrades, or make your own as in "
    "docs/guides/backup-and-restore.md."
)


def make(url: str, name: str) -> Path | None:
    """Write a backup; returns its file, or None for PostgreSQL without pg_dump.

    ``{}`` in the name stands for the database's own. Raises DatabaseError or MachineError if the
    backup cannot be written; the database should not be changed then.
    """
    parsed = make_url(url)
    base = Path(str(parsed.database or "newsletter")).stem
    if parsed.get_backend_name() == "sqlite":
        file = beside(url, f"{name.format(base)}.db")
        backup(url, file)
        return file
    tool = shutil.which("pg_dump")
    if tool is None:
        return None
    file = Path(f"{name.format(base)}.dump").absolute()
    try:
        private_files.make(file)
    except OSError as error:
        raise MachineError(
            f"the backup cannot be written: {error.strerror}", place=str(file)
        ) from None
    # The password is not an argument, which all users of the machine could read.
    address = parsed.set(drivername="postgresql", password=None).render_as_string()
    done = subprocess.run(  # noqa: S603 (no shell)
        [
            *(tool, "--format=custom", "--exclude-schema=procrastinate", "--no-password"),
            *(f"--file={file}", f"--dbname={address}"),
        ],
        env=os.environ | ({"PGPASSWORD": str(parsed.password)} if parsed.password else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        file.unlink(missing_ok=True)
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise MachineError(
            f"pg_dump could not make the backup: {said}",
            place="database_url",
            hint="The database is unchanged. Install a pg_dump as new as the server; or make a "
            "backup yourself and run `newsletter db upgrade`, which makes none.",
        )
    return file
