"""Restores a backup into an empty place. Everything is checked before anything is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from newsletter import database_identity
from newsletter.backups import manifest as manifests
from newsletter.backups.manifest import Manifest
from newsletter.db import backup as db_backup
from newsletter.db import private_files
from newsletter.db.engine import open_database, supports_version, upgrade
from newsletter.errors import BackupError, DatabaseError, MachineError
from newsletter.imports.upload_store import UploadStore


def restore(
    backup: Path, url: str, uploads: UploadStore, address_key: Callable[[], bytes]
) -> Manifest:
    """Make the empty database at this URL what the backup has, and put its uploads back.

    The database is then upgraded to this program's version. Sending waits until the departure
    logs are compared, as after any restore.

    Raises BackupError if the backup is damaged, of a newer program, of the other kind of database
    or made with another address key; DatabaseError if the database is not empty. Nothing is
    written then.
    """
    manifest = manifests.read(backup)
    target = make_url(url)
    kind = "sqlite" if target.get_backend_name() == "sqlite" else "postgresql"
    if manifest.kind != kind:
        raise BackupError(
            f"the backup is of a {_NAMES[manifest.kind]} database, and cannot be restored into "
            f"{_NAMES[kind]}",
            place=str(backup),
            hint=f"Restore it into {_NAMES[manifest.kind]} with --to, then copy that database "
            "with `newsletter db copy`.",
        )
    if str(target.database).startswith("file:"):
        raise DatabaseError(
            "a backup cannot be restored to an address of this form",
            place="database_url",
            hint="Use the plain path of the file: sqlite:///PATH.",
        )
    if not supports_version(manifest.schema_version):
        raise BackupError(
            f"the database in the backup is of version {manifest.schema_version}, which this "
            "program does not know",
            place=str(backup),
            hint=f"Restore it with version {manifest.program} of newsletter.",
        )
    _require_key(manifest, address_key)
    manifests.verify(backup, manifest)
    try:
        if kind == "sqlite":
            _into_file(backup, manifest, uploads, Path(str(target.database)))
        engine = open_database(url)
        try:
            if kind == "postgresql":
                _into_server(backup, manifest, uploads, engine)
            _upgrade(engine)
        finally:
            engine.dispose()
    except OSError as error:
        reason = error.strerror or error
        raise MachineError(f"the backup cannot be restored: {reason}", place=str(backup)) from None
    return manifest


def _into_file(backup: Path, manifest: Manifest, uploads: UploadStore, target: Path) -> None:
    db_backup.require_no_file(target)
    with _uploads_put_back(backup, manifest, uploads):
        db_backup.put_back_sqlite(backup / manifests.DATABASE_FILE["sqlite"], target)


def _into_server(backup: Path, manifest: Manifest, uploads: UploadStore, engine: Engine) -> None:
    db_backup.require_no_tables(engine)
    copy = backup / manifests.DATABASE_FILE["postgresql"]
    with _uploads_put_back(backup, manifest, uploads):
        db_backup.put_back_postgresql(copy, engine, dumped_by=manifest.dumped_by or 0)


_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def _require_key(manifest: Manifest, address_key: Callable[[], bytes]) -> None:
    if manifest.address_key is None:
        return
    if not database_identity.has_fingerprint(address_key(), manifest.address_key):
        raise BackupError(
            "this is not the address key of the backup. Without that key nobody in it is found "
            "again, and suppressions do not count",
            place="subscribers.address_key",
            hint="Set NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY to the key that was in use when the "
            "backup was made.",
        )


@contextmanager
def _uploads_put_back(backup: Path, manifest: Manifest, uploads: UploadStore) -> Iterator[None]:
    """Put the uploads into their folder; they are taken away again if the block fails."""
    prefix = f"{manifests.UPLOADS}/"
    files = [file.name for file in manifest.files if file.name.startswith(prefix)]
    targets = {name: uploads.folder / name.removeprefix(prefix) for name in files}
    if taken := [path for path in targets.values() if path.exists()]:
        raise BackupError(
            "there is a file of an import already, of the database that was here before",
            place=str(taken[0]),
            hint="Move the files in imports.folder away. Nothing was changed.",
        )
    written = []
    try:
        if targets:
            private_files.make_folder(uploads.folder)
        for name, path in targets.items():
            db_backup.copy_file(backup / name, path)
            written.append(path)
        yield
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _upgrade(engine: Engine) -> None:
    upgrade(engine)
    if engine.dialect.name == "postgresql":
        # Imported late: its libraries take 10 MB, and SQLite does not need them.
        from newsletter.sending.workers import procrastinate_queue  # noqa: PLC0415

        procrastinate_queue.install(engine)
