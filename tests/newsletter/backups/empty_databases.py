"""Empty databases to restore and copy into."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text


@contextmanager
def empty_postgresql(server: str, name: str) -> Iterator[str]:
    """The URL of a database without tables on this server, which goes away after the block."""
    url = make_url(server).set(drivername="postgresql+psycopg")
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def empty_sqlite(folder: Path) -> str:
    """The URL of a file that does not exist yet."""
    return f"sqlite:///{folder / 'new' / 'newsletter.db'}"
