"""Adapter for markdown-it: parses an issue's Markdown into tokens for HTML and text.

The syntax is CommonMark with GitHub's tables, strikethrough, task lists, bare addresses and
footnotes (https://github.github.com/gfm), and with definition lists. Raw HTML is shown as text.
Links to anything but web pages, mailboxes and telephones stay text as well. Link definitions
(``[label]: https://…``) apply to the whole body, although its parts are rendered one by one.
"""

import re
from collections.abc import Callable, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.attrs import attrs_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.gfm_autolink import gfm_autolink_plugin

from newsletter.errors import IssueError

_ALLOWED_LINK = re.compile(r"https?://[^/\s]|mailto:[^\s]|tel:[+\d]", re.IGNORECASE)
#: How deep lists and quotes may be nested; a list and its item count as two levels.
MOST_NESTED = 40
#: The parser drops what is deeper than this, so MOST_NESTED has to be less.
PARSER_LIMIT = MOST_NESTED + 10
_MOST_INLINE_NESTED = 50
#: Characters of all headings of tables, each counted once for each row of its table.
_MOST_LABELS = 2_000_000
#: Attributes allowed in braces after an image: ``![…](…){width=512}``.
SIZES = ("width", "height")
_TAGS = {
    "p", "br", "hr", "h2", "h3", "h4", "ul", "ol", "li", "blockquote", "pre", "code",
    "em", "strong", "s", "sup", "a", "img", "dl", "dt", "dd", "span",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_CLASSES = {
    "ul": {"tasks"}, "ol": {"tasks", "notes"}, "span": {"label"},
    "th": {"left", "center", "right"}, "td": {"left", "center", "right"},
}  # fmt: skip
#: The boxes of a task list; emails cannot have form elements.
_DONE, _OPEN = "\N{BALLOT BOX WITH CHECK} ", "\N{BALLOT BOX} "
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title", *SIZES}, "ol": {"start"}}
#: What may be a bare address, from where each rule of the plugin looks at it: from ``www.``, from
#: the colon, and from the ``@``. Longer ones stay text.
_BARE_ADDRESSES = {
    "gfm_autolink_www": re.compile(r"www\.(?=[^\s/?#:*]{1,300}+(?:[\s/?#:*]|\Z))\S{1,2000}+(?!\S)"),
    "gfm_autolink_protocol": re.compile(
        r"(?<=http|ttps)://(?=[^\s/?#:*]{1,300}+(?:[\s/?#:*]|\Z))\S{1,2000}+(?!\S)"
        r"|(?<=mailto):[A-Za-z0-9.+_-]{1,100}+@[A-Za-z0-9._-]{1,300}+(?!@)"
    ),
    "gfm_autolink_email": re.compile(r"@[A-Za-z0-9._-]{1,300}+(?![A-Za-z0-9._@-])"),
}
#: The most characters before the ``@`` of a bare address, with ``mailto:``.
_MOST_BEFORE = 200
#: The title of the issue is the h1, so headings of the body begin at h2.
_HEADINGS = {"h1": "h2", "h2": "h2", "h3": "h3", "h4": "h4", "h5": "h4", "h6": "h4"}


class Markdown:
    """The Markdown of one body; ``in_url`` is applied to every address in it."""

    def __init__(self, body: str, *, in_url: Callable[[str], str], name: str, line: int) -> None:
        """``line`` is the body's first line in the file ``name``.

        Raises IssueError where lists, quotes, emphasis or links are nested too deeply.
        """
        self._parser = new_parser()
        # markdown-it documents replacing this method as the way to decide on links.
        self._parser.validateLink = _allowed  # type: ignore[method-assign]
        self._in_url, self._body = in_url, body
        self._name, self._line = name, line
        self._parser.block.ruler.before("code", "depth", self._refuse_depth)
        env: MutableMapping[str, Any] = {}
        tokens = self._parser.parse(body, env)
        self._refuse_labels(tokens)
        for token in tokens:
            if any(child.level > _MOST_INLINE_NESTED for child in token.children or ()):
                raise IssueError(
                    "this paragraph is nested too deeply",
                    place=f"{name}:{line + (token.map or [0])[0]}",
                    hint=f"Emphasis may be nested {_MOST_INLINE_NESTED} deep at most.",
                )
        self._references = env.get("references", {})

    def blocks(self, text: str) -> list[Token]:
        """The tokens of a part of the body.

        Raises IssueError for a footnote that nothing in this part refers to.
        """
        env = self._env()
        tokens = self._parser.parse(text, env)
        for name, number in env.get("footnotes", {}).get("refs", {}).items():
            if number < 0:
                self._refuse_footnote(f"[^{name.removeprefix(':')}]")
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
            allowed_classes=_CLASSES,
            url_schemes={"http", "https", "mailto", "tel"},
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

    def _refuse_labels(self, tokens: Sequence[Token]) -> None:
        """Refuse tables whose headings, repeated in each row, would be a huge email."""
        headings = written = start = 0
        for token, text in pairwise(tokens):
            if token.type == "table_open":
                headings, start = 0, (token.map or [0])[0]
            elif token.type == "th_open":
                headings += len(text.content)
            elif token.type == "tr_open":
                written += headings
                if written > _MOST_LABELS:
                    raise IssueError(
                        "the headings of this table are too long for so many rows",
                        place=f"{self._name}:{self._line + start}",
                        hint="Each row repeats them, on phones and in the text part. Shorten the "
                        "headings, or link to a page with the table.",
                    )

    def _refuse_footnote(self, label: str) -> None:
        above, _, _ = self._body.partition(f"{label}:")
        raise IssueError(
            f"nothing refers to the footnote {label} in this part, so nobody would see it",
            place=f"{self._name}:{self._line + above.count(chr(10))}",
            hint=f"Write {label} where it belongs. In a digest, a footnote stands in the same "
            "section or entry.",
        )

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
            _set_class(token)
            if token.type == "image":
                # The renderer would drop code from the alternative text.
                token.children = [Token("text", "", 0, content=_plain(token.children or ()))]
            self._finish(token.children or ())
        _add_boxes(tokens)
        _add_labels(tokens)


def new_parser() -> MarkdownIt:
    """A parser of this syntax; what it does with links is up to the caller."""
    parser = MarkdownIt(
        "commonmark", {"html": False, "tasklists": True, "maxNesting": PARSER_LIMIT}
    )
    parser.enable(["table", "strikethrough"])
    parser.use(attrs_plugin, after=("image",), allowed=SIZES)
    parser.use(gfm_autolink_plugin).use(footnote_plugin, inline=False).use(deflist_plugin)
    ruler = parser.inline.ruler
    for name, rule in zip(ruler.get_active_rules(), ruler.getRules(), strict=True):
        if name.startswith("gfm_autolink"):
            ruler.at(name, _bare_address(rule, _BARE_ADDRESSES[name]))
    # An address that is its own text is shown as it was written.
    parser.normalizeLinkText = str  # type: ignore[method-assign, assignment]
    for token, html in _FOOTNOTE_HTML.items():
        parser.add_render_rule(token, html)
    return parser


def _bare_address(
    rule: Callable[[StateInline, bool], bool], address: re.Pattern[str]
) -> Callable[[StateInline, bool], bool]:
    """The rule of the plugin for bare addresses, without its loss of text and its slowness.

    It drops the characters before the position although it makes no link of them, and it may read
    the whole paragraph at each colon. So it sees only what ``address`` matches at the position,
    and the end of the text before it.
    """

    def kept(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 (markdown-it calls it so)
        found = None if silent else address.match(state.src, state.pos, state.posMax)
        if found is None:
            return False
        if len(state.pending) > _MOST_BEFORE:
            before = state.pending
            state.pending = before[:-_MOST_BEFORE]
            state.pushPending()
            state.pending = before[-_MOST_BEFORE:]
        before, end = state.pending, state.posMax
        state.posMax = found.end()
        try:
            if rule(state, silent):
                return True
        finally:
            state.posMax = end
        state.pending = before
        return False

    return kept


def _of_footnote(html: str) -> Callable[..., str]:
    def made(_self: object, tokens: Sequence[Token], index: int, *_: object) -> str:
        return html.format(number=int(tokens[index].meta.get("id", -1)) + 1)

    return made


#: Without links between text and note, because most mail programs do not follow them.
_FOOTNOTE_HTML = {
    "footnote_ref": _of_footnote("<sup>{number}</sup>"),
    "footnote_block_open": _of_footnote('<hr><ol class="notes">\n'),
    "footnote_block_close": _of_footnote("</ol>\n"),
    "footnote_open": _of_footnote("<li>"),
    "footnote_close": _of_footnote("</li>\n"),
    "footnote_anchor": _of_footnote(""),
}


def _set_class(token: Token) -> None:
    """Replace classes and styles of the parser by those of body.css."""
    style = str(token.attrs.pop("style", ""))
    name = str(token.attrs.pop("class", ""))
    if style.startswith("text-align:"):
        token.attrs["class"] = style.removeprefix("text-align:")
    elif name == "contains-task-list":
        token.attrs["class"] = "tasks"


def _add_boxes(tokens: Sequence[Token]) -> None:
    """Begin each task with a box in its text."""
    for token, text in zip(tokens, tokens[2:], strict=False):
        if token.type == "list_item_open" and "checked" in token.meta:
            box = _DONE if token.meta.pop("checked") else _OPEN
            text.children = [Token("text", "", 0, content=box), *(text.children or ())]


def _add_labels(tokens: Sequence[Token]) -> None:
    """Begin each cell with its column's heading, which is shown on phones, where rows are stacked.

    The text part has no such tokens.
    """
    headings: list[str] = []
    column = 0
    for token, text in pairwise(tokens):
        if token.type == "table_open":
            headings = []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            headings.append(_plain(text.children or ()))
        elif token.type == "td_open":
            if headings[column] and text.children:
                label = f'<span class="label">{escapeHtml(headings[column])}: </span>'
                text.children = [Token("html_inline", "", 0, content=label), *text.children]
            column += 1


def _plain(tokens: Sequence[Token]) -> str:
    """The text without markup."""
    return "".join(
        " " if token.type in {"softbreak", "hardbreak"}
        else _plain(token.children) if token.children else token.content
        for token in tokens
    )  # fmt: skip


def _allowed(url: str) -> bool:
    return bool(_ALLOWED_LINK.match(url))
