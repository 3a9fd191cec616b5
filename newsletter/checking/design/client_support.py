"""Checks which HTML, CSS and image formats email clients do not support (caniemail.com)."""

import re
from collections.abc import Iterator

from newsletter.checking.caniemail_data import support
from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.styles import Declaration, StyledPage, inline

_FUNCTION = re.compile(r"(?<![a-z-])([a-z-]++)\(")
_UNIT = re.compile(r"(?<![\w#.-])(?:\d++(?:\.\d++)?|\.\d++)([a-z]++)\b")
_PSEUDO = re.compile(r"(?<!\\):{1,2}([a-z-]+)")
_FEATURE = re.compile(r"\(\s*([a-z-]+)")
#: The format of an image in its address.
_FORMAT = re.compile(r"(data):|\.([a-z0-9]{2,4})(?:[?#]|$)", re.IGNORECASE)


def clients(case: CheckContext) -> Iterator[CheckFinding]:
    """Report each feature once that a listed client does not support, with the line if known."""
    data, rules = support(), case.rules.clients
    used = {**dict.fromkeys(_of_page(case.page)), **_of_images(case)}
    for feature in data.features:
        signs = [sign for sign in used if sign in feature.finds]
        missing = [client for client in rules.matter if client in feature.unknown]
        if not signs or not missing or feature.slug in rules.harmless:
            continue
        yield CheckFinding(
            f"{feature.title} is not supported by {', '.join(data.names[one] for one in missing)}",
            f"See https://www.caniemail.com/features/{feature.slug}/. If it does no harm, add "
            f"{feature.slug} to clients.harmless.",
            next((used[sign] for sign in signs if used[sign]), None),
        )


def _of_images(case: CheckContext) -> dict[str, int]:
    """Formats of the issue's images → the line of the first one."""
    found: dict[str, int] = {}
    for image in case.body.images:
        if match := _FORMAT.search(image.url.partition("?")[0]):
            found.setdefault(f"image:{(match[1] or match[2]).lower()}", image.line)
    return found


def _of_page(page: StyledPage) -> Iterator[str]:
    """The features that a page uses, in the notation of ``Feature.finds``."""
    for element in page.elements():
        yield f"element:{element.tag}"
        yield from (f"attribute:{name}" for name in element.attrib)
        declared = inline(element)
        # With collapsed borders, border-spacing has no effect (CSS 2.2, 17.6.1). MJML writes both
        # for each image.
        collapses = any(
            (one.name, one.value) == ("border-collapse", "collapse") for one in declared
        )
        for one in declared:
            if not (collapses and one.name == "border-spacing"):
                yield from _of_declaration(one)
    for rule in page.rules:
        for one in rule.declarations:
            yield from _of_declaration(one)
        yield from (f"pseudo:{name}" for name in _PSEUDO.findall(rule.selectors))
        yield from (f"selector:{sign}" for sign in "[~" if sign in rule.selectors)
    for at in page.at_rules:
        yield f"at:{at.name}"
        if at.name == "media":
            yield from (f"media:{name}" for name in _FEATURE.findall(at.condition))


def _of_declaration(one: Declaration) -> Iterator[str]:
    yield f"property:{one.name}"
    yield f"value:{one.name}:{one.value}"
    yield from (f"function:{name}" for name in _FUNCTION.findall(one.value))
    yield from (f"unit:{name}" for name in _UNIT.findall(one.value))
