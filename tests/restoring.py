"""A real backup of a test's database, and the database put back from it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text


class Backup:
    """What a database holds now. Nobody may be connected when it is made or put back."""

    def __init__(self, database: Engine, folder: Path) -> None:
        self._engine = database
        self._url = database.url
        self._file = folder / "backup.db"
        database.dispose()
        if database.dialect.name == "sqlite":
            source = str(self._url.database)
            with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(self._file)) as b:
                a.backup(b)
        else:
            self._server(f"DROP DATABASE IF EXISTS {self._kept}")
            self._server(f"CREATE DATABASE {self._kept} TEMPLATE {self._url.database}")

    @property
    def _kept(self) -> str:
        return f"{self._url.database}_kept"

    def put_back(self) -> None:
        """Be what it was. It may be done more than once."""
        self._engine.dispose()
        if self._url.get_backend_name() == "sqlite":
            path = Path(str(self._url.database))
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            shutil.copy(self._file, path)
        else:
            self._server(f"DROP DATABASE {self._url.database} WITH (FORCE)")
            self._server(f"CREATE DATABASE {self._url.database} TEMPLATE {self._kept}")

    def _server(self, statement: str) -> None:
        url = make_url(self._url).set(database="postgres")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in (self._url.database, self._kept):
                ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                connection.execute(text(f"{ended} WHERE datname = :it"), {"it": name})
            connection.execute(text(statement))
        engine.dispose()
