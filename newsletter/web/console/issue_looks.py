"""A text looked at while it is written: what is to be said of it, and what becomes of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from newsletter.assembly import Assembly
from newsletter.checking.finding import Finding, Level
from newsletter.errors import IssueError, TemplateError
from newsletter.issues.reading import parse_issue
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered

#: Bytes of a text that is rendered on a page: more than Gmail shows whole, less than what
#: would keep the machine busy for seconds with each pause of somebody who types.
_MOST = 200_000


@dataclass(frozen=True, slots=True)
class Look:
    """What is found in a text; ``rendered`` is None where it is no issue yet."""

    findings: list[Finding]
    rendered: Rendered | None


def look(parts: Assembly, text: str, *, name: str) -> Look:
    """Read, render and check a text, which is stored nowhere."""
    size, templates = len(text.encode(errors="replace")), parts.settings.templates_directory
    if size > _MOST:
        message = f"with {size:,} bytes it is too large to be shown and checked here"
        hint = f"Gmail cuts a mail at 102 KB. Up to {_MOST:,} bytes are shown."
        return Look([Finding("file", Level.WARN, message, None, hint)], None)
    checker, now = parts.checker, datetime.now(UTC)
    try:
        draft = parse_issue(text, name=name)
        rendered = render(draft, parts.house, templates=templates)
    except (IssueError, TemplateError):
        return Look(checker.check_text(text, name=name, now=now), None)
    return Look(checker.check(draft, rendered, now=now), rendered)
