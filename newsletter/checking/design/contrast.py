"""Checks the contrast of text and background in light and dark mode (WCAG 2.2, 1.4.3).

The colors are computed for each element of the rendered page from style sheets, style attributes
and inheritance. Background images are ignored.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter

from lxml.html import HtmlElement
from tinycss2.color3 import RGBA, parse_color

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.styles import Declaration, StyledPage, inline

_PROPERTIES = frozenset(
    {"color", "background", "background-color", "font-size", "font-weight", "font"}
    | {"display", "visibility"}
)
_WHITE, _BLACK = RGBA(1, 1, 1, 1), RGBA(0, 0, 0, 1)
#: The background in dark mode of a page without a background color.
_DARK_BACKGROUND = RGBA(0.07, 0.07, 0.07, 1)
_SIZE = re.compile(r"(?:^|\s)([\d.]+)(px|pt|em|rem|%)")
_PIXELS = {"px": 1.0, "pt": 4 / 3, "rem": 16.0}
_BOLD = {"b", "strong", "th", "h1", "h2", "h3", "h4", "h5", "h6"}
_UNSEEN = {"head", "style", "script", "title", "template"}
#: Importance, whether it is a style attribute, specificity, order. The greatest wins.
_Weight = tuple[bool, bool, tuple[int, int, int], int]


@dataclass(frozen=True, slots=True)
class TextStyle:
    """The look of text in an element: colors without transparency, size and weight."""

    color: RGBA
    behind: RGBA
    pixels: float = 16.0
    is_bold: bool = False

    @property
    def is_large(self) -> bool:
        """Whether WCAG requires less contrast."""
        return self.pixels >= 24 or (self.is_bold and self.pixels >= 18.66)


def contrast(case: CheckContext) -> Iterator[CheckFinding]:
    """Report each pair of colors with too little contrast once, with a sample of the text."""
    page, rules = case.page, case.rules.contrast
    for scheme in ("light", "dark"):
        reported = set()
        for look, words in texts(page, scheme):
            needed = float(rules.large if look.is_large else rules.text)
            ratio = _ratio(look.color, look.behind)
            pair = (hex_of(look.color), hex_of(look.behind))
            if ratio >= needed or pair in reported:
                continue
            reported.add(pair)
            sample = " ".join(words.split())
            yield CheckFinding(
                f"in {scheme} mode {pair[0]} on {pair[1]} has a contrast of {ratio:.2f}, and "
                f"{needed:g} is needed: “{sample[:40]}”",
                "Change one of them in the template: body.css, partials/head.mjml.",
                _line(case, sample),
            )


def texts(page: StyledPage, scheme: str) -> Iterator[tuple[TextStyle, str]]:
    """Every visible text with its style in ``light`` or ``dark`` mode."""
    styles = _computed(page, scheme)
    start = TextStyle(_BLACK, _WHITE) if scheme == "light" else TextStyle(_WHITE, _DARK_BACKGROUND)
    looks: dict[HtmlElement, TextStyle | None] = {}
    for element in page.elements():
        parent = element.getparent()
        above = start if parent is None else looks.get(parent)
        own = styles.get(element, {})
        looks[element] = None if above is None else _style(element, own, above)
        for look, text in ((looks[element], element.text), (above, element.tail)):
            if look is not None and text and any(letter.isalnum() for letter in text):
                yield look, text


def _style(element: HtmlElement, own: Mapping[str, str], above: TextStyle) -> TextStyle | None:
    if element.tag in _UNSEEN or own.get("display") == "none" or own.get("visibility") == "hidden":
        return None
    behind = _color(own.get("background-color") or own.get("background") or element.get("bgcolor"))
    color = _color(own.get("color") or element.get("color"))
    look = above
    if behind is not None:
        look = replace(look, behind=_over(behind, above.behind))
    if color is not None:
        look = replace(look, color=_over(color, look.behind))
    if size := _SIZE.search(own.get("font-size") or own.get("font") or ""):
        number, unit = float(size[1]), size[2]
        factor = _PIXELS.get(unit) or above.pixels * (0.01 if unit == "%" else 1)
        look = replace(look, pixels=number * factor)
    weight = own.get("font-weight") or ("bold" if element.tag in _BOLD else "")
    if weight:
        is_bold = weight in {"bold", "bolder"} or (weight.isdecimal() and int(weight) >= 700)
        look = replace(look, is_bold=is_bold)
    return look


def _computed(page: StyledPage, scheme: str) -> dict[HtmlElement, dict[str, str]]:
    """Element → property → the value that wins."""
    found: defaultdict[HtmlElement, list[tuple[_Weight, Declaration]]] = defaultdict(list)
    for order, rule in enumerate(page.rules):
        if not _applies(rule.media, scheme) or not _PROPERTIES & {
            d.name for d in rule.declarations
        }:
            continue
        for selector in rule.parsed:
            strength = selector.specificity()
            for element in page.matching(selector):
                found[element] += [
                    ((one.is_important, False, strength, order), one) for one in rule.declarations
                ]
    for element in page.elements():
        found[element] += [((one.is_important, True, (0, 0, 0), 0), one) for one in inline(element)]
    return {
        # Among equals the last wins, as in a dictionary.
        element: {one.name: one.value for _, one in sorted(declared, key=itemgetter(0))}
        for element, declared in found.items()
    }


def _applies(media: str, scheme: str) -> bool:
    """Whether a rule applies on a wide screen of this scheme; other conditions are for phones."""
    if not media:
        return True
    return media in {"screen", "all"} or f"prefers-color-scheme: {scheme}" in media


def _color(value: str | None) -> RGBA | None:
    """The first color in a value; None without a color, or for one that only a browser knows."""
    for word in re.findall(r"[a-z-]++\([^()]*+\)|[^\s,]+", value or ""):
        color = parse_color(word)
        if isinstance(color, RGBA):
            return color
    return None


def _over(color: RGBA, behind: RGBA) -> RGBA:
    """Blend a transparent color with the one behind it."""
    alpha = color.alpha
    red, green, blue = (
        alpha * front + (1 - alpha) * back
        for front, back in zip(color[:3], behind[:3], strict=True)
    )
    return RGBA(red, green, blue, 1)


def _ratio(one: RGBA, other: RGBA) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: RGBA) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (min(max(part, 0.0), 1.0) for part in color[:3])
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def hex_of(color: RGBA) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in color[:3])


def _line(case: CheckContext, sample: str) -> int | None:
    """The line of the issue with this text; None for text of the template."""
    lines = case.draft.source.split("\n")
    return next((n for n, line in enumerate(lines, 1) if sample[:40] in line), None)
