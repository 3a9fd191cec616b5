"""Checks what the text says: notes to oneself, old years, attachments, words that filters distrust.

The patterns run in linear time on text that is not code.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import line_of

#: The most findings of one check.
_MOST: Final = 20
_HEADLINES: Final = ("subject", "preheader", "title")
#: What writers leave for later: “TK” is a journalist's mark for what is to come.
_UNFINISHED: Final = re.compile(
    r"\b(?:TK(?:TK)*|TODO|TBD|TBA|FIXME|XXX+)\b|\blorem ipsum\b"
    r"|\[(?:insert|add|your|link|name|date|tk|todo)\b[^\[\]\n]{0,60}\](?!\()"
)
#: “© 2025” or “Copyright 2019–2025”.
_COPYRIGHT: Final = re.compile(
    r"(?:©|\(c\)|\bcopyright\b)[ \t]{0,3}(?:\d{4}[ \t]{0,3}[-–][ \t]{0,3})?"
    r"(?:19|20)\d\d\b",
    re.IGNORECASE,
)
_ATTACHED: Final = re.compile(
    r"\b(?:(?:please find|I have|I've|we have|we've)[ \t]{1,3}attached"
    r"|(?:see|find|open|in)[ \t]{1,3}the[ \t]{1,3}attach(?:ment|ed)s?\b"
    r"|attached[ \t]{1,3}(?:is|are|you will find)\b"
    r"|im[ \t]{1,3}anhang\b|en[ \t]{1,3}pi[èe]ce[ \t]{1,3}jointe\b)",
    re.IGNORECASE,
)


def unfinished(case: CheckContext) -> Iterator[CheckFinding]:
    """Report notes to oneself, such as TODO, and the year of last year's footer."""
    found = _found(case, _UNFINISHED)
    for words, line in islice(found, _MOST):
        yield CheckFinding(
            f"“{words}” looks like a note to yourself", "Write what is missing, or remove it.", line
        )
    for words, line in islice(_found(case, _COPYRIGHT), _MOST):
        year = int(words[-4:])
        if year < case.now.year:
            yield CheckFinding(
                f"“{words}” is not this year", f"Write {case.now.year}, or no year.", line
            )


def attachment(case: CheckContext) -> Iterator[CheckFinding]:
    """Report text that promises an attachment: issues have none."""
    for words, line in islice(_found(case, _ATTACHED), _MOST):
        yield CheckFinding(
            f"“{words}”, but an issue has no attachments", "Link to the file instead.", line
        )


def shorteners(case: CheckContext) -> Iterator[CheckFinding]:
    """Report links of services that shorten addresses: filters distrust them."""
    hosts = frozenset(case.rules.shorteners.hosts)
    for link in case.body.links:
        try:
            host = (urlsplit(link.url).hostname or "").removeprefix("www.")
        except ValueError:  # the check “links” reports it
            continue
        if host in hosts:
            yield CheckFinding(
                f"{host} hides where the link leads, and spam filters distrust it",
                "Use the address itself: readers do not see how long it is.",
                link.line,
            )


def spam_phrases(case: CheckContext) -> Iterator[CheckFinding]:
    """Report phrases of spam, many exclamation marks, and a subject in capitals."""
    phrases = case.rules.spam_phrases.phrases
    if phrases:
        any_of = "|".join(re.escape(one) for one in sorted(phrases, key=len, reverse=True))
        pattern = re.compile(rf"(?<!\w)(?:{any_of})(?!\w)", re.IGNORECASE)
        for words, line in islice(_found(case, pattern), _MOST):
            yield CheckFinding(
                f"“{words}” is a phrase of spam", "Say it in other words, if you can.", line
            )
    subject, line_number = case.draft.subject, line_of(case.draft, "subject")
    letters = [letter for letter in subject if letter.isalpha()]
    if len(letters) > 8 and all(letter.isupper() for letter in letters):
        yield CheckFinding("the subject is in capitals", "Write it in small letters.", line_number)
    if subject.count("!") > 1:
        yield CheckFinding(
            "the subject has several exclamation marks", "Use one at most.", line_number
        )


def _found(case: CheckContext, pattern: re.Pattern[str]) -> Iterator[tuple[str, int | None]]:
    """Matches in the headlines and the body, each with its line; one of a kind per line."""
    for key in _HEADLINES:
        if line := line_of(case.draft, key):
            for match in pattern.finditer(getattr(case.draft, key)):
                yield match[0], line
    seen = set()
    for words in case.body.words:
        for match in pattern.finditer(words.text):
            line = words.line + words.text.count("\n", 0, match.start())
            if (match[0], line) not in seen:
                seen.add((match[0], line))
                yield match[0], line
