"""Change the settings of the publication that are kept in the database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from newsletter import readiness
from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.dialect import lock
from newsletter.db.orm import Session
from newsletter.errors import SettingsError
from newsletter.settings import publication
from newsletter.settings.publication import Change, Value


@dataclass(frozen=True, slots=True)
class Conflict:
    """A setting that someone else changed since the form was made."""

    theirs: Value
    by: str
    at: datetime


class SettingsChangeError(SettingsError):
    """Nothing was changed, because of these settings.

    ``problems`` are values that are not allowed, ``conflicts`` are values that someone else
    changed meanwhile, and ``touched`` are all settings that the change was about.
    """

    def __init__(
        self,
        problems: Mapping[str, SettingsError],
        conflicts: Mapping[str, Conflict],
        touched: frozenset[str],
    ) -> None:
        first = next(iter(problems.values()), None)
        if first is None:
            key, other = next(iter(conflicts.items()))
            first = SettingsError(
                f"{other.by} changed it to {as_text(other.theirs)} meanwhile",
                place=key,
                hint="Nothing was saved. Compare both values, and save again.",
            )
        super().__init__(first.message, place=first.place, hint=first.hint)
        self.problems, self.conflicts, self.touched = problems, conflicts, touched


def as_text(value: Value) -> str:
    """A value as messages show it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"“{value}”" if value else "nothing"


def change(
    session: Session,
    parts: Container,
    values: Mapping[str, Value | None],
    *,
    by: Actor,
    now: datetime,
    base: int | None = None,
) -> list[str]:
    """Set these settings, or remove those that are None; returns the keys that have changed.

    ``base`` is the latest change that a form was made from: what equals the value of that time was
    not touched by the form, and what another has changed since is a conflict. All is saved, or
    nothing: SettingsChangeError has every problem.
    """
    lock(session, publication.LOCK)
    stored = publication.latest(session)
    wanted = changes_of(session, parts, values, now=now, base=base)
    for key, new in wanted.items():
        publication.add(session, key, new, by=by.name, now=now)
    for key, new in wanted.items():
        before = _in_force(parts, stored, key)
        if new is None:
            audit.record(session, by, "setting removed", now=now, subject=key, before=before)
        else:
            audit.record(
                session, by, "setting changed", now=now, subject=key, before=before, after=new
            )
    return list(wanted)


def changes_of(
    session: Session,
    parts: Container,
    values: Mapping[str, Value | None],
    *,
    now: datetime,
    base: int | None = None,
) -> dict[str, Value | None]:
    """What ``change`` would store. Raises SettingsChangeError as it does, and changes nothing."""
    stored = publication.latest(session)
    old = stored if base is None else publication.latest(session, until=base)
    problems: dict[str, SettingsError] = {}
    conflicts: dict[str, Conflict] = {}
    wanted: dict[str, Value | None] = {}
    for key, value in values.items():
        try:
            publication.require_changeable(parts.loaded, key)
            checked = None if value is None else publication.validated(key, value)
        except SettingsError as error:
            problems[key] = error
            continue
        if checked is None:
            untouched = key not in stored or stored[key].value is None
        else:
            untouched = checked in (_in_force(parts, stored, key), _in_force(parts, old, key))
        if untouched:
            continue
        wanted[key] = checked
        latest = stored.get(key)
        if latest is not None and (key not in old or old[key].id != latest.id):
            theirs = _in_force(parts, stored, key)
            conflicts[key] = Conflict(theirs, latest.set_by, latest.set_at)
    problems |= {
        problem.key: SettingsError(problem.what, place=problem.key, hint=problem.remedy)
        for problem in _unfit(parts, stored, wanted, now)
    }
    if problems or conflicts:
        raise SettingsChangeError(problems, conflicts, frozenset(wanted) | frozenset(problems))
    return wanted


def _in_force(parts: Container, changes: Mapping[str, Change], key: str) -> Value:
    one = {key: changes[key]} if key in changes else {}
    return publication.value_of(publication.applied(parts.loaded, one), key)


def _unfit(
    parts: Container,
    stored: Mapping[str, Change],
    wanted: Mapping[str, Value | None],
    now: datetime,
) -> Iterator[readiness.SettingProblem]:
    """What would prevent sending, among the changed settings."""
    new = {key: Change(0, key, value, now, "") for key, value in wanted.items()}
    settings = publication.applied(parts.loaded, {**stored, **new})
    return (problem for problem in readiness.unfit(settings) if problem.key in wanted)
