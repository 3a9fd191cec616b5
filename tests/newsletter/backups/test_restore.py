"""`newsletter restore`: all of a backup into an empty place, or nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, select, text

from newsletter.backups import manifest as manifests
from newsletter.backups.restore import restore
from newsletter.backups.take import Backup, take
from newsletter.container import Container
from newsletter.db.engine import open_database, reading
from newsletter.db.orm import table_of
from newsletter.errors import BackupError, DatabaseError, UserError
from newsletter.imports.models import JobState
from newsletter.imports.upload_store import UploadStore
from subscribers.email_address import address_key
from subscribers.models import Subscriber
from tests.conftest import ADDRESS_KEY
from tests.forking import command
from tests.newsletter.backups.empty_databases import empty_postgresql, empty_sqlite
from tests.newsletter.backups.test_take import add_job

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("postgresql_tools")]

NOW = datetime(2026, 12, 1, 7, 0, tzinfo=UTC)


@pytest.fixture
def empty(database: Engine, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of the same kind."""
    if database.dialect.name == "sqlite":
        yield empty_sqlite(tmp_path)
        return
    with empty_postgresql(str(database.url), "restored") as url:
        yield url


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    return UploadStore(str(tmp_path / "new" / "imports"))


@pytest.fixture
def made(container: Container, cast: dict[str, int], tmp_path: Path) -> Backup:
    """A backup of three people and an import that waits."""
    add_job(container, JobState.CHECKED)
    container.compare_departures()
    return take(container.database, tmp_path / "b", container.uploads, now=NOW)


def key() -> bytes:
    return address_key(ADDRESS_KEY)


def nothing_written(url: str, uploads: UploadStore) -> bool:
    if uploads.folder.exists() and list(uploads.folder.iterdir()):
        return False
    target = make_url(url)
    if target.get_backend_name() == "sqlite":
        path = Path(str(target.database))
        return not path.exists() and not list(path.parent.glob(f".{path.name}*"))
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        found = connection.scalar(text(tables))
    engine.dispose()
    return found == 0


def test_a_backup_comes_back_whole(
    made: Backup, empty: str, uploads: UploadStore, container: Container
) -> None:
    restore(made.path, empty, uploads, key)
    engine = open_database(empty)
    person = table_of(Subscriber)
    with reading(engine) as restored, reading(container.database) as source:
        rows = select(person).order_by(person.c.id)
        assert restored.execute(rows).all() == source.execute(rows).all()
    engine.dispose()
    ((number, path),) = uploads.stored()
    assert path.read_text() == container.uploads.upload(number).read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DatabaseError, match="not empty"):
        restore(made.path, empty, uploads, key)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def rewrite(backup: Path, **values: object) -> None:
    manifest = json.loads((backup / manifests.FILE).read_text())
    (backup / manifests.FILE).write_text(json.dumps(manifest | values))


def test_a_backup_that_does_not_fit_is_refused_before_anything_is_written(
    made: Backup, empty: str, uploads: UploadStore
) -> None:
    backup, files = made.path, [file.name for file in made.manifest.files]

    def refused(why: str, by: type[UserError] = BackupError) -> None:
        with pytest.raises(by, match=why):
            restore(backup, empty, uploads, key)
        assert nothing_written(empty, uploads)

    with pytest.raises(BackupError, match="not the address key"):
        restore(backup, empty, uploads, lambda: address_key("x" * 40))
    assert nothing_written(empty, uploads)
    whole = (backup / manifests.FILE).read_text()
    for values, why in (
        ({"program": "99.0.0"}, "made by version 99.0.0"),
        ({"format": 2, "files": "unknown"}, "made by version"),
        ({"schema_version": "0999"}, "of version 0999"),
        ({"files": []}, "lacks the copy of the database"),
        ({"kind": "sqlite" if made.manifest.kind == "postgresql" else "postgresql"}, "cannot be"),
        ({"files": [{"name": "../../etc/passwd", "size": 1, "sha256": ""}]}, "damaged"),
    ):
        rewrite(backup, **values)
        refused(why)
        (backup / manifests.FILE).write_text(whole)
    for name in files:
        damage(backup / name)
        refused("another size or checksum")
        damage(backup / name)
    (backup / files[-1]).rename(backup / "moved")
    refused("No such file")
    (backup / manifests.FILE).write_text(whole[: len(whole) // 2])
    refused("damaged")
    (backup / manifests.FILE).unlink()
    refused("this is no backup")


def test_a_restore_that_fails_takes_the_uploads_away_again(
    made: Backup, empty: str, uploads: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("put_back_sqlite", "put_back_postgresql"):
        monkeypatch.setattr(f"newsletter.db.backup.{name}", full)
    with pytest.raises(UserError, match="No space left"):
        restore(made.path, empty, uploads, key)
    assert nothing_written(empty, uploads)


def test_files_of_another_database_are_not_mixed_with_it(
    made: Backup, empty: str, uploads: UploadStore
) -> None:
    uploads.part()
    file = uploads.folder / "1.upload"
    file.write_text("of the database that was here")
    with pytest.raises(BackupError, match="a file of an import already"):
        restore(made.path, empty, uploads, key)
    assert file.read_text() == "of the database that was here"
    file.unlink()
    if empty.startswith("sqlite"):
        log = uploads.folder.parent / "newsletter.db-wal"
        log.write_text("commits of another database")
        with pytest.raises(DatabaseError, match="would damage"):
            restore(made.path, empty, uploads, key)
        log.unlink()
    assert nothing_written(empty, uploads)


@pytest.mark.slow
def test_the_commands_and_the_departure_log_that_closes_the_gate(
    container: Container,
    made: Backup,
    empty: str,
    environment: dict[str, str],
    postgresql_tools: str,
    tmp_path: Path,
) -> None:
    # Compared once more than the backup knows: the log shows that the database is a restored one.
    container.compare_departures()
    environment |= {"PATH": postgresql_tools}
    environment["NEWSLETTER_IMPORTS__FOLDER"] = str(tmp_path / "new" / "imports")
    done = command(
        ("restore", str(made.path), "--to", empty), environment=environment, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "newsletter departures compare" in done.stderr
    environment["NEWSLETTER_DATABASE_URL"] = empty
    compared = command(("departures", "compare"), environment=environment, folder=tmp_path)
    assert compared.returncode == 0, compared.stderr
    listed = command(("departures", "--json"), environment=environment, folder=tmp_path)
    assert json.loads(listed.stdout)["state"] == "current", listed
