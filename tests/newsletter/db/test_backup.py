"""Copies of a database in a file: whole, of one moment, private, and never over another file."""

import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from newsletter.db.backup import BackupStoppedError, copied
from newsletter.db.engine import transaction
from newsletter.errors import DatabaseError, MachineError
from tests.conftest import add_person


@pytest.fixture
def path(database: Engine) -> Path:
    """The file of a SQLite database."""
    if database.dialect.name != "sqlite":
        pytest.skip("SQLite's files")
    return Path(str(database.url.database))


def people(file: Path) -> int:
    with closing(sqlite3.connect(file)) as copy:
        return int(copy.execute("SELECT count(*) FROM subscriber").fetchone()[0])


def copy_to(database: Engine, file: Path) -> Path:
    with copied(database, file):
        return file


def test_what_stands_in_the_write_ahead_log_alone_is_in_the_copy(
    database: Engine, path: Path, tmp_path: Path
) -> None:
    with transaction(database) as session:
        add_person(session, "alice@example.org")
    # The file alone, as `cp` takes it, does not have her: that is what the command is for.
    shutil.copy(path, tmp_path / "alone.db")
    assert people(tmp_path / "alone.db") == 0
    assert people(copy_to(database, tmp_path / "copy.db")) == 1
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
        copy_to(database, tmp_path / "copy.db")
    finally:
        over.set()
        writer.join()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        rows = [copy.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("one", "two")]
    assert rows[0] == rows[1]


def test_a_file_that_is_there_is_not_written_over(
    database: Engine, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(FileExistsError):
        copy_to(database, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"


@pytest.mark.both_databases
def test_the_copy_is_its_owners_alone(
    database: Engine, tmp_path: Path, postgresql_tools: str
) -> None:
    before = os.umask(0)
    try:
        copy_to(database, tmp_path / "copy")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600


def test_a_damaged_database_is_not_called_a_copy(
    database: Engine, path: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(path)) as wide:
        wide.execute("CREATE TABLE filler (x BLOB)")
        wide.executemany("INSERT INTO filler VALUES (?)", [(bytes(4000),)] * 100)
        wide.commit()
        wide.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 40_000)
        file.write(b"\xff" * 30_000)
    with pytest.raises(DatabaseError, match="damaged"):
        copy_to(database, tmp_path / "copy.db")


@pytest.mark.both_databases
def test_a_copy_is_stopped_at_once(database: Engine, tmp_path: Path, postgresql_tools: str) -> None:
    if database.dialect.name == "postgresql":
        # Waits for the lock of a table, for ever.
        with database.begin() as other:
            other.exec_driver_sql("LOCK TABLE subscriber IN ACCESS EXCLUSIVE MODE")
            with (
                pytest.raises(BackupStoppedError),
                copied(database, tmp_path / "copy", stopped=lambda: True),
            ):
                pass
        return
    with (
        pytest.raises(BackupStoppedError),
        copied(database, tmp_path / "copy", stopped=lambda: True),
    ):
        pass


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "is not installed"), ("echo pg_dump 9.6.1", "is of version 9, and version")],
)
def test_a_tool_that_is_missing_or_too_old_is_named_with_its_package(
    database: Engine,
    tmp_path: Path,
    script: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite needs no tools")
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        (tmp_path / "pg_dump").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "pg_dump").chmod(0o755)
    with pytest.raises(MachineError, match=said) as error:
        copy_to(database, tmp_path / "copy")
    assert "package postgresql-client-" in str(error.value.hint)


@pytest.mark.both_databases
def test_the_password_is_in_no_argument(
    database: Engine, tmp_path: Path, postgresql_tools: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has no password")
    seen = []
    started = subprocess.Popen

    def note(words: list[str], **options: object) -> object:
        seen.append((words, options))
        return started(words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", note)
    database.url = database.url.set(password="a secret")
    copy_to(database, tmp_path / "copy")
    dump = next(words for words, _ in seen if "--format=custom" in words)
    assert "a secret" not in " ".join(dump)
    assert "a%20secret" not in " ".join(dump)
