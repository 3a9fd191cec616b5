"""Adapter for markdown-it: parses an issue's Markdown into tokens for HTML and text.

Raw HTML is shown as text. Links to anything but web pages and mailboxes stay text as well. Link
definitions (``[label]: https://…``) apply to the whole body, although its parts are rendered one
by one.
"""

import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from mdit_py_plugins.attrs import attrs_plugin

from newsletter.errors import IssueError

_ALLOWED_LINK = re.compile(r"https?://[^/\s]|mailto:[^\s]", re.IGNORECASE)
#: How deep lists and quotes may be nested; a list and its item count as two levels.
MOST_NESTED = 40
#: The parser drops what is deeper than this, so MOST_NESTED has to be less.
PARSER_LIMIT = MOST_NESTED + 10
_MOST_INLINE_NESTED = 50
#: Attributes allowed in braces after an image: ``![…](…){width=512}``.
SIZES = ("width", "height")
_TAGS = {
    "p", "br", "hr", "h2", "h3", "h4", "ul", "ol", "li", "blockquote", "pre", "code",
    "em", "strong", "a", "img",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title", *SIZES}, "ol": {"start"}}
#: The title of the issue is the h1, so headings of the body begin at h2.
_HEADINGS = {"h1": "h2", "h2": "h2", "h3": "h3", "h4": "h4", "h5": "h4", "h6": "h4"}


class Markdown:
    """The Markdown of one body; ``in_url`` is applied to every address in it."""

    def __init__(self, body: str, *, in_url: Callable[[str], str], name: str, line: int) -> None:
        """``line`` is the body's first line in the file ``name``.

        Raises IssueError where lists, quotes, emphasis or links are nested too deeply.
        """
        self._parser = MarkdownIt("commonmark", {"html": False, "maxNesting": PARSER_LIMIT})
        self._parser.use(attrs_plugin, after=("image",), allowed=SIZES)
        # markdown-it documents replacing this method as the way to decide on links.
        self._parser.validateLink = _allowed  # type: ignore[method-assign]
        self._in_url = in_url
        self._name, self._line = name, line
        self._parser.block.ruler.before("code", "depth", self._refuse_depth)
        env: MutableMapping[str, Any] = {}
        for token in self._parser.parse(body, env):
            if any(child.level > _MOST_INLINE_NESTED for child in token.children or ()):
                raise IssueError(
                    "this paragraph is nested too deeply",
                    place=f"{name}:{line + (token.map or [0])[0]}",
                    hint=f"Emphasis may be nested {_MOST_INLINE_NESTED} deep at most.",
                )
        self._references = env.get("references", {})

    def blocks(self, text: str) -> list[Token]:
        """The tokens of a part of the body."""
        tokens = self._parser.parse(text, self._env())
        self._finish(tokens)
        return tokens

    def words(self, text: str) -> list[Token]:
        """The tokens of one line of inline Markdown, such as a heading."""
        tokens = self._parser.parseInline(text, self._env())
        self._finish(tokens)
        return tokens

    def html(self, tokens: Sequence[Token]) -> str:
        """Sanitized HTML: only the tags of Markdown, no scripts."""
        raw = self._parser.renderer.render(tokens, self._parser.options, self._env())
        return nh3.clean(
            raw,
            tags=_TAGS,
            attributes=_ATTRIBUTES,
            url_schemes={"http", "https", "mailto"},
            link_rel=None,
        )

    def _refuse_depth(self, state: StateBlock, start: int, _end: int, _silent: bool) -> bool:  # noqa: FBT001 (markdown-it calls it so)
        """A block rule that matches nothing, and sees each block before the parser drops it."""
        if state.level > MOST_NESTED:
            raise IssueError(
                "lists or quotes are nested too deeply here",
                place=f"{self._name}:{self._line + start}",
                hint=f"Up to {MOST_NESTED // 2} lists may be nested. A line that begins with * * * "
                "or - - - is a list in a list: write \\* for a star, and --- alone for a rule.",
            )
        return False

    def _env(self) -> MutableMapping[str, Any]:
        return {"references": dict(self._references)}

    def _finish(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            token.tag = _HEADINGS.get(token.tag, token.tag)
            for key in ("href", "src"):
                if key in token.attrs:
                    token.attrs[key] = self._in_url(str(token.attrs[key]))
            # Emails have no syntax highlighting, so drop the language of code.
            token.info = ""
            if token.type == "image":
                # The renderer would drop code from the alternative text.
                token.children = [Token("text", "", 0, content=_plain(token.children or ()))]
            self._finish(token.children or ())


def _plain(tokens: Sequence[Token]) -> str:
    """The text without markup."""
    return "".join(
        " " if token.type in {"softbreak", "hardbreak"}
        else _plain(token.children) if token.children else token.content
        for token in tokens
    )  # fmt: skip


def _allowed(url: str) -> bool:
    return bool(_ALLOWED_LINK.match(url))
