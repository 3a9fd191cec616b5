"""Requests the links and images of an issue, if the caller asks for it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.link_checks import fault, shown
from newsletter.checking.network.http_probe import HttpAnswer, ask
from newsletter.checking.parsed_body import Link

#: An issue has some dozens of links; thousands of requests would be an attack.
_MOST = 300
#: Statuses with which sites refuse unknown programs, although readers may see the page.
_REFUSES_PROGRAMS = frozenset({401, 403, 405, 406, 429, 451, 999})


def dead_links_of(case: CheckContext) -> Iterator[CheckFinding]:
    """Request each address once, but none with personal values."""
    if not case.ask_links:
        return
    body, rules = case.body, case.rules.dead_links
    own = urlsplit(case.publication.base_url).hostname
    links = [
        link
        for link in (*body.links, *body.images)
        if not (
            link.is_personal
            or link.url.lower().startswith(("mailto:", "tel:"))
            or fault(link.url, own)
        )
    ]
    urls = list(dict.fromkeys(link.url for link in links))
    if len(urls) > _MOST:
        yield CheckFinding(
            f"only the first {_MOST} of {len(urls):,} links are checked", is_note=True
        )
    answers = ask(
        urls[:_MOST],
        patience=rules.patience,
        at_once=rules.at_once,
        private_networks=rules.private_networks,
    )
    for link in links:
        if link.url in answers:
            yield from _judged(link, answers[link.url])


def _judged(link: Link, answer: HttpAnswer) -> Iterator[CheckFinding]:
    hint = "Correct it, or remove it."
    if answer.status is None:
        yield CheckFinding(f"{shown(link)}: {answer.why}", hint, link.line)
    elif answer.status in _REFUSES_PROGRAMS:
        message = f"{shown(link)} answers {answer.status} to programs; open it in a browser"
        yield CheckFinding(message, line=link.line, is_note=True)
    elif answer.status >= 400:
        yield CheckFinding(f"{shown(link)} answers {answer.status}", hint, link.line)
    elif link.is_image and not answer.content_type.startswith("image/"):
        kind = answer.content_type or "a file without a type"
        yield CheckFinding(f"{shown(link)} is not an image, but {kind}", hint, link.line)
