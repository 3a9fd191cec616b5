"""Parses a digest's body: ``##`` sections with prose and ``###`` entries.

    ## Deep Dives

    ### What we learned from a year of alerts

    *Airbnb* · [Source](https://example.com/alerts)

    Any Markdown.

Titles, organizations and labels are inline Markdown, bodies are Markdown.
docs/reference/issue-format.md describes the format.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from newsletter.errors import IssueError

#: Written between an organization and its source.
SEPARATOR = "·"
_HEADING = re.compile(r" {0,3}(#{1,3})(?=[ \t]|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_EMPHASIS = r"(?P<mark>[*_])(?P<organization>(?:\\.|(?!(?P=mark))[^\\])+)(?P=mark)"
_LINK = r"\[(?P<label>(?:\\.|[^\\\[\]])+)\]\(<?(?P<url>[^\s<>]+?)>?\)"
_ATTRIBUTION = re.compile(
    rf"{_EMPHASIS}(?:[ \t]*[·•|][ \t]*(?:{_LINK}|(?P<plain>[^\s\[(].*)))?[ \t]*"
)
_HOW = (
    "Below a ### title, write a line like “*Airbnb* · [Source](https://example.com)”, "
    "“*Airbnb* · Source” or “*Airbnb*”."
)


@dataclass(frozen=True, slots=True)
class DigestEntry:
    """One story. ``source_label`` is empty without a source; ``line`` is the title's line."""

    title: str
    organization: str
    source_label: str
    source_url: str | None
    body_markdown: str
    line: int


@dataclass(frozen=True, slots=True)
class DigestSection:
    """A ``##`` heading with prose, entries, or prose before entries."""

    title: str
    prose_markdown: str
    entries: tuple[DigestEntry, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """The body of a digest; ``opening`` is the Markdown before the first section, often empty."""

    sections: tuple[DigestSection, ...]
    opening: str = ""


@dataclass(frozen=True, slots=True)
class _Block:
    """A heading of level 2 or 3 with the lines below it; level 0 is the text before the first."""

    level: int
    title: str
    lines: list[str]
    line: int


def parse_digest(body: str, *, name: str, first_line: int = 1) -> Digest:
    """The digest in this Markdown; ``first_line`` is its first line in the file ``name``.

    Raises IssueError with ``file:line`` where the body does not follow the format.
    """
    opening, *blocks = _blocks(body.split("\n"), name, first_line)
    sections: list[DigestSection] = []
    heads: list[_Block] = []
    entries: list[DigestEntry] = []
    for block in blocks:
        if block.level == 2:
            _close(heads, entries, sections, name)
            heads, entries = [block], []
        elif heads:
            entries.append(_entry(block, name))
        else:
            _refuse(name, block.line, "an entry outside of a section", "Put a ## heading above it.")
    _close(heads, entries, sections, name)
    if not sections:
        _refuse(name, first_line, "a digest without a section", "Add a line like “## Deep Dives”.")
    return Digest(tuple(sections), _text(opening.lines))


def _blocks(lines: Sequence[str], name: str, first_line: int) -> Iterator[_Block]:
    block = _Block(0, "", [], first_line)
    fence = ""
    for number, line in enumerate(lines, first_line):
        opened = _FENCE.match(line)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1].startswith(fence) and not line.strip(" \t`~"):
            fence = ""
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            block.lines.append(line)
            continue
        level, title = len(heading[1]), _heading_words(line[heading.end() :])
        if level == 1:
            hint = "The title is in the front matter; sections begin with ##."
            _refuse(name, number, "a digest has no # heading", hint)
        if not title:
            _refuse(name, number, "this heading has no text", "Write it after the #.")
        yield block
        block = _Block(level, title, [], number)
    yield block


def _close(
    heads: list[_Block], entries: list[DigestEntry], sections: list[DigestSection], name: str
) -> None:
    for head in heads:
        prose = _text(head.lines)
        if not prose and not entries:
            hint = "Write prose or ### entries below the heading, or remove it."
            _refuse(name, head.line, "this section is empty", hint)
        sections.append(DigestSection(head.title, prose, tuple(entries)))


def _entry(block: _Block, name: str) -> DigestEntry:
    at = next((n for n, line in enumerate(block.lines) if line.strip()), None)
    if at is None:
        _refuse(name, block.line, "this entry names no organization", _HOW)
    line = block.line + 1 + at
    found = _ATTRIBUTION.fullmatch(block.lines[at].strip())
    if found is None:
        _refuse(name, line, "expected the entry's organization here", _HOW)
    url = found["url"]
    if url and not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
        _refuse(name, line, "the source is not a web address", "Begin it with https:// or http://.")
    return DigestEntry(
        title=block.title,
        organization=found["organization"].strip(),
        source_label=(found["label"] or found["plain"] or "").strip(),
        source_url=url,
        body_markdown=_text(block.lines[at + 1 :]),
        line=block.line,
    )


def _heading_words(rest: str) -> str:
    """The text without a closing sequence: ``Title ##`` becomes ``Title``, ``C#`` stays."""
    words = rest.strip()
    bare = words.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else words


def _text(lines: Sequence[str]) -> str:
    """The lines without blank lines at both ends. The first line keeps its indentation, which
    has a meaning in Markdown."""
    return "\n".join(lines).strip("\n").rstrip() if any(line.strip() for line in lines) else ""


def _refuse(name: str, line: int, message: str, hint: str) -> NoReturn:
    raise IssueError(message, place=f"{name}:{line}", hint=hint)
