"""A text looked at while it is written: what is to be said of it, and what becomes of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from newsletter.checking.checker import refused
from newsletter.checking.finding import Finding
from newsletter.container import Container
from newsletter.errors import BusyError, IssueError, TemplateError
from newsletter.rendering.rendered import Rendered
from newsletter.text_workers import TooMuchWorkError


@dataclass(frozen=True, slots=True)
class DraftCheck:
    """What is found in a text; ``rendered`` is None where it is no issue yet."""

    findings: list[Finding]
    rendered: Rendered | None


def look(parts: Container, text: str, *, name: str, outside: bool = False) -> DraftCheck:
    """Read, render and check a text, which is stored nowhere.

    With ``outside``, links and the sender's domain are asked as well: seconds, not milliseconds.
    """
    checker, now = parts.checker, datetime.now(UTC)
    try:
        one = parts.text_workers(checker.examine_text, text, name=name)
    except (IssueError, TemplateError, TooMuchWorkError, BusyError) as error:
        return DraftCheck([refused(error, name)], None)
    found = checker.check(
        one.draft,
        one.rendered,
        now=now,
        dns=parts.dns if outside else None,
        ask_links=outside,
        examined=one,
    )
    return DraftCheck(found, one.rendered)
