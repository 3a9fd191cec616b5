"""A text looked at while it is written: what is to be said of it, and what becomes of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from newsletter.assembly import Assembly
from newsletter.checking.finding import Finding
from newsletter.errors import IssueError, TemplateError
from newsletter.issues.reading import parse_issue
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered


@dataclass(frozen=True, slots=True)
class Look:
    """What is found in a text; ``rendered`` is None where it is no issue yet."""

    findings: list[Finding]
    rendered: Rendered | None


def look(parts: Assembly, text: str, *, name: str, outside: bool = False) -> Look:
    """Read, render and check a text, which is stored nowhere.

    With ``outside``, links and the sender's domain are asked as well: seconds, not milliseconds.
    """
    checker, now = parts.checker, datetime.now(UTC)
    try:
        draft = parse_issue(text, name=name)
        rendered = render(draft, parts.house, templates=parts.settings.templates_directory)
    except (IssueError, TemplateError):
        return Look(checker.check_text(text, name=name, now=now), None)
    dns = parts.dns if outside else None
    found = checker.check(draft, rendered, now=now, dns=dns, ask_links=outside)
    return Look(found, rendered)
