"""Placeholders as authors write them: ``{{ name }}`` and ``{{ name | default("reader") }}``.

This is the grammar only; rendering decides what becomes of each. A literal ``{{``
is written ``\\{{``, in code as well, because Markdown's own escapes do not work there.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from newsletter.errors import IssueError

#: Values of the person.
PERSONAL = ("name", "email")
#: Any key of the person's attributes, such as ``attributes.company``.
ATTRIBUTE = re.compile(r"attributes\.[a-z][a-z0-9_]*")
#: Links of the person's own, each with the path that it stands under.
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
_HOW = 'Write {{ name }} or {{ name | default("reader") }} on one line; a literal {{ is \\{{.'


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One ``{{ … }}``: what it stands for, and the words for people who lack it."""

    name: str
    default: str

    @property
    def is_link(self) -> bool:
        """Whether it is a link of the person's own rather than one of their values."""
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
    """The text with ``of(placeholder)`` in the place of each, and ``braces`` for a literal ``{{``.

    ``line`` is the line of file ``name`` on which the text begins. Raises IssueError for
    a placeholder that is unknown or malformed, and for a link where ``links`` is false.
    """
    parts: list[str] = []
    end = counted = 0
    different: set[Placeholder] = set()
    while (opening := text.find("{{", end)) >= 0:
        slashes = opening - len(text[end:opening].rstrip("\\")) - end
        # Slashes before that come in pairs are Markdown's business.
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
            raise IssueError("this placeholder is malformed", place=place, hint=_HOW)
        placeholder = _known(rest, place, links=links)
        different.add(placeholder)
        if len(different) > _MOST_DIFFERENT:
            hint = "SendGrid takes 10,000 bytes of values for a person."
            said = f"more than {_MOST_DIFFERENT} different placeholders"
            raise IssueError(said, place=place, hint=hint)
        parts.append(of(placeholder))
        end = rest.end()
    return "".join((*parts, text[end:]))


def check(text: str, *, name: str, line: int, links: bool = True) -> None:
    """Raise IssueError for the first placeholder that is unknown or malformed."""
    replace(text, lambda _: "", name=name, line=line, links=links)


def _known(rest: re.Match[str], place: str, *, links: bool) -> Placeholder:
    word, quoted = rest["name"], rest["quoted"]
    if word in LINKS and quoted:
        raise IssueError(f"{word} takes no default: everybody has it", place=place)
    if word in PERSONAL or ATTRIBUTE.fullmatch(word) or (links and word in LINKS):
        return Placeholder(word, quoted[1:-1] if quoted else "")
    known = [*PERSONAL, "attributes.KEY", *(LINKS if links else ())]
    if word in LINKS:
        message = f"{word} can stand in the body only"
    else:
        close = difflib.get_close_matches(word.lower(), known, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        message = f"there is no placeholder {word}{meant}"
    raise IssueError(
        message,
        place=place,
        hint=f"Known here: {', '.join(known)}; KEY is like company or job_title. "
        "A literal {{ is \\{{.",
    )
