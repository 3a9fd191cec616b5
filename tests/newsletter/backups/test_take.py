"""`newsletter backup`: a whole backup while others write, or nothing; older ones go."""

import fcntl
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from newsletter.backups import manifest as manifests
from newsletter.backups.take import latest, take
from newsletter.container import Container
from newsletter.db import backup as db_backup
from newsletter.db.engine import check_version, transaction
from newsletter.errors import BusyError, MachineError
from newsletter.imports.models import ImportJob, JobState
from tests.conftest import ADDRESS_KEY
from tests.forking import command

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("postgresql_tools")]

NOW = datetime(2026, 12, 1, 7, 0, tzinfo=UTC)


def add_job(container: Container, state: JobState, *, file: str | None = "email\n") -> int:
    """An import in this state, and its uploaded file."""
    with transaction(container.database) as session:
        job = ImportJob(name="list.csv", size=6, state=state, made_by="x", made_at=NOW)
        session.add(job)
        session.flush()
        number = job.id
    if file is not None:
        container.uploads.part()
        container.uploads.upload(number).write_text(file)
    return number


def test_a_backup_is_private_complete_and_described(
    container: Container, cast: dict[str, int], tmp_path: Path
) -> None:
    waiting = add_job(container, JobState.CHECKED)
    elsewhere = add_job(container, JobState.QUEUED, file=None)
    container.uploads.upload(999).write_text("of no job")
    container.compare_departures()
    before = os.umask(0)
    try:
        made = take(container.database, tmp_path / "b", container.uploads, now=NOW)
    finally:
        os.umask(before)
    assert made.path == tmp_path / "b" / "newsletter-20261201T070000Z"
    files = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    manifest = manifests.read(made.path)
    manifests.verify(made.path, manifest)
    kind = container.database.dialect.name
    assert {file.name for file in manifest.files} == {
        manifests.DATABASE_FILE[kind],
        f"uploads/{waiting}.upload",
    }
    assert manifest.missing_uploads == [elsewhere]
    assert (manifest.kind, manifest.schema_version) == (
        kind,
        check_version(container.database),
    )
    (log,) = manifest.departure_logs
    assert (log.id, log.compared) == (container.departure_log.id, 1)  # type: ignore[union-attr]
    assert ADDRESS_KEY not in (made.path / manifests.FILE).read_text()


def test_only_so_many_of_this_database_are_kept(container: Container, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    (folder / "newsletter-20200101T000000Z").mkdir(parents=True)  # no backup
    (folder / "newsletter-by-hand").mkdir()
    (folder / "notes.txt").write_text("mine")
    for hour in range(4):
        made = take(
            container.database,
            folder,
            container.uploads,
            now=NOW + timedelta(hours=hour),
            keep=2,
        )
    other = made.path.with_name("newsletter-20200102T000000Z")
    made.path.rename(other)
    text = (other / manifests.FILE).read_text()
    (other / manifests.FILE).write_text(text.replace(str(made.manifest.database), "0" * 32))
    take(container.database, folder, container.uploads, now=NOW + timedelta(hours=9), keep=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".newsletter-backup.lock",
        "newsletter-20200101T000000Z",
        "newsletter-20200102T000000Z",
        "newsletter-20261201T160000Z",
        "newsletter-by-hand",
        "notes.txt",
    ]


def test_no_backup_is_written_over(container: Container, tmp_path: Path) -> None:
    made = take(container.database, tmp_path, container.uploads, now=NOW)
    before = (made.path / manifests.FILE).read_bytes()
    with pytest.raises(MachineError, match="cannot be written"):
        take(container.database, tmp_path, container.uploads, now=NOW)
    assert (made.path / manifests.FILE).read_bytes() == before
    assert latest(tmp_path, now=NOW + timedelta(hours=1)) == NOW
    assert latest(tmp_path, now=NOW - timedelta(hours=1)) is None


def test_a_full_disk_leaves_nothing(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    add_job(container, JobState.CHECKED)
    monkeypatch.setattr(db_backup.shutil, "copyfileobj", full)
    with pytest.raises(MachineError, match="No space left on device"):
        take(container.database, tmp_path / "b", container.uploads, now=NOW)
    assert [path.name for path in (tmp_path / "b").iterdir()] == [".newsletter-backup.lock"]


def test_one_backup_at_a_time_and_what_a_killed_one_left_goes(
    container: Container, tmp_path: Path
) -> None:
    left = tmp_path / ".newsletter-20261130T070000Z.unfinished"
    left.mkdir()
    (left / "database.sqlite").write_text("half")
    with (tmp_path / ".newsletter-backup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            take(container.database, tmp_path, container.uploads, now=NOW)
    assert left.exists()
    take(container.database, tmp_path, container.uploads, now=NOW)
    assert not left.exists()


def test_the_command_prints_the_backup(
    database: Engine, environment: dict[str, str], postgresql_tools: str, tmp_path: Path
) -> None:
    environment |= {"PATH": postgresql_tools, "NEWSLETTER_BACKUP__FOLDER": str(tmp_path / "b")}
    done = command(("backup", "--json"), environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert manifests.read(Path(said["backup"])).size == said["bytes"]
    assert Path(said["backup"]).parent == tmp_path / "b"


@pytest.mark.parametrize(
    ("address", "said", "code"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "cannot open the database", 5),
        ("sqlite:///nowhere.db", "there is no database", 5),
        ("nonsense", "a database address is written like", 2),
    ],
)
def test_what_cannot_be_backed_up_is_explained(
    address: str, said: str, code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    done = command(
        ("backup", "copies"),
        environment=environment | {"NEWSLETTER_DATABASE_URL": address},
        folder=tmp_path,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr
    assert not (tmp_path / "copies").exists()
    assert not (tmp_path / "nowhere.db").exists()
