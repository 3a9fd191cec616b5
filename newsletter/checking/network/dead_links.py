"""Whether something answers where links and pictures lead; asked only when somebody wants it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.link_checks import fault, shown
from newsletter.checking.manuscript import Link
from newsletter.checking.network.http_probe import Answer, ask

#: An issue has some dozens of links; thousands would be an attack on somebody.
_MOST = 300
#: How sites answer programs that they do not know; people may well see the page.
_KEPT_OUT = frozenset({401, 403, 405, 406, 429, 451, 999})


def dead_links_of(case: CheckContext) -> Iterator[CheckFinding]:
    """Every address is asked once; those with a person's values in them are nobody's page."""
    if not case.ask_links:
        return
    manuscript, rules = case.manuscript, case.rules.dead_links
    own = urlsplit(case.publication.base_url).hostname
    links = [
        link
        for link in (*manuscript.links, *manuscript.images)
        if not (link.is_personal or link.url.lower().startswith("mailto:") or fault(link.url, own))
    ]
    urls = list(dict.fromkeys(link.url for link in links))
    if len(urls) > _MOST:
        yield CheckFinding(f"of {len(urls):,} links only the first {_MOST} are asked", is_note=True)
    answers = ask(
        urls[:_MOST],
        patience=rules.patience,
        at_once=rules.at_once,
        private_networks=rules.private_networks,
    )
    for link in links:
        if link.url in answers:
            yield from _said(link, answers[link.url])


def _said(link: Link, answer: Answer) -> Iterator[CheckFinding]:
    hint = "Correct it, or remove it."
    if answer.status is None:
        yield CheckFinding(f"{shown(link)}: {answer.why}", hint, link.line)
    elif answer.status in _KEPT_OUT:
        said = f"{shown(link)} answers {answer.status} to programs, so look yourself"
        yield CheckFinding(said, line=link.line, is_note=True)
    elif answer.status >= 400:
        yield CheckFinding(f"{shown(link)} answers {answer.status}", hint, link.line)
    elif link.is_image and not answer.content_type.startswith("image/"):
        kind = answer.content_type or "something without a type"
        yield CheckFinding(f"{shown(link)} is no picture, but {kind}", hint, link.line)
