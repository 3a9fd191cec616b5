"""`newsletter db backup`: a whole copy of a database that others write to meanwhile."""

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from newsletter.db.backup import backup
from newsletter.db.engine import transaction
from newsletter.errors import DatabaseError, MachineError
from tests.conftest import add_person
from tests.forking import command


@pytest.fixture
def path(database: Engine) -> Path:
    """The file of a SQLite database."""
    if database.dialect.name != "sqlite":
        pytest.skip("PostgreSQL has its own tools")
    return Path(str(database.url.database))


def people(file: Path) -> int:
    with closing(sqlite3.connect(file)) as copy:
        return int(copy.execute("SELECT count(*) FROM subscriber").fetchone()[0])


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_what_stands_in_the_write_ahead_log_alone_is_in_the_copy(
    database: Engine, path: Path, tmp_path: Path
) -> None:
    with transaction(database) as session:
        add_person(session, "alice@example.org")
    # The file alone, as `cp` takes it, does not have her: that is what the command is for.
    shutil.copy(path, tmp_path / "alone.db")
    assert people(tmp_path / "alone.db") == 0
    size = backup(url(path), tmp_path / "copy.db")
    assert people(tmp_path / "copy.db") == 1
    assert size == (tmp_path / "copy.db").stat().st_size
    assert not (tmp_path / "copy.db-wal").exists()


@pytest.mark.slow
def test_a_copy_is_of_one_moment_while_others_write(
    database: Engine, path: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(path)) as wide:
        wide.execute("CREATE TABLE one (n INTEGER)")
        wide.execute("CREATE TABLE two (n INTEGER)")
        wide.execute("CREATE TABLE filler (x BLOB)")
        wide.executemany("INSERT INTO filler VALUES (?)", [(bytes(4000),)] * 20_000)
        wide.commit()
    over = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=30)) as other:
            n = 0
            while not over.is_set():
                n += 1
                other.execute("INSERT INTO one VALUES (?)", (n,))
                other.execute("INSERT INTO two VALUES (?)", (n,))
                other.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup(url(path), tmp_path / "copy.db")
    finally:
        over.set()
        writer.join()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        rows = [copy.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("one", "two")]
    assert rows[0] == rows[1]


def test_a_file_that_is_there_is_not_written_over(path: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine")
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere.db")
    for name in ("copy.db", "link.db"):
        with pytest.raises(MachineError, match="exists already"):
            backup(url(path), tmp_path / name)
    with pytest.raises(MachineError, match="exists already"):
        backup(url(path), path)
    assert (tmp_path / "copy.db").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_the_copy_is_its_owners_alone(path: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        backup(url(path), tmp_path / "copy.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


def test_a_damaged_database_is_not_called_a_backup(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as wide:
        wide.execute("CREATE TABLE filler (x BLOB)")
        wide.executemany("INSERT INTO filler VALUES (?)", [(bytes(4000),)] * 100)
        wide.commit()
        wide.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 40_000)
        file.write(b"\xff" * 30_000)
    with pytest.raises(DatabaseError, match="damaged"):
        backup(url(path), tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize(
    ("address", "said", "code"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "pg_dump", 5),
        ("sqlite:///nowhere.db", "there is no database", 5),
        ("nonsense", "a database address is written like", 2),
    ],
)
def test_what_is_no_sqlite_database_is_explained(
    address: str, said: str, code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    done = command(
        ("db", "backup", "copy.db"),
        environment=environment | {"NEWSLETTER_DATABASE_URL": address},
        folder=tmp_path,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr
    assert list(tmp_path.glob("*copy*")) == []
    assert not (tmp_path / "nowhere.db").exists()


def test_a_folder_that_is_not_there_is_explained(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be written"):
        backup(url(path), tmp_path / "none" / "copy.db")
