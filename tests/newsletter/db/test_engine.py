"""Opening, versions and transactions, on both databases."""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

import newsletter
from newsletter.db.engine import check_version, open_database, require_current, transaction, upgrade
from newsletter.db.orm import metadata
from newsletter.errors import DatabaseError
from tests.forking import command as run_command

AT = "'2026-03-27 07:00:00.000000'"


def bring(connection: Connection, version: str) -> None:
    """Bring an empty database to an earlier version."""
    config = Config()
    migrations = Path(newsletter.__file__).parent / "migrations"
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, version)


# SQLAlchemy cannot read them back from SQLite.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_a_fresh_schema_equals_the_models(database: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    # On PostgreSQL, events have a table for each month. Indexes over expressions differ
    # between the databases, so no model tells of them.
    parts = re.compile(r"event_(\d{4}_\d\d|other)|ix_subscriber_folded_\w+").fullmatch
    with database.connect() as connection:
        options = {"compare_type": True, "include_name": lambda name, *_: not parts(name or "")}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_upgrading_twice_changes_nothing(database: Engine) -> None:
    version = check_version(database)
    assert version is not None
    assert upgrade(database) == (version, version)


def test_a_version_is_told_while_somebody_writes(database: Engine) -> None:
    with transaction(database) as session:
        session.execute(text("INSERT INTO topic (slug, name, description) VALUES ('a', 'A', '')"))
        assert check_version(database) is not None


def test_an_upgrade_waits_for_its_turn(database: Engine) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("PostgreSQL waits by itself")
    late = threading.Thread(target=upgrade, args=(database,))
    with transaction(database):
        # The turn alone holds it up: nothing has begun that SQLite would wait for.
        late.start()
        late.join(0.5)
        assert late.is_alive()
    late.join(30)
    assert not late.is_alive()


def test_a_database_newer_than_the_code_is_refused(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="is of version 9999") as caught:
        require_current(database)
    assert "newer release" in str(caught.value.hint)


def test_an_error_inside_a_transaction_leaves_nothing_behind(database: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(database) as session:
        session.execute(text("INSERT INTO topic (slug, name, description) VALUES ('a', 'A', '')"))
        _ = 1 / 0
    with transaction(database) as session:
        assert session.execute(text("SELECT count(*) FROM topic")).scalar_one() == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database address"),
        ("mongodb://host/name", "not a database address"),
        ("postgresql://nobody@127.0.0.1:9/none", "cannot open the database"),
    ],
)
def test_a_wrong_address_is_explained(url: str, words: str) -> None:
    with pytest.raises(DatabaseError, match=words):
        open_database(url)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("words", [["sends"], ["departures", "look"], ["db", "upgrade"]])
def test_a_file_that_is_damaged_or_no_database_is_called_so(
    tmp_path: Path, environment: dict[str, str], words: list[str]
) -> None:
    junk, whole = tmp_path / "junk.db", tmp_path / "whole.db"
    junk.write_text("Dear reader,\n" * 1000)
    engine = open_database(f"sqlite:///{whole}")
    require_current(engine)
    engine.dispose()
    cut = tmp_path / "cut.db"
    cut.write_bytes(whole.read_bytes()[:-5000])
    for file in (junk, cut):
        told = (
            environment
            | {"PATH": os.environ["PATH"]}
            | {"NEWSLETTER_DATABASE_URL": f"sqlite:///{file}"}
        )
        done = run_command(words, environment=told, folder=tmp_path)
        assert done.returncode == 5, done
        assert "Traceback" not in done.stderr
        assert "the file is damaged or no database" in done.stderr
        assert "docs/guides/backup-and-restore.md" in done.stderr


def test_an_empty_sqlite_file_upgrades_itself(tmp_path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'deep' / 'new.db'}")
    require_current(engine)
    assert check_version(engine) is not None
    engine.dispose()


def test_sqlite_gives_a_number_once_where_the_models_say_so(database: Engine) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("PostgreSQL's sequences never go back")
    said = {t.name for t in metadata.sorted_tables if t.dialect_options["sqlite"]["autoincrement"]}
    assert {"subscriber", "confirmation"} < said
    made = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"
    with database.connect() as connection:
        assert set(connection.execute(text(made)).scalars()) == said


def test_a_new_database_numbers_from_one(database: Engine) -> None:
    made = (
        "INSERT INTO segment (name, expression, description, created_at) "
        f"VALUES ('all', '', '', {AT}) RETURNING id"
    )
    with transaction(database) as session:
        assert session.scalar(text(made)) == 1


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Engine]:
    """An SQLite database of version 0013 with people; the newest, number 4, was erased."""
    engine = open_database(f"sqlite:///{tmp_path / 'before.db'}")
    with engine.connect() as connection:
        bring(connection, "0013")
        for statement in (
            f"""INSERT INTO subscriber (id, email, address_hash, name, attributes, source,
                created_at) SELECT value, 'p' || value || '@example.org', value || 'hash', 'P',
                '{{"plan": "pro"}}', 'api', {AT} FROM json_each('[1, 2, 3]')""",
            "INSERT INTO topic VALUES (1, 'news', 'News', '')",
            f"INSERT INTO subscription SELECT id, 1, {AT} FROM subscriber",
            f"""INSERT INTO consent (subscriber_id, at, act, source, wording)
                SELECT id, {AT}, 'confirmed', 'api', 'Yes' FROM subscriber""",
            f"""INSERT INTO confirmation VALUES
                (7, 'erase', 'p1@example.org', '1hash', 1, '{{}}', {AT}, {AT}, NULL)""",
            f"""INSERT INTO issue (id, slug, title, created_at) VALUES (1, 'a', 'A', {AT}),
                (2, 'b', 'B', {AT})""",
            "INSERT INTO delivery VALUES (1, 4, 1, 1, 'accepted', NULL)",
            "INSERT INTO delivery VALUES (2, 3, 2, 1, 'accepted', NULL)",
            f"""INSERT INTO notice (id, kind, email, subject, html, text, state, created_at,
                not_before, attempt, detail) VALUES
                (9, 'erase', 'p1@example.org', 'S', 'H', 'T', 'pending', {AT}, {AT}, 0, '')""",
            f"INSERT INTO segment VALUES (2, 'all', '', '', {AT}, 3, 3, {AT})",
            f"""INSERT INTO schedule VALUES (5, 'daily', 'letter', 'daily at 07:00', 'UTC', 0, '[]',
                '{{}}', 'active', {AT}, {AT})""",
            "INSERT INTO schedule_segment VALUES (5, 2, 0)",
            f"INSERT INTO console_user VALUES (1, 'o@x', 'o@x', '', 'owner', '', 1, {AT}, NULL)",
            f"INSERT INTO console_session VALUES (1, 'x', 1, 'full', {AT}, {AT}, {AT}, '', '')",
            f"INSERT INTO audit_entry VALUES (1, {AT}, 3, 'o@y', '', 'signed in', '', '{{}}', 'x')",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
    yield engine
    engine.dispose()


def contents(connection: Connection) -> dict[str, list[Any]]:
    """The rows of all tables, and the words of all indexes and triggers."""
    names = (name for name in inspect(connection).get_table_names() if name != "alembic_version")
    rows = {
        n: [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {n}").mappings()]
        for n in names
    }
    words = "SELECT name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY name"
    return {**rows, "": connection.exec_driver_sql(words).fetchall()}


def test_numbers_are_given_once_after_an_upgrade_that_loses_nothing(filled: Engine) -> None:
    with filled.connect() as connection:
        before = contents(connection)
    assert upgrade(filled)[0] == "0013"
    with filled.connect() as connection:
        after = contents(connection)
        assert set(after.pop("")) >= set(before.pop(""))
        # Later versions add columns.
        for table, rows in before.items():
            assert [
                {name: new[name] for name in old}
                for new, old in zip(after[table], rows, strict=True)
            ] == rows
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        # A delivery tells of number 4. Nothing may tell of others, whose links are in mails.
        given = connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence").all()
        assert {row.name: row.seq for row in given} == {
            "subscriber": 1004,
            "confirmation": 1007,
            "notice": 9,
            "segment": 2,
            "schedule": 5,
            "console_user": 3,
        }
        connection.exec_driver_sql("DELETE FROM subscriber WHERE id = 1")
        for table, left in (("consent", 2), ("subscription", 2), ("confirmation", 0)):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == left


def test_an_upgrade_that_fails_leaves_all_as_it_was(filled: Engine) -> None:
    with filled.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE console_user_anew (id)")
        connection.commit()
        before = contents(connection)
    with pytest.raises(OperationalError, match="console_user_anew already exists"):
        upgrade(filled)
    assert check_version(filled) == "0013"
    with filled.connect() as connection:
        assert contents(connection) == before
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
