"""Makes backups while the service runs, and deletes old ones.

A backup is written into a folder beside, which gets its name when everything in it is checked and
on the disk. So a backup that has a name is complete.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select

from newsletter import database_identity
from newsletter.backups import manifest as manifests
from newsletter.backups.manifest import LogPosition, Manifest
from newsletter.db import backup as db_backup
from newsletter.db import private_files
from newsletter.db.backup import Stopped
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import check_version, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import BackupError, BusyError, DatabaseError, MachineError
from newsletter.imports.models import OVER, ImportJob
from newsletter.imports.upload_store import UploadStore
from newsletter.sending.models import DepartureLog

_job, _log = table_of(ImportJob), table_of(DepartureLog)

_FORMAT: Final = "newsletter-%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"newsletter-\d{8}T\d{6}Z")
#: A backup that is being written or deleted. Nobody takes it for one.
_UNFINISHED = re.compile(rf"\.{_NAME.pattern}\.unfinished")
_LOCK_FILE: Final = ".newsletter-backup.lock"


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup, and the older ones that were deleted after it."""

    path: Path
    manifest: Manifest
    deleted: list[Path]


def take(
    engine: Engine,
    folder: Path,
    uploads: UploadStore,
    *,
    now: datetime,
    keep: int | None = None,
    stopped: Stopped = lambda: False,
) -> Backup:
    """Make a backup in this folder; with ``keep``, delete all but so many of this database.

    Raises BusyError if another process makes one there; MachineError if it cannot be written, for
    example on a full disk: then nothing is left of it.
    """
    schema = check_version(engine)
    if schema is None:
        raise DatabaseError("the database has no tables yet", place="database_url")
    path = folder / now.astimezone(UTC).strftime(_FORMAT)
    try:
        private_files.make_folder(folder)
        with _only_one(folder):
            with transaction(engine) as session:
                # By it, old backups of this database are told from others.
                database = database_identity.database_id(session, now=now)
            unfinished = _unfinished(path)
            private_files.make_folder(unfinished)
            try:
                manifest = _write(
                    engine, unfinished, uploads, schema, database, now=now, stopped=stopped
                )
                # A folder with files in it cannot be replaced, so no backup is overwritten.
                unfinished.rename(path)
                db_backup.sync(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            deleted = _delete_old(folder, manifest, keep) if keep is not None else []
    except OSError as error:
        reason = error.strerror or error
        raise MachineError(f"the backup cannot be written: {reason}", place=str(path)) from None
    return Backup(path, manifest, deleted)


def latest(folder: Path, *, now: datetime) -> datetime | None:
    """The time of the latest backup in the folder, by the names; None if there is none."""
    if not folder.is_dir():
        return None
    times = (_time(path) for path in folder.iterdir() if _NAME.fullmatch(path.name))
    # After the machine's clock was set back, later ones say nothing.
    return max((at for at in times if at is not None and at <= now), default=None)


def _time(path: Path) -> datetime | None:
    try:
        return datetime.strptime(path.name, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _write(
    engine: Engine,
    target: Path,
    uploads: UploadStore,
    schema: str,
    database: str,
    *,
    now: datetime,
    stopped: Stopped,
) -> Manifest:
    kind = "postgresql" if is_postgresql(engine) else "sqlite"
    name = manifests.DATABASE_FILE[kind]
    private_files.make_folder(target / manifests.UPLOADS)
    # Before the database: the file of an import that ends meanwhile would be gone after it.
    _copy_uploads(uploads, target)
    with db_backup.copied(engine, target / name, stopped=stopped) as session:
        logs = session.execute(select(_log.c.id, _log.c.host, _log.c.compared).order_by(_log.c.id))
        positions = [LogPosition(id=row.id, host=row.host, compared=row.compared) for row in logs]
        address_key = database_identity.address_key_fingerprint(session)
        missing = _settle_uploads(session, uploads, target)
    files = [name, *_relative(target / manifests.UPLOADS, target)]
    for folder_or_file in (*files, manifests.UPLOADS):
        db_backup.sync(target / folder_or_file)
    manifest = Manifest(
        format=manifests.FORMAT,
        program=manifests.program_version(),
        schema_version=schema,
        made_at=now,
        kind=kind,
        database=database,
        address_key=address_key,
        dumped_by=db_backup.dump_tool(engine),
        departure_logs=positions,
        files=[manifests.describe(target, file) for file in files],
        missing_uploads=missing,
    )
    with open(target / manifests.FILE, "x", opener=private_files.opener) as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    db_backup.sync(target)
    return manifest


def _settle_uploads(session: Session, uploads: UploadStore, target: Path) -> list[int]:
    """Keep the files of the imports that the copy knows; returns those whose file is missing."""
    state_of = {row.id: row.state for row in session.execute(select(_job.c.id, _job.c.state))}
    for path in (target / manifests.UPLOADS).iterdir():
        if int(path.name.partition(".")[0]) not in state_of:
            path.unlink()
    # Uploaded since the first look.
    _copy_uploads(uploads, target, only=state_of.keys())
    return [
        job
        for job, state in sorted(state_of.items())
        if state not in OVER and not (target / manifests.UPLOADS / f"{job}.upload").exists()
    ]


def _copy_uploads(uploads: UploadStore, target: Path, *, only: Set[int] | None = None) -> None:
    for job, path in uploads.stored():
        copy = target / manifests.UPLOADS / path.name
        if (only is None or job in only) and not copy.exists():
            try:
                db_backup.copy_file(path, copy)
            except FileNotFoundError:
                continue  # its import ended


def _relative(folder: Path, to: Path) -> list[str]:
    return sorted(str(path.relative_to(to)) for path in folder.iterdir())


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time work in this folder; delete what a killed one left behind."""
    file = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "another backup is being made in this folder", place=str(folder)
            ) from None
        for path in folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path)
        yield
    finally:
        os.close(file)


def _delete_old(folder: Path, newest: Manifest, keep: int) -> list[Path]:
    """Delete this database's older backups in the folder, all but ``keep`` with the newest."""
    ours = sorted(
        path
        for path in folder.iterdir()
        if _NAME.fullmatch(path.name) and _is_of(path, newest.database)
    )
    old = ours[: max(len(ours) - keep, 0)]
    for path in old:
        # Renamed first: if this is interrupted, no part of it is taken for a backup.
        shutil.rmtree(path.rename(_unfinished(path)))
    return old


def _is_of(path: Path, database: str) -> bool:
    try:
        return manifests.read(path).database == database
    except BackupError:
        return False


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")
