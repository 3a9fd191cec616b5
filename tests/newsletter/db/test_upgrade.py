"""Upgrades from the first release with data, their backups and locks, on both databases."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, inspect, text

from newsletter.accounts import notifications, users
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.engine import (
    check_version,
    open_database,
    require_current,
    transaction,
    upgrade,
)
from newsletter.db.orm import metadata
from newsletter.errors import DatabaseError
from tests import postgresql_tools
from tests.forking import command

pytestmark = pytest.mark.both_databases

AT = "'2026-03-27 07:00:00.000000'"
FIRST = "0100"
#: Rows as the first release wrote them.
ROWS = (
    "INSERT INTO topic (id, slug, name, description) VALUES (7, 'news', 'News', 'All of it')",
    (
        "INSERT INTO segment (id, name, expression, description, created_at) "
        f"VALUES (3, 'few', 'plan == \"pro\"', '', {AT})"
    ),
    (
        "INSERT INTO console_user (id, email, identity, name, role, password, stamp, created_at) "
        f"VALUES (5, 'o@example.org', 'o@example.org', 'Olga', 'owner', 'x', 0, {AT})"
    ),
)


def make_first_release(engine: Engine) -> None:
    """Give an empty database the tables of the first release, and rows."""
    from alembic import command as alembic
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "newsletter/migrations")
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.upgrade(config, FIRST)
        # Whatever this release does at the end of an upgrade is not done yet.
        on = " ON delivery" if engine.dialect.name == "postgresql" else ""
        connection.execute(text(f"DROP TRIGGER delivery_state{on}"))
        for row in ROWS:
            connection.execute(text(row))
        connection.commit()


@pytest.fixture
def old(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """A database of the first release, with rows."""
    engine = open_database(database_url)
    if engine.dialect.name == "sqlite":
        engine.dispose()
        engine = open_database(f"sqlite:///{tmp_path / 'old.db'}")
    else:
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    make_first_release(engine)
    yield engine
    engine.dispose()


def url_of(engine: Engine) -> str:
    return engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)


@pytest.fixture
def old_environment(environment: dict[str, str], old: Engine) -> dict[str, str]:
    """The environment of a program that finds this database, and tools like its server."""
    return environment | {
        "PATH": postgresql_tools.path(),
        "NEWSLETTER_DATABASE_URL": url_of(old),
        "NEWSLETTER_WEB__PORT": "0",
    }


def names(engine: Engine) -> list[str]:
    found = []
    with engine.connect().execution_options(reading=True) as connection:
        for table in ("topic", "segment", "console_user"):
            found += connection.execute(text(f"SELECT name FROM {table}")).scalars()
    return found


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_the_first_release_with_data_becomes_this_version(old: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    assert check_version(old) == FIRST
    prepared = []
    before, after = upgrade(old, prepare=lambda *versions: prepared.append(versions))
    assert (before, check_version(old)) == (FIRST, after)
    assert prepared == [(FIRST, after)]
    assert names(old) == ["News", "few", "Olga"]
    parts = re.compile(r"event_(\d{4}_\d\d|other)|ix_subscriber_lower_\w+").fullmatch
    with old.connect() as connection:
        options = {"compare_type": True, "include_name": lambda name, *_: not parts(name or "")}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    assert upgrade(old, prepare=lambda *versions: prepared.append(versions)) == (after, after)
    assert len(prepared) == 1


def test_users_of_the_first_release_have_read_the_messages_that_they_got(old: Engine) -> None:
    with old.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_message (key, kind, subject, detail, created_at) "
                f"VALUES ('a', 'send_paused', '1', '', {AT}), ('b', 'send_paused', '2', '', {AT})"
            )
        )
    upgrade(old)
    with transaction(old) as session:
        user = users.by_email(session, "o@example.org")
        assert user.read_up_to == session.scalar(text("SELECT max(id) FROM operator_message"))
        assert notifications.of_user(user) == notifications.Notifications(
            frozenset(MessageKind), digest=False, of_role=True
        )


def test_a_failed_backup_leaves_the_database_as_it_is(old: Engine) -> None:
    def fail(_before: str, _after: str) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        upgrade(old, prepare=fail)
    assert check_version(old) == FIRST


def test_an_upgrade_that_fails_at_its_end_has_changed_nothing(old: Engine) -> None:
    """Also of several versions: a process that is killed leaves none of them."""

    @event.listens_for(old, "before_cursor_execute")
    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("CREATE TRIGGER delivery_state"):
            raise OSError("killed")

    tables = set(inspect(old).get_table_names())
    with pytest.raises(OSError, match="killed"):
        upgrade(old)
    event.remove(old, "before_cursor_execute", fail)
    assert check_version(old) == FIRST
    assert set(inspect(old).get_table_names()) == tables
    before, after = upgrade(old)
    assert before == FIRST != after


def test_an_older_database_is_not_changed_unasked(
    old: Engine, old_environment: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(DatabaseError, match="is of version 0100") as caught:
        require_current(old)
    assert "serve --upgrade" in str(caught.value.hint)
    done = command(["sends"], environment=old_environment, folder=tmp_path)
    assert done.returncode == 5
    assert "is of version 0100" in done.stderr
    assert check_version(old) == FIRST


def start(environment: dict[str, str], folder: Path, *words: str) -> subprocess.Popen[str]:
    program = "from newsletter.cli.main import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=environment,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.mark.slow
def test_of_two_services_one_upgrades_and_both_start(
    old: Engine, old_environment: dict[str, str], tmp_path: Path
) -> None:
    both = [start(old_environment, tmp_path, "serve", "--upgrade") for _ in range(2)]
    try:
        said = [read_until(one, "newsletter is at") for one in both]
    finally:
        for one in both:
            stop(one)
    assert sum("It is backed up" in one for one in said) == 1
    assert sum("went from version 0100" in one for one in said) == 1
    require_current(old)
    assert names(old) == ["News", "few", "Olga"]
    suffix = "db" if old.dialect.name == "sqlite" else "dump"
    (backup,) = tmp_path.glob(f"*-before-*.{suffix}")
    assert backup.name in "".join(said).replace("\n", "")
    assert backup.stat().st_mode & 0o077 == 0
    if suffix == "db":
        with closing(sqlite3.connect(backup)) as copy:
            assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == (FIRST,)
            assert copy.execute("SELECT name FROM topic").fetchone() == ("News",)
    else:
        listed = subprocess.run(
            ["pg_restore", "--data-only", "--table=topic", "--file=-", backup],
            env=old_environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "All of it" in listed.stdout


@pytest.mark.slow
def test_without_pg_dump_the_operator_is_told(
    old: Engine, old_environment: dict[str, str], tmp_path: Path
) -> None:
    if old.dialect.name == "sqlite":
        pytest.skip("SQLite needs no tools")
    empty = tmp_path / "bin"
    empty.mkdir()
    process = start(old_environment | {"PATH": str(empty)}, tmp_path, "serve", "--upgrade")
    try:
        said = read_until(process, "newsletter is at")
    finally:
        stop(process)
    assert "No backup was made" in said
    require_current(old)


@pytest.mark.slow
def test_a_pg_dump_that_is_too_old_stops_the_upgrade(
    old: Engine, old_environment: dict[str, str], tmp_path: Path
) -> None:
    if old.dialect.name == "sqlite":
        pytest.skip("SQLite needs no tools")
    tool = tmp_path / "bin" / "pg_dump"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6'\n")
    tool.chmod(0o755)
    path = f"{tool.parent}{os.pathsep}/bin"
    process = start(old_environment | {"PATH": path}, tmp_path, "serve", "--upgrade")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "is of version 9" in said
    assert list(tmp_path.glob("*-before-*")) == []
    assert check_version(old) == FIRST


@pytest.mark.slow
@pytest.mark.parametrize("words", [["serve"], ["worker"]])
def test_a_process_ends_when_a_newer_release_has_upgraded_its_database(
    database: Engine, environment: dict[str, str], tmp_path: Path, words: list[str]
) -> None:
    wanted = environment | {"PATH": os.environ["PATH"], "NEWSLETTER_WEB__PORT": "0"}
    process = start(wanted, tmp_path, *words)
    try:
        read_until(process, "Ctrl-C stops it")
        with database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 25  # not only at the look of each half minute
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 5
    assert "Traceback" not in said
    assert "upgraded the database to version 9999" in said.replace("\n", " ")
    again = command(words, environment=wanted, folder=tmp_path)
    assert again.returncode == 5
    assert "has version 9999" in again.stderr.replace("\n", " ")


@pytest.mark.both_databases
def test_a_start_on_the_current_version_waits_for_no_service_that_sends(database: Engine) -> None:
    """`serve --upgrade` is how containers start; others are at work on the same tables then."""
    if database.dialect.name == "sqlite":
        pytest.skip("one process writes at a time")
    busy = ("send", "batch", "delivery", "event", "subscriber", "console_user")
    with database.begin() as sending:
        for table in busy:
            sending.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
        with ThreadPoolExecutor(1) as pool:
            before, after = pool.submit(upgrade, database).result(timeout=20)
    assert before == after


@pytest.mark.both_databases
def test_an_upgrade_puts_back_a_trigger_that_is_missing_or_another(database: Engine) -> None:
    of_table = "" if database.dialect.name == "sqlite" else " ON batch"
    with database.begin() as connection:
        connection.execute(text(f"DROP TRIGGER batch_state{of_table}"))
        if database.dialect.name == "postgresql":
            connection.execute(text("COMMENT ON TRIGGER send_state ON send IS 'an older one'"))
    upgrade(database)
    with database.connect() as connection:
        if database.dialect.name == "sqlite":
            there = text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        else:
            there = text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
        assert {"send_state", "batch_state", "delivery_state"} <= set(
            connection.execute(there).scalars()
        )
