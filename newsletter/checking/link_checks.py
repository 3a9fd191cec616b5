"""Whether links and pictures are such that every reader can follow and see them."""

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.manuscript import PERSONAL, Link
from newsletter.provider.dns_lookups import is_public_name

_MAILBOX = re.compile(r"[^@\s<>,;:\"]+@[^@\s<>,;:\"]+\.[^@\s<>,;:\".]+")
#: Words that look as if a link was meant, and are shown as they stand.
_HALF_A_LINK = re.compile(r"\]\(|\]\[")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def well_formed(case: CheckContext) -> Iterator[CheckFinding]:
    """Every link leads to a web page or mailbox that there can be."""
    own = urlsplit(case.publication.base_url).hostname
    for link in case.manuscript.links:
        if why := fault(link.url, own):
            yield CheckFinding(f"{shown(link)} {why[0]}", why[1], link.line)
        elif not link.words:
            yield CheckFinding(
                f"{shown(link)} has no words to click on", "Write them: [words](…).", link.line
            )
    for words in case.manuscript.words:
        if _HALF_A_LINK.search(words.text):
            yield CheckFinding(
                f"“{_short(words.text)}” looks like a link, but is shown as it stands",
                "A link is [words](https://…), without blanks in the address; a label such as "
                "[words][label] needs a line [label]: https://…",
                words.line,
            )


def images(case: CheckContext) -> Iterator[CheckFinding]:
    """Pictures have words for who does not see them, and a size for who sees them at Outlook."""
    widest = case.rules.images.widest
    for image in case.manuscript.images:
        if why := fault(image.url, None):
            yield CheckFinding(f"the picture at {shown(image)} {why[0]}", why[1], image.line)
            continue
        if not image.words:
            yield CheckFinding(
                f"the picture {shown(image)} has no words for who does not see it",
                "Write what it shows: ![Latency before and after](…).",
                image.line,
            )
        if not re.fullmatch(r"[1-9]\d{0,3}", image.width):
            yield CheckFinding(
                f"the picture {shown(image)} has no width: Outlook shows it at its full size",
                f"Write it behind the address: ![…](…){{width={widest}}}, {widest} at most.",
                image.line,
            )
        elif int(image.width) > widest:
            yield CheckFinding(
                f"the picture {shown(image)} is {image.width} pixels wide; the column has "
                f"{widest}, and Outlook makes it wider",
                f"Write {{width={widest}}}.",
                image.line,
            )


def fault(url: str, own: str | None) -> tuple[str, str] | None:
    """What is wrong with an address and how to mend it, or nothing; ``own`` is the house's host."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() == "mailto":
        box = rest.partition("?")[0]
        if PERSONAL in box or _MAILBOX.fullmatch(box):
            return None
        return "is no address of a mailbox", "Write mailto:editors@example.com."
    if not colon or scheme.lower() not in {"http", "https"}:
        return (
            "is no address of a web page, so it stays text",
            "It begins with https://, http:// or mailto:.",
        )
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or ""), parts.port
        name = host if _is_address(host) else host.encode("idna").decode().lower()
    except ValueError:  # UnicodeError is one
        return "cannot be read as a web address", "Copy it from the browser's address line."
    if parts.username is not None:
        return (
            "has a user name in it, as the addresses of deceivers do",
            "Remove what stands before the @.",
        )
    if PERSONAL in name or name == own:
        return None
    if not _is_address(name) and not all(map(_LABEL.fullmatch, name.rstrip(".").split("."))):
        return "names a host that cannot be", "Copy it from the browser's address line."
    if not is_public_name(name):
        return f"leads to {name}, which readers cannot reach", "Write the public address."
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def shown(link: Link) -> str:
    """An address as findings call it."""
    return _short(link.url.replace(PERSONAL, "{{…}}") or "(no address)")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
