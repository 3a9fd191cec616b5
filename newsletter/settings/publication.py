"""The settings of the publication that are kept in the database, with their history.

A file or an environment variable that sets one of them wins over the database; the database wins
over the initial values of the file, which it takes over when it is first opened, and over the
default. All other settings belong to the machine and are never in the database.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine, func, inspect, null, select

from newsletter.db.dialect import lock
from newsletter.db.engine import (
    SQLAlchemyError,
    is_missing_file,
    open_database,
    reading,
    transaction,
)
from newsletter.db.orm import Session, table_of
from newsletter.errors import DatabaseError, SettingsError
from newsletter.settings.load import Origin, Settings, origins
from newsletter.settings.models import PublicationSetting
from newsletter.settings.sections import PUBLICATION_KEYS

_log = logging.getLogger(__name__)

#: The settings that can be in the database.
KEYS: Final = PUBLICATION_KEYS
_REQUIRED: Final = ("site.name", "sender.email")
#: Where a value of the database comes from.
SOURCE: Final = "console (database)"
#: Who has set what the database took over from the file.
INITIAL: Final = "(initial value)"
#: Seconds for which a process uses settings without looking into the database.
_LOOK_INTERVAL = 1.0

Value = bool | str

#: What changes of these settings lock, so that they happen one after the other.
LOCK: Final = "publication settings"

_row = table_of(PublicationSetting)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a setting; ``value`` is None where the setting was removed."""

    id: int
    key: str
    value: Value | None
    set_at: datetime
    set_by: str


def latest(session: Session, *, until: int | None = None) -> dict[str, Change]:
    """The latest change of each setting, or the latest up to the change ``until``."""
    newest = select(func.max(_row.c.id)).group_by(_row.c.key)
    if until is not None:
        newest = newest.where(_row.c.id <= until)
    found = session.execute(select(_row).where(_row.c.id.in_(newest.scalar_subquery())))
    return {row.key: Change(**row._mapping) for row in found}


def history(session: Session, *, limit: int) -> list[Change]:
    """The latest changes, newest first."""
    found = session.execute(select(_row).order_by(_row.c.id.desc()).limit(limit))
    return [Change(**row._mapping) for row in found]


def add(session: Session, key: str, value: Value | None, *, by: str, now: datetime) -> None:
    """Store a change; the value has to be valid."""
    session.execute(
        _row.insert().values(
            key=key, value=null() if value is None else value, set_at=now, set_by=by[:320]
        )
    )


def take_over_initial(
    engine: Engine, loaded: Settings, *, but: Collection[str], now: datetime
) -> None:
    """Store the initial values of the file, each unless the setting was ever changed.

    Those of the keys in ``but`` are not stored.

    From then on they are those of the publication, also for other machines and after a restore.
    """
    found = [key for key in KEYS if key in loaded.initial and key not in but]
    initial = [key for key in found if value_of(loaded, key) != ""]
    with reading(engine) as session:
        if latest(session).keys() >= set(initial):
            return
    with transaction(engine) as session:
        lock(session, LOCK)
        known = latest(session)
        for key in initial:
            if key not in known:
                add(session, key, value_of(loaded, key), by=INITIAL, now=now)


def require_changeable(loaded: Settings, key: str) -> None:
    """Raise SettingsError unless the setting can be changed in the database of this machine."""
    if key not in KEYS:
        raise SettingsError(
            "this setting belongs to the machine"
            if key in loaded.sources
            else "there is no such setting",
            place=key,
            hint="Set it in the file or the environment; `newsletter settings` lists all. In the "
            f"database there can be: {', '.join(KEYS)}.",
        )
    if source := loaded.explicit_source(key):
        raise SettingsError(
            f"it is set in {source}, which wins over the database",
            place=key,
            hint="Change it there, or remove it there first.",
        )


def validated(key: str, value: Value) -> Value:
    """The value as the setting stores it; SettingsError says what is allowed."""
    if key in _REQUIRED and not str(value).strip():
        raise SettingsError("this must not be empty", place=key)
    section, _, name = key.partition(".")
    model: Any = Settings.model_fields[section].annotation
    field = model.model_fields[name]
    try:
        kind: Any = field.annotation
        for rule in field.metadata:
            kind = Annotated[kind, rule]
        checked: Value = TypeAdapter(kind).validate_python(
            value.strip() if isinstance(value, str) else value
        )
    except ValidationError as error:
        message = error.errors(include_url=False, include_input=False)[0]["msg"]
        message = message.removeprefix("Value error, ")
        raise SettingsError(message[:1].lower() + message[1:], place=key) from None
    return checked


def applied(loaded: Settings, changes: Mapping[str, Change]) -> Settings:
    """The settings with those of the database where neither file nor environment sets them."""
    result = loaded
    for key, change in changes.items():
        if change.value is None or key not in KEYS or loaded.explicit_source(key):
            continue
        section, _, name = key.partition(".")
        try:
            value = validated(key, change.value)
        except SettingsError as error:
            # An earlier release, or another program, has allowed it.
            _log.error("%s in the database is invalid, so its default counts: %s", key, error)
            continue
        part = getattr(result, section).model_copy(update={name: value})
        result = result.model_copy(update={section: part})
    return result


def value_of(settings: Settings, key: str) -> Value:
    """The value of one of ``KEYS``."""
    section, _, name = key.partition(".")
    value: Value = getattr(getattr(settings, section), name)
    return value


def all_origins(loaded: Settings, changes: Mapping[str, Change]) -> list[Origin]:
    """Each setting in force, and where it comes from."""
    used = {
        key: f"{SOURCE}, {change.set_by}, {change.set_at:%Y-%m-%d %H:%M} UTC"
        for key, change in changes.items()
        if change.value is not None and key in KEYS and not loaded.explicit_source(key)
    }
    return [
        Origin(one.key, one.shown, used.get(one.key, one.source))
        for one in origins(applied(loaded, changes))
    ]


def peek(loaded: Settings) -> dict[str, Change]:
    """The latest changes, read without changing or creating the database; none if there is none.

    Raises DatabaseError if the database cannot be opened.
    """
    if is_missing_file(loaded.database_url):
        return {}
    engine = open_database(loaded.database_url)
    try:
        with engine.connect().execution_options(reading=True) as connection:
            if not inspect(connection).has_table(_row.name):
                return {}
        with reading(engine) as session:
            return latest(session)
    finally:
        engine.dispose()


class CurrentSettings:
    """The settings in force, which follow changes in the database within a second."""

    def __init__(self, loaded: Settings, database: Callable[[], Engine]) -> None:
        self._loaded, self._database = loaded, database
        self._lock = threading.Lock()
        self._settings: Settings | None = None
        self._looked_at = 0.0
        self._seen: Sequence[int] | None = None

    def get(self) -> Settings:
        """The settings; looks into the database once a second at most."""
        known = self._settings
        if known is not None and time.monotonic() - self._looked_at < _LOOK_INTERVAL:
            return known
        # Threads that have settings already do not wait for the one that looks.
        if not self._lock.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            return self._look()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Look into the database at the next use, because this process has changed something."""
        self._looked_at = 0.0

    def _look(self) -> Settings:
        if is_missing_file(self._loaded.database_url):
            return self._loaded
        began = time.monotonic()
        try:
            with reading(self._database()) as session:
                changes = latest(session)
        except (DatabaseError, SQLAlchemyError):
            if self._settings is None:
                raise
            self._looked_at = began
            return self._settings
        seen = sorted(change.id for change in changes.values())
        if self._settings is None or seen != self._seen:
            self._settings, self._seen = applied(self._loaded, changes), seen
        self._looked_at = began
        return self._settings
