"""Parses the styles of a rendered page, and finds the elements that each rule applies to.

It covers as much of CSS as emails need: selectors by cssselect, rules and declarations by
tinycss2. It ignores conditional comments, which are for Outlook's old engine alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import tinycss2
from cssselect import SelectorError
from cssselect.parser import Selector, parse
from cssselect.xpath import HTMLTranslator
from lxml import etree, html
from lxml.html import HtmlElement

_TRANSLATOR = HTMLTranslator()


@dataclass(frozen=True, slots=True)
class Declaration:
    """``name: value``, both in lower case."""

    name: str
    value: str
    is_important: bool


@dataclass(frozen=True, slots=True)
class StyleRule:
    """Declarations for the elements that match; ``media`` is the condition of the media query."""

    selectors: str
    media: str
    declarations: Sequence[Declaration]

    @property
    def parsed(self) -> list[Selector]:
        """The parsed selectors; empty if they are invalid."""
        try:
            return parse(self.selectors)
        except SelectorError:
            return []


@dataclass(frozen=True, slots=True)
class AtRule:
    """``@name condition``."""

    name: str
    condition: str


@dataclass(frozen=True)
class StyledPage:
    """A page and its own style sheets."""

    root: HtmlElement

    @classmethod
    def of(cls, text: str) -> "StyledPage":
        """The page in this HTML."""
        return cls(html.document_fromstring(text))

    @cached_property
    def _sheets(self) -> list[StyleRule | AtRule]:
        texts = (style.text or "" for style in self.root.iter("style"))
        return [rule for text in texts for rule in _rules(text, "")]

    @property
    def rules(self) -> list[StyleRule]:
        """Every rule of the sheets, in their order."""
        return [rule for rule in self._sheets if isinstance(rule, StyleRule)]

    @property
    def at_rules(self) -> list[AtRule]:
        """Every at-rule of the sheets."""
        return [rule for rule in self._sheets if isinstance(rule, AtRule)]

    def elements(self) -> Iterator[HtmlElement]:
        """Every element, in the page's order."""
        return (one for one in self.root.iter() if isinstance(one.tag, str))

    def matching(self, selector: Selector) -> Sequence[HtmlElement]:
        """The elements that match a selector, without hover and similar states."""
        if selector.pseudo_element:
            return ()
        try:
            found = self.root.xpath(_TRANSLATOR.selector_to_xpath(selector))
        except (SelectorError, etree.XPathError):
            return ()
        return [one for one in found if isinstance(one, HtmlElement)]


def inline(element: HtmlElement) -> list[Declaration]:
    """The declarations of an element's style attribute."""
    return _declarations(tinycss2.parse_blocks_contents(element.get("style", "")))


def _rules(text: str, media: str) -> Iterator[StyleRule | AtRule]:
    yield from _read(tinycss2.parse_stylesheet(_bare(text), True, True), media)  # noqa: FBT003


def _read(nodes: Sequence[tinycss2.ast.Node], media: str) -> Iterator[StyleRule | AtRule]:
    for node in nodes:
        if node.type == "qualified-rule":
            found = _declarations(tinycss2.parse_blocks_contents(node.content))
            yield StyleRule(tinycss2.serialize(node.prelude).strip(), media, found)
        elif node.type == "at-rule":
            condition = " ".join(tinycss2.serialize(node.prelude).split()).lower()
            yield AtRule(node.lower_at_keyword, condition)
            if node.lower_at_keyword in {"media", "supports"} and node.content is not None:
                inner = tinycss2.parse_rule_list(node.content, True, True)  # noqa: FBT003
                yield from _read(inner, f"{media} {condition}".strip())


def _declarations(nodes: Sequence[tinycss2.ast.Node]) -> list[Declaration]:
    return [
        Declaration(
            node.lower_name,
            " ".join(tinycss2.serialize(node.value).split()).lower(),
            bool(node.important),
        )
        for node in nodes
        if node.type == "declaration"
    ]


def _bare(text: str) -> str:
    """The sheet without the comment marks that hide it from browsers of the last century."""
    return re.sub(r"<!--|-->", "", text)
