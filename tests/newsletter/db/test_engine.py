"""Opening, versions and transactions, on both databases."""

import gc
import os
import re
import threading
import warnings
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError

from newsletter.container import Container
from newsletter.db.engine import check_version, open_database, require_current, transaction, upgrade
from newsletter.db.orm import metadata
from newsletter.errors import DatabaseError
from newsletter.settings.load import load
from tests.forking import command as run_command

pytestmark = pytest.mark.both_databases

AT = "'2026-03-27 07:00:00.000000'"


# SQLAlchemy cannot read them back from SQLite.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_a_fresh_schema_equals_the_models(database: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    # On PostgreSQL, events have a table for each month. Indexes over expressions differ
    # between the databases, so no model has them.
    parts = re.compile(r"event_(\d{4}_\d\d|other)|ix_subscriber_lower_\w+").fullmatch
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
    with pytest.raises(DatabaseError, match="has version 9999") as caught:
        require_current(database)
    assert "newer release" in str(caught.value.hint)


def test_a_database_that_is_refused_is_let_go(
    database: Engine, environment: dict[str, str]
) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DatabaseError):
            _ = Container(load(environment)).database
        gc.collect()
    assert [str(one.message) for one in said if one.category is ResourceWarning] == []


def test_an_error_inside_a_transaction_leaves_nothing_behind(database: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(database) as session:
        session.execute(text("INSERT INTO topic (slug, name, description) VALUES ('a', 'A', '')"))
        _ = 1 / 0
    with transaction(database) as session:
        assert session.execute(text("SELECT count(*) FROM topic")).scalar_one() == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database URL"),
        ("mongodb://host/name", "not a database URL"),
        ("postgresql://nobody@127.0.0.1:9/none", "cannot open the database"),
    ],
)
def test_a_wrong_address_is_explained(url: str, words: str) -> None:
    with pytest.raises(DatabaseError, match=words):
        open_database(url)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("words", [["sends"], ["departures", "compare"], ["db", "upgrade"]])
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
        assert "the file is damaged or not a database" in done.stderr
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


def test_a_database_from_before_the_first_release_is_refused_with_the_way_out(
    database: Engine,
) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0026'"))
    for step in (check_version, require_current, upgrade):
        with pytest.raises(DatabaseError, match="version 0026, from before the first") as caught:
            step(database)
        assert "subscribers export" in str(caught.value.hint)
        assert "subscribers import" in str(caught.value.hint)
    with database.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0026"


def test_an_upgrade_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.begin() as connection:
        # One of the last tables that the upgrade makes.
        connection.exec_driver_sql("CREATE TABLE variant (id)")
    with pytest.raises(OperationalError, match="variant already exists"):
        upgrade(engine)
    assert check_version(engine) is None
    assert set(inspect(engine).get_table_names()) <= {"variant", "alembic_version"}
    engine.dispose()


def test_a_new_database_has_a_name_of_its_own_from_the_beginning(tmp_path: Path) -> None:
    names = set()
    for file in ("one", "two"):
        engine = open_database(f"sqlite:///{tmp_path / file}.db")
        upgrade(engine)
        with engine.connect() as connection:
            names.add(connection.scalar(text("SELECT value FROM identity WHERE name = 'database'")))
        engine.dispose()
    assert len(names - {None}) == 2
