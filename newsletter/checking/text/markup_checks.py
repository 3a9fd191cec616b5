"""Finds markup that is shown as text: HTML, broken tables, merge tags of other systems.

It searches text that is not code, with patterns that run in linear time.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import SourceText, line_of

#: The most findings to report one by one; more have the same cause.
_MOST: Final = 50
#: Elements of HTML, also obsolete ones. Other text in angle brackets may be intended.
_ELEMENTS: Final = (
    "a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink "
    "blockquote body br button canvas caption center cite code col colgroup data datalist dd del "
    "details dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form frame "
    "frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label legend "
    "li link main map mark marquee menu meta meter nav nobr noscript object ol optgroup option "
    "output p param picture pre progress q rp rt ruby s samp script search section select slot "
    "small source span strike strong style sub summary sup svg table tbody td template textarea "
    "tfoot th thead time title tr track tt u ul unsubscribe var video wbr webversion xmp"
)
_TAG: Final = re.compile(
    rf"</?(?:{'|'.join(_ELEMENTS.split())}|[a-z][a-z0-9]*[:-][a-z0-9:-]+)(?=[\s/>])[^<>]{{0,2000}}>"
    r"|<!(?:doctype|\[)[^<>]{0,200}>|<\?[a-z][^<>]{0,200}>",
    re.IGNORECASE,
)
#: ``<!-- … -->`` after an editor's autocorrection of dashes.
_DASHED: Final = re.compile(r"<![–—]")
_TABLE: Final = re.compile(
    r"^[ \t]*+(?=[^\n|]*+\|)\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+(?::?-++:?[ \t]*+)?)++$",
    re.MULTILINE,
)
_FOOTNOTE: Final = re.compile(r"\[\^[^\[\]\s]{1,40}\]")
_BARE_URL: Final = re.compile(
    r"(?<![\w/.@-])(?:(?:https?|ftp)://|www\.[^\s.]|tel:[+\d])[^\s<>]*+", re.IGNORECASE
)
#: Placeholders of other systems.
_MERGE_TAG: Final = re.compile(
    r"\*\|[^|\n]{1,100}\|\*"  # Mailchimp
    r"|%%[A-Za-z_][\w.:-]{0,80}%%"  # Salesforce
    r"|(?<![\w%])%[A-Za-z_][\w.:-]{0,80}%(?![\w%])"  # Mailgun, ActiveCampaign
    r"|\[\[[A-Za-z_][^\[\]\n]{0,80}\]\]"  # GetResponse, Constant Contact
    r"|[{\[](?:\$|!|%)[^{}\[\]\n]{1,100}[}\]]"  # MailerLite, AWeber, Liquid
    r"|\$\{[^{}\n]{1,100}\}"
    r"|<%[^<>%\n]{1,100}%>"
    r"|\{[A-Za-z][\w]*:[\w.:-]{1,80}\}"  # AcyMailing
    r"|(?<![{\\])\{[A-Za-z_][A-Za-z0-9_.]{1,60}\}(?!\})"
    r"|\[[A-Za-z_ ]{1,40},[ \t]{0,10}fallback=[^\[\]\n]{0,80}\]"  # Campaign Monitor, Sendy
    r"|\[(?:subscriber|date|newsletter|link):[^\[\]\n]{1,80}\](?!\()"  # MailPoet
)


def markup(case: CheckContext) -> Iterator[CheckFinding]:
    """Report markup that every recipient would see as text."""
    found = _all(case)
    yield from islice(found, _MOST)
    if more := sum(1 for _ in found):
        yield CheckFinding(f"and {more:,} more of the same kinds", "Fix these first.")


def _all(case: CheckContext) -> Iterator[CheckFinding]:
    for key in ("subject", "preheader", "title"):
        for tag in _MERGE_TAG.finditer(getattr(case.draft, key)):
            if line := line_of(case.draft, key):
                yield _merge_tag(tag[0], line)
    for label in case.body.unused:
        yield CheckFinding(
            f"the link [{_short(label.text)}] is never used, so nobody sees it",
            f"Write [text][{_short(label.text)}] where it belongs, or remove the line.",
            label.line,
        )
    for paragraph in case.body.paragraphs:
        yield from _in_paragraph(paragraph)
    for words in case.body.words:
        for note in _FOOTNOTE.finditer(words.text):
            yield CheckFinding(
                f"{note[0]} is shown as text: there is no such footnote",
                f"Write a line {note[0]}: …, in the same section or entry.",
                words.line,
            )
        if not words.is_in_link:
            for url in _BARE_URL.finditer(words.text):
                yield CheckFinding(
                    f"{_short(url[0])} is not a link: it is shown as text",
                    "Write [text](https://…)."
                    if not url[0].lower().startswith("tel:")
                    else f"Write [text]({_short(url[0])}).",
                    words.line,
                )


def _in_paragraph(paragraph: SourceText) -> Iterator[CheckFinding]:
    text, counted, line = paragraph.text, 0, paragraph.line
    marks = sorted(
        (found.start(), kind, found[0])
        for kind, (pattern, _) in enumerate(_PATTERNS)
        for found in pattern.finditer(text)
    )
    reported = set()
    for at, kind, words in marks:
        line += text.count("\n", counted, at)
        counted = at
        # One finding of a kind per line is enough: a closing tag often follows its opening tag.
        if (kind, line) not in reported:
            reported.add((kind, line))
            yield CheckFinding(*_PATTERNS[kind][1](words), line)


def _tag(text: str) -> tuple[str, str]:
    hint = "Write Markdown, or put it between backquotes if readers should see it."
    return f"{_short(text)} is shown as text: HTML is not interpreted", hint


def _dashed(_text: str) -> tuple[str, str]:
    return (
        "this is not a comment, so readers see it",
        "Write a comment as <!-- … --> with two short dashes.",
    )


def _table(_text: str) -> tuple[str, str]:
    hint = (
        "Give the line of dashes as many columns as the headings, and leave an empty line above "
        "the table."
    )
    return "a table of | and - is shown as text", hint


def _merge_tag_texts(text: str) -> tuple[str, str]:
    hint = 'Write {{ name | default("reader") }}, {{ email }} or {{ attributes.company }}.'
    return f"{_short(text)} is shown as text: it is a placeholder of another system", hint


def _merge_tag(text: str, line: int) -> CheckFinding:
    message, hint = _merge_tag_texts(text)
    return CheckFinding(message, hint, line)


#: Each pattern, and the function that makes message and hint of a match.
_PATTERNS: Final = (
    (_TAG, _tag),
    (_DASHED, _dashed),
    (_TABLE, _table),
    (_MERGE_TAG, _merge_tag_texts),
)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
