"""Opening, versions and transactions, on both databases."""

import re

import pytest
from sqlalchemy import Engine, text

from newsletter.database import (
    check_version,
    open_database,
    require_current,
    transaction,
    upgrade,
)
from newsletter.errors import DatabaseError
from subscribers.schema import metadata


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


def test_an_empty_sqlite_file_upgrades_itself(tmp_path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'deep' / 'new.db'}")
    require_current(engine)
    assert check_version(engine) is not None
    engine.dispose()
