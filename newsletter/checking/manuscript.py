"""An issue's Markdown as its author wrote it, with the line of everything in it.

Rendering leaves out what is no link, and knows lines of what it refuses only. The checks
want to speak of both, so they read the body once more, and more generously.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.parser_inline import RuleFuncInlineType
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.attrs import attrs_plugin

from newsletter.issues import personal
from newsletter.issues.reading import Draft
from newsletter.rendering.markdown import SIZES

#: Stands in addresses and words where a placeholder does.
PERSONAL = "nlpersonal"
#: Line breaks that a token swallowed.
_MORE = "more lines"


@dataclass(frozen=True, slots=True)
class Link:
    """A link or a picture: its address with ``PERSONAL`` for each value, its words, its line."""

    url: str
    words: str
    line: int
    is_image: bool = False
    width: str = ""
    height: str = ""

    @property
    def is_personal(self) -> bool:
        """Whether it leads somewhere else for each person."""
        return PERSONAL in self.url


@dataclass(frozen=True, slots=True)
class Words:
    """A stretch of plain text."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Used:
    """A placeholder where it stands."""

    placeholder: personal.Placeholder
    line: int


@dataclass(frozen=True, slots=True)
class Manuscript:
    """The parts of one body, in their order."""

    links: Sequence[Link]
    images: Sequence[Link]
    words: Sequence[Words]
    placeholders: Sequence[Used]


def read_manuscript(draft: Draft, links: dict[str, str]) -> Manuscript:
    """The parts of a draft's body; ``links`` is the address of each link placeholder.

    The front matter's placeholders come first.
    """
    used: list[Used] = []

    def of(placeholder: personal.Placeholder) -> str:
        used.append(Used(placeholder, number))
        return links.get(placeholder.name, "") + PERSONAL

    for key in ("subject", "preheader"):
        number = line_of(draft, key) or 1
        personal.replace(getattr(draft, key), of, name=draft.name, line=number, links=False)
    lines = []
    # A placeholder never goes over the end of a line.
    for number, text in enumerate(draft.body.split("\n"), draft.body_line):
        lines.append(personal.replace(text, of, name=draft.name, line=number))
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20})
    parser.use(attrs_plugin, after=("image",), allowed=SIZES)
    # What rendering does not take for a link is what the checks look for.
    parser.validateLink = _any_url  # type: ignore[method-assign]
    ruler = parser.inline.ruler
    for name, rule in zip(ruler.get_active_rules(), ruler.getRules(), strict=True):
        ruler.at(name, _counted(rule))
    parts = list(_parts(parser.parse("\n".join(lines)), draft.body_line))
    found = [part for part in parts if isinstance(part, Link)]
    return Manuscript(
        links=[link for link in found if not link.is_image],
        images=[link for link in found if link.is_image],
        words=[part for part in parts if isinstance(part, Words)],
        placeholders=used,
    )


def _any_url(url: str) -> bool:  # noqa: ARG001 (markdown-it asks so)
    return True


def _counted(rule: RuleFuncInlineType) -> RuleFuncInlineType:
    """The rule, which notes line breaks that no token of its own stands for.

    Code, titles and the words of pictures may go over them; tokens do not say where they end.
    """

    def counted(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 (markdown-it calls it so)
        at, before = state.pos, len(state.tokens)
        if not rule(state, silent):
            return False
        if not silent and (breaks := state.src.count("\n", at, state.pos)):
            last = state.tokens[-1]
            told = sum(_breaks_in(token) for token in state.tokens[before:])
            last.meta[_MORE] = last.meta.get(_MORE, 0) + breaks - told
        return True

    return counted


def _breaks_in(token: Token) -> int:
    return (token.type in {"softbreak", "hardbreak"}) + int(token.meta.get(_MORE, 0))


def line_of(draft: Draft, key: str) -> int | None:
    """The line of a key of the front matter; None when it is not there."""
    head = draft.source.split("\n")[: draft.body_line - 1]
    pattern = re.compile(rf"[\"']?{key}[\"']?[ \t]*:")
    return next((number for number, text in enumerate(head, 1) if pattern.match(text)), None)


def _parts(tokens: Sequence[Token], first: int) -> Iterator[Link | Words]:
    for token in tokens:
        if token.type == "inline":
            yield from _inline(token.children or (), first + (token.map or [0])[0])


def _inline(tokens: Sequence[Token], line: int) -> Iterator[Link | Words]:
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
                    yield Words(token.content, line)
        line += _breaks_in(token)
