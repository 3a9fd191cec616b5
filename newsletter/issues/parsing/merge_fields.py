"""Parses placeholders: ``{{ name }}`` and ``{{ name | default("reader") }}``.

Rendering decides what replaces each. A literal ``{{`` is written ``\\{{``, in code as well,
because Markdown's escapes do not work there.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from newsletter.errors import IssueError

#: Values of the subscriber.
PERSONAL = ("name", "email")
#: Any attribute of the subscriber, such as ``attributes.company``.
ATTRIBUTE = re.compile(r"attributes\.[a-z][a-z0-9_]*")
#: The recipient's personal links, each with its path on the site.
LINKS = {
    "unsubscribe_url": "unsubscribe",
    "preferences_url": "preferences",
    "web_view_url": "view",
}

_MOST_DIFFERENT = 100
_REST = re.compile(
    r"[ \t]*(?P<name>[^\s{}|]+)[ \t]*"
    r"(?:\|[ \t]*default\([ \t]*(?P<quoted>\"[^\"\n]*\"|'[^'\n]*'|“[^”\n]*”)[ \t]*\)[ \t]*)?\}\}"
)
_SYNTAX = 'Write {{ name }} or {{ name | default("reader") }} on one line; a literal {{ is \\{{.'


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One ``{{ … }}``: its name, and the default for subscribers without the value."""

    name: str
    default: str

    @property
    def is_link(self) -> bool:
        """Whether it is a personal link rather than a value."""
        return self.name in LINKS


def replace(
    text: str,
    of: Callable[[Placeholder], str],
    *,
    name: str,
    line: int,
    braces: str = "{{",
    links: bool = True,
) -> str:
    """Replace each placeholder by ``of(placeholder)`` and each literal ``{{`` by ``braces``.

    ``line`` is the line of the file ``name`` where the text begins. Raises IssueError for an
    unknown or malformed placeholder, and for a link unless ``links``.
    """
    parts: list[str] = []
    end = counted = 0
    different: set[Placeholder] = set()
    while (opening := text.find("{{", end)) >= 0:
        slashes = opening - len(text[end:opening].rstrip("\\")) - end
        # Pairs of backslashes before it are Markdown escapes.
        parts.append(text[end : opening - slashes % 2])
        if slashes % 2:
            parts.append(braces)
            end = opening + 2
            continue
        line += text.count("\n", counted, opening)
        counted = opening
        place = f"{name}:{line}"
        rest = _REST.match(text, opening + 2)
        if rest is None:
            raise IssueError("this placeholder is malformed", place=place, hint=_SYNTAX)
        placeholder = _known(rest, place, links=links)
        different.add(placeholder)
        if len(different) > _MOST_DIFFERENT:
            hint = "SendGrid accepts 10,000 bytes of values for each recipient."
            message = f"more than {_MOST_DIFFERENT} different placeholders"
            raise IssueError(message, place=place, hint=hint)
        parts.append(of(placeholder))
        end = rest.end()
    return "".join((*parts, text[end:]))


def check(text: str, *, name: str, line: int, links: bool = True) -> None:
    """Raise IssueError for the first placeholder that is unknown or malformed."""
    replace(text, lambda _: "", name=name, line=line, links=links)


def _known(rest: re.Match[str], place: str, *, links: bool) -> Placeholder:
    word, quoted = rest["name"], rest["quoted"]
    if word in LINKS and quoted:
        raise IssueError(f"{word} cannot have a default: every recipient has it", place=place)
    if word in PERSONAL or ATTRIBUTE.fullmatch(word) or (links and word in LINKS):
        return Placeholder(word, quoted[1:-1] if quoted else "")
    known = [*PERSONAL, "attributes.KEY", *(LINKS if links else ())]
    if word in LINKS:
        message = f"{word} is allowed in the body only"
    else:
        close = difflib.get_close_matches(word.lower(), known, n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        message = f"there is no placeholder {word}{suggestion}"
    raise IssueError(
        message,
        place=place,
        hint=f"Known here: {', '.join(known)}; KEY is like company or job_title. "
        "A literal {{ is \\{{.",
    )
