"""The findings of checks: level, place in the issue file, message and remedy."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from newsletter.errors import SendError


class Level(StrEnum):
    """The level of a finding; config/checks.toml sets it for each check."""

    #: Information, such as how long the send will take.
    NOTE = "note"
    #: A warning.
    WARN = "warn"
    #: The issue cannot be sent.
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What a check found. ``line`` counts from 1 in the issue file; None if not in the file."""

    message: str
    hint: str = ""
    line: int | None = None
    #: It is information, whatever the level of the check.
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check, with its level. ``check`` is the check's id."""

    check: str
    level: Level
    message: str
    line: int | None
    hint: str


def blocking(findings: Iterable[Finding]) -> list[Finding]:
    """The findings of level BLOCK."""
    return [finding for finding in findings if finding.level is Level.BLOCK]


class FindingsError(SendError):
    """A blocking check reports an error, so the issue is not sent."""


def refuse(findings: Iterable[Finding], *, name: str) -> None:
    """Raise FindingsError if any finding blocks; ``name`` is the issue's file name."""
    if not (blocked := blocking(findings)):
        return
    first, others = blocked[0], len(blocked) - 1
    more = f" (and {others} more)" if others else ""
    place = f"{name}:{first.line}" if first.line else name
    raise FindingsError(f"{first.message}{more}", place=place, hint=first.hint or None)
