"""Parses an issue's Markdown for the checks, with the line of each link, image and text.

Rendering ignores invalid links and does not track lines. The checks report both, so they parse
the body again, with less strict rules.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it.parser_inline import RuleFuncInlineType
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from newsletter.issues.parsing import merge_fields
from newsletter.issues.parsing.issue_file import Draft
from newsletter.rendering.markdown import new_parser
from newsletter.rendering.word_check import DEFINITION, folded

#: Replaces each placeholder in addresses and texts.
PERSONAL = "nlpersonal"
#: Key of a token's metadata: the line breaks within the token.
_MORE = "more lines"
_BRACKETS = re.compile(r"\[((?:[^\[\]\\]|\\.){1,999})\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Link:
    """A link or an image: its address with ``PERSONAL`` for each value, its text, its line."""

    url: str
    words: str
    line: int
    is_image: bool = False
    width: str = ""
    height: str = ""

    @property
    def is_personal(self) -> bool:
        """Whether the address differs between recipients."""
        return PERSONAL in self.url


@dataclass(frozen=True, slots=True)
class SourceText:
    """A part of plain text."""

    text: str
    line: int
    is_in_link: bool = False


@dataclass(frozen=True, slots=True)
class PlaceholderUse:
    """A placeholder and its line."""

    placeholder: merge_fields.Placeholder
    line: int


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """The parts of one body, in order."""

    links: Sequence[Link]
    images: Sequence[Link]
    words: Sequence[SourceText]
    placeholders: Sequence[PlaceholderUse]
    #: The source of each paragraph and heading, without code.
    paragraphs: Sequence[SourceText]
    #: Definitions of links (``[label]: https://…``) that nothing refers to.
    unused: Sequence[SourceText]


def parse_body(draft: Draft, links: dict[str, str]) -> ParsedBody:
    """The parts of a draft's body; ``links`` maps each link placeholder to its address.

    Placeholders of the front matter come first.
    """
    used: list[PlaceholderUse] = []

    def of(placeholder: merge_fields.Placeholder) -> str:
        used.append(PlaceholderUse(placeholder, number))
        return links.get(placeholder.name, "") + PERSONAL

    for key in ("subject", "preheader"):
        number = line_of(draft, key) or 1
        merge_fields.replace(getattr(draft, key), of, name=draft.name, line=number, links=False)
    lines = []
    # A placeholder never spans lines.
    for number, text in enumerate(draft.body.split("\n"), draft.body_line):
        lines.append(merge_fields.replace(text, of, name=draft.name, line=number))
    parser = new_parser()
    # The checks also report links that rendering does not accept.
    parser.validateLink = _any_url  # type: ignore[method-assign]
    ruler = parser.inline.ruler
    for name, rule in zip(ruler.get_active_rules(), ruler.getRules(), strict=True):
        ruler.at(name, _counted(rule))
    body = "\n".join(lines)
    env: dict[str, Any] = {}
    tokens = [token for token in parser.parse(body, env) if token.type == "inline"]
    labels = {folded(label) for label in env.get("references", {})}
    parts = [
        part
        for token in tokens
        for part in _inline(token.children or (), draft.body_line + (token.map or [0])[0])
    ]
    paragraphs = [
        SourceText(_without_code(token), draft.body_line + (token.map or [0])[0])
        for token in tokens
    ]
    found = [part for part in parts if isinstance(part, Link)]
    return ParsedBody(
        links=[link for link in found if not link.is_image],
        images=[link for link in found if link.is_image],
        words=[part for part in parts if isinstance(part, SourceText)],
        placeholders=used,
        paragraphs=paragraphs,
        unused=list(_unused(body, paragraphs, labels, draft.body_line)),
    )


def _any_url(url: str) -> bool:  # noqa: ARG001 (markdown-it asks so)
    return True


def _counted(rule: RuleFuncInlineType) -> RuleFuncInlineType:
    """The rule, which also counts line breaks within its tokens.

    Code, titles and image texts may contain them, and markdown-it does not record it.
    """

    def counted(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 (markdown-it calls it so)
        at, before = state.pos, len(state.tokens)
        if not rule(state, silent):
            return False
        if not silent and (breaks := state.src.count("\n", at, state.pos)):
            last = state.tokens[-1]
            counted_before = sum(_breaks_in(token) for token in state.tokens[before:])
            last.meta[_MORE] = last.meta.get(_MORE, 0) + breaks - counted_before
        return True

    return counted


def _breaks_in(token: Token) -> int:
    return (token.type in {"softbreak", "hardbreak"}) + int(token.meta.get(_MORE, 0))


def line_of(draft: Draft, key: str) -> int | None:
    """The line of a front matter key; None without the key."""
    head = draft.source.split("\n")[: draft.body_line - 1]
    pattern = re.compile(rf"[\"']?{key}[\"']?[ \t]*:")
    return next((number for number, text in enumerate(head, 1) if pattern.match(text)), None)


def _without_code(token: Token) -> str:
    """The text of a paragraph, with spaces in place of code; lines stay the same."""
    text, parts, end = token.content, [], 0
    for child in token.children or ():
        if child.type == "code_inline":
            begins = text.find(child.markup, end)
            stop = text.find(child.markup, begins + len(child.markup))
            if begins < 0 or stop < 0:
                break
            code = text[begins : stop + len(child.markup)]
            parts += [text[end:begins], re.sub(r"[^\n]", " ", code)]
            end = stop + len(child.markup)
    return "".join((*parts, text[end:]))


def _unused(
    body: str, paragraphs: Sequence[SourceText], labels: set[str], first: int
) -> Iterator[SourceText]:
    """The definitions of these labels that are never used, each with its line."""
    used = {label for one in paragraphs for label in map(folded, _BRACKETS.findall(one.text))}
    counted, line = 0, first
    for found in DEFINITION.finditer(body):
        if folded(found["label"]) in labels - used:
            line += body.count("\n", counted, found.start("label"))
            counted = found.start("label")
            yield SourceText(found["label"], line)


def _inline(tokens: Sequence[Token], line: int) -> Iterator[Link | SourceText]:
    opened: list[tuple[str, int, list[str]]] = []
    for token in tokens:
        match token.type:
            case "link_open":
                opened.append((str(token.attrs.get("href", "")), line, []))
            case "link_close" if opened:
                url, began, words = opened.pop()
                yield Link(url, "".join(words).strip(), began)
            case "image":
                for _, _, words in opened:
                    words.append(token.content)
                yield Link(
                    str(token.attrs.get("src", "")),
                    token.content.strip(),
                    line,
                    is_image=True,
                    width=str(token.attrs.get("width", "")),
                    height=str(token.attrs.get("height", "")),
                )
            case "text" | "code_inline":
                for _, _, words in opened:
                    words.append(token.content)
                if token.type == "text":
                    yield SourceText(token.content, line, is_in_link=bool(opened))
        line += _breaks_in(token)
