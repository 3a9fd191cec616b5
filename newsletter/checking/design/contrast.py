"""Whether text stands out from what is behind it, in light and in dark (WCAG 2.2, 1.4.3).

The colours are those that the finished page comes to, element by element: style sheets,
style attributes and what is inherited. Pictures behind text are not looked at.
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
#: What browsers put behind a page that asks for dark and says no more.
_NIGHT = RGBA(0.07, 0.07, 0.07, 1)
_SIZE = re.compile(r"(?:^|\s)([\d.]+)(px|pt|em|rem|%)")
_PIXELS = {"px": 1.0, "pt": 4 / 3, "rem": 16.0}
_BOLD = {"b", "strong", "th", "h1", "h2", "h3", "h4", "h5", "h6"}
_UNSEEN = {"head", "style", "script", "title", "template"}
#: Importance, whether of a style attribute, specificity, order: the greatest wins.
_Weight = tuple[bool, bool, tuple[int, int, int], int]


@dataclass(frozen=True, slots=True)
class ColorScheme:
    """How text looks in an element: colours without transparency, its size and weight."""

    colour: RGBA
    behind: RGBA
    pixels: float = 16.0
    is_bold: bool = False

    @property
    def is_large(self) -> bool:
        """Whether WCAG asks for less contrast."""
        return self.pixels >= 24 or (self.is_bold and self.pixels >= 18.66)


def contrast(case: CheckContext) -> Iterator[CheckFinding]:
    """Each pair of colours that is too much alike is told once, with words that have it."""
    page, rules = case.page, case.rules.contrast
    for scheme in ("light", "dark"):
        told = set()
        for look, words in texts(page, scheme):
            needed = float(rules.large if look.is_large else rules.text)
            ratio = _ratio(look.colour, look.behind)
            pair = (hex_of(look.colour), hex_of(look.behind))
            if ratio >= needed or pair in told:
                continue
            told.add(pair)
            sample = " ".join(words.split())
            yield CheckFinding(
                f"in {scheme} mode {pair[0]} on {pair[1]} has a contrast of {ratio:.2f}, and "
                f"{needed:g} is needed: “{sample[:40]}”",
                "Change one of them in the template: body.css, partials/head.mjml.",
                _line(case, sample),
            )


def texts(page: StyledPage, scheme: str) -> Iterator[tuple[ColorScheme, str]]:
    """Every stretch of text that is seen, with its look in ``light`` or ``dark``."""
    styles = _computed(page, scheme)
    start = ColorScheme(_BLACK, _WHITE) if scheme == "light" else ColorScheme(_WHITE, _NIGHT)
    looks: dict[HtmlElement, ColorScheme | None] = {}
    for element in page.elements():
        parent = element.getparent()
        above = start if parent is None else looks.get(parent)
        own = styles.get(element, {})
        looks[element] = None if above is None else _look(element, own, above)
        for look, text in ((looks[element], element.text), (above, element.tail)):
            if look is not None and text and any(letter.isalnum() for letter in text):
                yield look, text


def _look(element: HtmlElement, own: Mapping[str, str], above: ColorScheme) -> ColorScheme | None:
    if element.tag in _UNSEEN or own.get("display") == "none" or own.get("visibility") == "hidden":
        return None
    behind = _colour(own.get("background-color") or own.get("background") or element.get("bgcolor"))
    colour = _colour(own.get("color") or element.get("color"))
    look = above
    if behind is not None:
        look = replace(look, behind=_over(behind, above.behind))
    if colour is not None:
        look = replace(look, colour=_over(colour, look.behind))
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
    said: defaultdict[HtmlElement, list[tuple[_Weight, Declaration]]] = defaultdict(list)
    for order, rule in enumerate(page.rules):
        if not _applies(rule.media, scheme) or not _PROPERTIES & {
            d.name for d in rule.declarations
        }:
            continue
        for selector in rule.parsed:
            strength = selector.specificity()
            for element in page.matching(selector):
                said[element] += [
                    ((one.is_important, False, strength, order), one) for one in rule.declarations
                ]
    for element in page.elements():
        said[element] += [((one.is_important, True, (0, 0, 0), 0), one) for one in inline(element)]
    return {
        # The last of equals wins, as in a dictionary.
        element: {one.name: one.value for _, one in sorted(found, key=itemgetter(0))}
        for element, found in said.items()
    }


def _applies(media: str, scheme: str) -> bool:
    """Whether a rule holds on a wide screen of this scheme; other conditions are of phones."""
    if not media:
        return True
    return media in {"screen", "all"} or f"prefers-color-scheme: {scheme}" in media


def _colour(value: str | None) -> RGBA | None:
    """The first colour of a value; None for none, and for what only a browser knows."""
    for word in re.findall(r"[a-z-]++\([^()]*+\)|[^\s,]+", value or ""):
        colour = parse_color(word)
        if isinstance(colour, RGBA):
            return colour
    return None


def _over(colour: RGBA, behind: RGBA) -> RGBA:
    """A colour that lets through some of what is behind it."""
    alpha = colour.alpha
    red, green, blue = (
        alpha * front + (1 - alpha) * back
        for front, back in zip(colour[:3], behind[:3], strict=True)
    )
    return RGBA(red, green, blue, 1)


def _ratio(one: RGBA, other: RGBA) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: RGBA) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (min(max(part, 0.0), 1.0) for part in colour[:3])
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def hex_of(colour: RGBA) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in colour[:3])


def _line(case: CheckContext, sample: str) -> int | None:
    """The line of the issue that has these words; None for words of the template."""
    lines = case.draft.source.split("\n")
    return next((n for n, line in enumerate(lines, 1) if sample[:40] in line), None)
