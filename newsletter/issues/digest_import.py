"""Converts a digest that was copied as plain text from a web page into an issue file.

Expected layout: a line with title and date, headings that end in the page's anchor mark
(``Deep Dives#``), prose, and entries ``[title] · organization · Source text``. The conversion
drops only the layout: the line ``Sources`` at the top, the marks ``#`` after headings, the
brackets around titles and the dot between title and organization. Everything else stays in
order, including the word ``Source``.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import date
from typing import NoReturn

from newsletter.errors import IssueError
from newsletter.issues.parsing.digest import SEPARATOR, parse_digest
from newsletter.issues.parsing.issue_file import parse_issue, slug_of
from newsletter.issues.parsing.text import normalized

#: The end of the first line, after its title.
_DATE = re.compile(r"[—–-]\s+(?P<date>\d{4}-\d\d-\d\d)")
_LONGEST_HEADING = 119
#: The separators after the title and after the organization.
_TITLE_ENDS, _SOURCE = re.compile(r"\][ \t]*+·"), re.compile(r"·[ \t]*+Source(?=\s|$)")
_PREHEADER = 110
#: Characters that no front matter value may contain.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: Start and end of an HTML comment.
_COMMENT = re.compile(r"<!--|-->")
_BRACES = re.compile(r"(\\*)\{\{")
#: The name of the issue file; a slug can be derived from it.
_MADE = "issue.md"
_LAYOUT = "Change the text, and import it again."
_EXPECTED_ENTRY = "An entry is written “[title] · organization · Source text”."

#: Characters with a meaning in Markdown anywhere in a line.
_SPECIAL = re.compile(r"[\\`*_\[\]<>~]|&(?=#?\w+;)|\{\{")
#: Characters with a meaning only at the start of a paragraph.
_LEADING = re.compile(r"(?=[#>=:])|(?=[-+](?:\s|-|$))")
_NUMBERED = re.compile(r"(\d{1,9})([.)])(?=\s|$)")


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph with its lines joined, or a heading."""

    text: str
    line: int
    is_heading: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """The parts of ``[title] · organization · Source text``."""

    title: str
    organization: str
    text: str


@dataclass(slots=True)
class _Output:
    """The Markdown so far, and the texts from which the preheader is taken."""

    paragraphs: list[str] = field(default_factory=list)
    has_section: bool = False
    first_prose: str = ""
    first_story: str = ""


def import_digest(text: str, *, name: str) -> str:
    """The issue file for this plain-text digest; ``name`` is its file name in errors.

    Raises IssueError with ``file:line`` and what was expected when the layout differs.
    """
    lines = [line.strip(" \t") for line in normalized(text, name=name).split("\n")]
    at = next((n for n, line in enumerate(lines) if line and line != "Sources"), None)
    if at is None:
        _refuse(name, 1, "the file has no text", _EXPECTED_TITLE)
    title, ending = _first_line(lines[at])
    if ending is None:
        _refuse(name, at + 1, "expected title and date here", _EXPECTED_TITLE)
    try:
        day = date.fromisoformat(ending)
    except ValueError:
        _refuse(name, at + 1, f"there is no day {ending}", _EXPECTED_TITLE)
    output = _body(_blocks(lines[at + 1 :], at + 2), name, at + 1)
    front = _front_matter(title, day, output.first_prose or output.first_story)
    made = front + "\n\n".join(("", *output.paragraphs)).removeprefix("\n") + "\n"
    _require_readable(made, name, at + 1)
    return made


def escape_markdown(text: str) -> str:
    """Markdown that renders as exactly this text, as a paragraph or within a line."""
    text = _SPECIAL.sub(lambda found: "\\" + found[0], text)
    text = _LEADING.sub(r"\\", text, count=1) if _LEADING.match(text) else text
    return _NUMBERED.sub(r"\1\\\2", text, count=1) if _NUMBERED.match(text) else text


_EXPECTED_TITLE = "The first line is like “Engineering @ Scale — 2026-03-27”."


def _blocks(lines: list[str], first_line: int) -> list[_Block]:
    """Headings and paragraphs. Only the first line of a block can be a heading: a wrapped
    paragraph may end in “C#”."""
    blocks: list[_Block] = []
    together: list[str] = []
    begun = first_line
    # An empty line ends the block.
    for number, line in enumerate([*lines, ""], first_line):
        if together and (not line or _entry_in(line) is not None):
            blocks.append(_Block(" ".join(together), begun))
            together = []
        if not line:
            continue
        if not together and (heading := _heading_in(line)):
            blocks.append(_Block(heading, number, is_heading=True))
            continue
        if not together:
            begun = number
        together.append(line)
    return blocks


def _first_line(line: str) -> tuple[str, str | None]:
    """The title and its date; None when the line does not end in a date."""
    bare = line.rstrip("#").rstrip()
    before, date_ = bare[:-10].rstrip(), bare[-10:]
    title = before[:-1].rstrip()
    is_apart = len(before) < len(bare) - 10 and len(title) < len(before) - 1
    found = _DATE.fullmatch(f"{before[-1:]} {date_}") if title and is_apart else None
    return title, found["date"] if found else None


def _heading_in(line: str) -> str:
    """The text of a heading, which ends in the page's anchor mark; empty for other lines."""
    words = line.rstrip("#").rstrip()
    if len(words) == len(line) or not words or words[0] == "[" or words[0].isspace():
        return ""
    return words if len(words) <= _LONGEST_HEADING else ""


def _entry_in(text: str) -> _Entry | None:
    """The entry in this text, or None. The first dot and the first “Source” separate its parts."""
    ends = _TITLE_ENDS.search(text, 2) if text.startswith("[") else None
    source = _SOURCE.search(text, ends.end() + 1) if ends else None
    if ends is None or source is None:
        return None
    organization = text[ends.end() : source.start()].strip()
    if not organization:
        return None
    return _Entry(text[1 : ends.start()], organization, text[source.end() :].strip())


def _body(blocks: list[_Block], name: str, title_line: int) -> _Output:
    output = _Output()
    if not any(block.is_heading for block in blocks):
        expected = "A section begins with a line like “Deep Dives#”."
        _refuse(name, title_line, "there is no section below the title", expected)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.is_heading:
            if following is None or following.is_heading:
                _refuse(name, block.line, "this section is empty", _EXPECTED_ENTRY)
            output.has_section = True
            output.paragraphs.append(f"## {_heading(block.text)}")
        elif block.text.startswith("["):
            _add_entry(block, name, output)
        else:
            output.paragraphs.append(escape_markdown(block.text))
            output.first_prose = output.first_prose or block.text
    return output


def _add_entry(block: _Block, name: str, output: _Output) -> None:
    entry = _entry_in(block.text)
    if entry is None:
        _refuse(name, block.line, "expected an entry here", _EXPECTED_ENTRY)
    if not output.has_section:
        _refuse(name, block.line, "an entry outside of a section", "Put “Deep Dives#” above it.")
    output.paragraphs += [
        f"### {_heading(entry.title)}",
        f"*{escape_markdown(entry.organization)}* {SEPARATOR} Source",
    ]
    if entry.text:
        output.paragraphs.append(escape_markdown(entry.text))
        output.first_story = output.first_story or entry.text


def _heading(text: str) -> str:
    """A heading's text, escaped: Markdown would remove # marks at its end."""
    return re.sub(r"(?<=\s)(#+)$", r"\\\1", escape_markdown(text.strip()))


def _front_matter(title: str, day: date, first_words: str) -> str:
    whole = f"{title} — {day.isoformat()}"
    slug = slug_of(title) or "digest"
    values = {
        "subject": _quoted(whole),
        "preheader": _quoted(_first_sentence(first_words)),
        "template": "digest",
        # The first word of the title is a guess; the editor reviews the file.
        "topics": f"[{slug.split('-')[0][:64]}]",
        "slug": f"{slug[:89].rstrip('-')}-{day.isoformat()}",
        "date": day.isoformat(),
        "language": "en",
    }
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in values.items()) + "---\n"


def _first_sentence(text: str) -> str:
    """The first sentence, cut after a whole word where it is too long for a preheader."""
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    if len(sentence) <= _PREHEADER:
        return sentence
    kept = sentence[:_PREHEADER].rsplit(" ", 1)[0]
    return kept.rstrip(" ,;:—–-") + "…"


def _quoted(text: str) -> str:
    """A YAML scalar of this text: one line, without placeholders and comments.

    An odd number of backslashes before ``{{`` cannot be written, so one more is added.
    """
    text = _COMMENT.sub(" ", text) if "<!--" in text else text
    text = " ".join(_CONTROL.sub(" ", text).split())
    text = _BRACES.sub(lambda found: found[1] + "\\" * (1 + len(found[1]) % 2) + "{{", text)
    return json.dumps(text, ensure_ascii=False)


def _require_readable(made: str, name: str, line: int) -> None:
    """Raise IssueError when the issue file could not be read again."""
    try:
        draft = parse_issue(made, name=_MADE)
        parse_digest(draft.body, name=_MADE, first_line=draft.body_line)
    except IssueError as error:
        # The error's own place names a line of a file that does not exist yet.
        _refuse(name, line, f"no issue can be made of it: {error.message}", error.hint or _LAYOUT)


def _refuse(name: str, line: int, message: str, hint: str) -> NoReturn:
    raise IssueError(message, place=f"{name}:{line}", hint=hint)
