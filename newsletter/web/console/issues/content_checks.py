"""Checks and renders a text while it is being written."""

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
    """The findings in a text; ``rendered`` is None if it cannot be parsed."""

    findings: list[Finding]
    rendered: Rendered | None


def check_draft(parts: Container, text: str, *, name: str, outside: bool = False) -> DraftCheck:
    """Parse, render and check a text without saving it.

    With ``outside``, also request links and look up the sender's domain, which takes seconds.
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
