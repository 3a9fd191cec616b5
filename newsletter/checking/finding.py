"""What a check says: how grave it is, where in the issue file, and how to mend it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from newsletter.errors import SendError


class Level(StrEnum):
    """What a finding means for the send; config/checks.toml decides which, check by check."""

    #: Nothing is wrong: something to know, such as how long the send will take.
    NOTE = "note"
    #: Somebody should look at it.
    WARN = "warn"
    #: It is not sent like this.
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What a check itself knows. ``line`` counts from 1 in the issue file; None: not in it."""

    message: str
    hint: str = ""
    line: int | None = None
    #: Nothing is wrong, whatever the level of the check.
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, by the check of this id."""

    check: str
    level: Level
    message: str
    line: int | None
    hint: str


def blocking(findings: Iterable[Finding]) -> list[Finding]:
    """Those for which an issue is not sent."""
    return [finding for finding in findings if finding.level is Level.BLOCK]


def refuse(findings: Iterable[Finding], *, name: str) -> None:
    """Raise SendError when any of them blocks; ``name`` is what the issue's file is called."""
    if not (blocked := blocking(findings)):
        return
    first, others = blocked[0], len(blocked) - 1
    more = f" (and {others} more)" if others else ""
    place = f"{name}:{first.line}" if first.line else name
    raise SendError(f"{first.message}{more}", place=place, hint=first.hint or None)
