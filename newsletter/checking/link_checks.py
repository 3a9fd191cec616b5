"""Checks that links and images work for every reader."""

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import PERSONAL, Link
from newsletter.provider.dns_lookups import is_public_name

_MAILBOX = re.compile(r"[^@\s<>,;:\"]+@[^@\s<>,;:\"]+\.[^@\s<>,;:\".]+")
#: What may follow these schemes, what is wrong with other text, and the remedy.
_NOT_WEB = {
    "mailto": (_MAILBOX, "is not an email address", "Write mailto:editors@example.com."),
    # RFC 3966, without parameters.
    "tel": (
        re.compile(r"\+?[\d().-]{3,30}"),
        "is not a telephone number",
        "Write tel:+4930123456, without spaces.",
    ),
}
#: Text that looks like a link but is shown as text.
_BROKEN_LINK = re.compile(r"\]\(|\]\[")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def well_formed(case: CheckContext) -> Iterator[CheckFinding]:
    """Report links that do not lead to a valid web page or mailbox."""
    own = urlsplit(case.publication.base_url).hostname
    for link in case.body.links:
        if why := fault(link.url, own):
            yield CheckFinding(f"{shown(link)} {why[0]}", why[1], link.line)
        elif not link.words:
            yield CheckFinding(f"{shown(link)} has no link text", "Write it: [text](…).", link.line)
    for words in case.body.words:
        if _BROKEN_LINK.search(words.text):
            yield CheckFinding(
                f"“{_short(words.text)}” looks like a link, but is shown as text",
                "Write [text](https://…), without spaces in the address; a label such as "
                "[text][label] needs a line [label]: https://…",
                words.line,
            )


def images(case: CheckContext) -> Iterator[CheckFinding]:
    """Report images without alternative text, and without the width that Outlook needs."""
    widest = case.rules.images.widest
    for image in case.body.images:
        if why := fault(image.url, None):
            yield CheckFinding(f"the image at {shown(image)} {why[0]}", why[1], image.line)
            continue
        if not image.words:
            yield CheckFinding(
                f"the image {shown(image)} has no alternative text",
                "Write what it shows: ![Latency before and after](…).",
                image.line,
            )
        if not re.fullmatch(r"[1-9]\d{0,3}", image.width):
            yield CheckFinding(
                f"the image {shown(image)} has no width, so Outlook shows it at full size",
                f"Write it after the address: ![…](…){{width={widest}}}, at most {widest}.",
                image.line,
            )
        elif int(image.width) > widest:
            yield CheckFinding(
                f"the image {shown(image)} is {image.width} pixels wide; the column has "
                f"{widest}, and Outlook would widen it",
                f"Write {{width={widest}}}.",
                image.line,
            )


def _contact_fault(scheme: str, rest: str) -> tuple[str, str] | None:
    box = rest.partition("?")[0]
    pattern, fault, remedy = _NOT_WEB[scheme]
    return None if PERSONAL in box or pattern.fullmatch(box) else (fault, remedy)


def fault(url: str, own: str | None) -> tuple[str, str] | None:
    """What is wrong with an address and the remedy, or None; ``own`` is the publication's host."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() in _NOT_WEB:
        return _contact_fault(scheme.lower(), rest)
    if not colon or scheme.lower() not in {"http", "https"}:
        return (
            "is not a web address, so it stays text",
            "Begin it with https://, http://, mailto: or tel:.",
        )
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or ""), parts.port
        name = host if _is_address(host) else host.encode("idna").decode().lower()
    except ValueError:  # UnicodeError is one
        return "is not a valid web address", "Copy it from the browser's address bar."
    if parts.username is not None:
        return (
            "contains a user name, as phishing links do",
            "Remove the part before the @.",
        )
    if PERSONAL in name or name == own:
        return None
    if not _is_address(name) and not all(map(_LABEL.fullmatch, name.rstrip(".").split("."))):
        return "has an invalid host name", "Copy it from the browser's address bar."
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
    """An address as findings show it."""
    return _short(link.url.replace(PERSONAL, "{{…}}") or "(no address)")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
