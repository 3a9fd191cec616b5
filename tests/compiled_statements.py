"""Compiles each SQL statement once for a test process, not once for each engine.

An engine keeps what it has compiled, under a key that holds its dialect; each test opens an engine
of its own, and compiled the same statements again, for a quarter of its time. Dialects of one class
compile alike here: they speak to the same server, or to the same SQLite library.
"""

from threading import Lock
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_shared: LRUCache[Any, Any] = LRUCache(10_000)
_connected: WeakSet[Engine] = WeakSet()
_lock = Lock()


def share() -> None:
    """Let all engines of this process share what they have compiled."""
    DefaultDialect.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]
    DefaultDialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    event.listen(Engine, "engine_connect", _use_shared)


def _use_shared(connection: Connection) -> None:
    connection.engine._compiled_cache = _shared
    with _lock:
        _connected.add(connection.engine)


def close_idle() -> None:
    """Close the pooled connections of all engines: garbage collection would warn of them later.

    An engine that is still used connects again.
    """
    with _lock:
        engines = list(_connected)
    for engine in engines:
        engine.dispose()
