"""Renders the text part from the Markdown, not from the HTML, so that it reads well.

Lines have up to 72 columns; words, addresses and tags are never broken. Links are numbered and
listed below the section or entry.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

_WIDTH = 72
#: The least width of text in deeply nested lists.
_NARROWEST = 24
RULE = "-" * _WIDTH
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(slots=True)
class PlainText:
    """Renders tokens as text and numbers their links."""

    links: dict[str, int] = field(default_factory=dict)

    def blocks(self, tokens: Sequence[Token]) -> str:
        """Blocks such as paragraphs and lists, separated by empty lines."""
        return self._blocks(SyntaxTreeNode(tokens).children, _WIDTH)

    def words(self, tokens: Sequence[Token]) -> str:
        """Inline Markdown on one line."""
        return " ".join(self._inline(SyntaxTreeNode(tokens).children).split())

    def link(self, label: str, url: str, *, bare: bool = False) -> str:
        """``label [1]``, or the address alone where it is its own label.

        ``bare`` says that it was written as an address alone; then ``mailto:`` is dropped.
        """
        shown = url.removeprefix("mailto:").removeprefix("tel:")
        if label in {url, shown}:
            return shown if bare else label
        number = self.links.setdefault(shown, len(self.links) + 1)
        return f"{label} [{number}]".lstrip()

    def footnotes(self) -> str:
        """The list of numbered links, empty without links."""
        return "\n".join(f"[{number}] {url}" for url, number in self.links.items())

    def _blocks(self, nodes: Sequence[SyntaxTreeNode], width: int, *, tight: bool = False) -> str:
        made = [self._block(node, width) for node in nodes]
        return ("\n" if tight else "\n\n").join(text for text in made if text)

    def _block(self, node: SyntaxTreeNode, width: int) -> str:
        match node.type:
            case "paragraph" | "dt":
                return wrapped(self._inline(node.children), width)
            case "heading":
                return heading(self._inline(node.children), "-" if node.tag == "h2" else "")
            case "bullet_list" | "ordered_list":
                return self._list(node, width)
            case "blockquote" | "dd":
                prefix = "> " if node.type == "blockquote" else "    "
                return _prefixed(self._blocks(node.children, width - len(prefix)), prefix)
            case "fence" | "code_block":
                return _prefixed(node.content.rstrip("\n"), "    ")
            case "hr":
                return "* * *"
            case "table":
                return self._table(node, width)
            case "footnote_block":
                return "\n".join(self._footnote(note, width) for note in node.children)
            case _:
                return self._blocks(node.children, width, tight=node.type == "dl")

    def _list(self, node: SyntaxTreeNode, width: int) -> str:
        start = int(node.attrs.get("start", 1))
        items = []
        tight = _is_tight(node)
        for number, item in enumerate(node.children, start):
            bullet = f"{number}. " if node.type == "ordered_list" else "- "
            text = self._blocks(item.children, width - len(bullet), tight=tight)
            items.append(bullet + text.replace("\n", "\n" + " " * len(bullet)))
        return _bare("\n".join(items) if tight else "\n\n".join(items))

    def _table(self, node: SyntaxTreeNode, width: int) -> str:
        """Columns where they fit; otherwise each row as lines of ``heading: value``."""
        rows = [
            [" ".join(self._inline(cell.children).split()) for cell in row.children]
            for part in node.children
            for row in part.children
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            rows.insert(1, ["-" * one for one in widths])
            return _bare(
                "\n".join(
                    "  ".join(cell.ljust(one) for cell, one in zip(row, widths, strict=True))
                    for row in rows
                )
            )
        headings, *others = rows
        return "\n\n".join(
            "\n".join(
                wrapped(f"{heading}: {cell}" if heading else cell, width)
                for heading, cell in zip(headings, row, strict=True)
                if heading or cell
            )
            for row in others or [[""] * len(headings)]
        )

    def _footnote(self, node: SyntaxTreeNode, width: int) -> str:
        sign = f"{_raised(node.meta['id'])} "
        text = self._blocks(node.children, width - len(sign))
        return sign + _bare(text.replace("\n", "\n" + " " * len(sign)))

    def _inline(self, nodes: Sequence[SyntaxTreeNode]) -> str:
        return "".join(self._word(node) for node in nodes)

    def _word(self, node: SyntaxTreeNode) -> str:
        match node.type:
            case "text":
                return node.content
            case "softbreak":
                return " "
            case "hardbreak":
                return "\n"
            case "code_inline":
                return f"`{node.content}`"
            case "em" | "strong" | "s":
                mark = {"em": "_", "strong": "*", "s": "~~"}[node.type]
                return f"{mark}{self._inline(node.children)}{mark}"
            case "footnote_ref":
                return _raised(node.meta["id"])
            case "link":
                label, url = self._inline(node.children), str(node.attrs["href"])
                return self.link(label, url, bare=node.markup == "autolink")
            case "image":
                alt = self._inline(node.children)
                return f"[{alt}]" if alt else ""
            case _:
                return self._inline(node.children)


def heading(words: str, underline: str) -> str:
    """A heading, underlined to the length of its longest line."""
    text = wrapped(words)
    longest = max(map(len, text.split("\n")))
    return f"{text}\n{underline * longest}" if underline and text else text


def wrapped(text: str, width: int = _WIDTH) -> str:
    """Wrap text at ``width`` columns, at spaces only; existing line breaks stay."""
    width = max(width, _NARROWEST)
    return "\n".join(
        line
        for part in text.split("\n")
        for line in textwrap.wrap(part, width, break_long_words=False, break_on_hyphens=False)
    )


def joined(*parts: str) -> str:
    """The parts that are not empty, separated by empty lines."""
    return "\n\n".join(part for part in parts if part)


def _raised(index: int) -> str:
    """The number of a footnote, whose index begins at 0, in raised digits."""
    return str(index + 1).translate(_RAISED)


def _is_tight(node: SyntaxTreeNode) -> bool:
    """Whether the author wrote the items without empty lines between them."""
    return all(
        child.hidden
        for item in node.children
        for child in item.children
        if child.type == "paragraph"
    )


def _prefixed(text: str, prefix: str) -> str:
    return _bare("\n".join(prefix + line for line in text.split("\n")))


def _bare(text: str) -> str:
    """The text without trailing whitespace on its lines."""
    return "\n".join(line.rstrip() for line in text.split("\n"))
