"""No text costs more than its length: each door for outside text meets what slows parsers down.

Work is counted in calls, and in lines of our own code that run, which no machine's load changes.
Time within C, such as a regular expression's, is not seen there; it is measured as CPU time of far
longer texts, of which the longer may take somewhat more than its length asks for, and not its
square.
"""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from markdown_it.token import Token

from newsletter.checking.parsed_body import parse_body
from newsletter.checking.text.markup_checks import _in_paragraph
from newsletter.errors import IssueError
from newsletter.issues.diff import compare
from newsletter.issues.digest_import import import_digest
from newsletter.issues.parsing import merge_fields
from newsletter.issues.parsing.comments import without_comments
from newsletter.issues.parsing.digest import parse_digest
from newsletter.issues.parsing.issue_file import parse_issue, slug_of
from newsletter.rendering.markdown import Markdown
from newsletter.rendering.placeholders import Marks, Placeholders
from newsletter.rendering.plaintext import PlainText
from newsletter.rendering.preview import _PICTURE, _TAG
from newsletter.rendering.webpage import to_page
from newsletter.rendering.word_check import first_missing, words_of

Door = Callable[[str], object]

#: What parsers are slow at, each cut to any length.
UNITS = [
    "\\", "`", "`a", "``a`", "*", "**a", "*a ", "a*", "_a ", "*_", "*a_", "~",
    "~~a", "[", "]", "[a]",
    "[a] ", "[a] · ", "] · ", "[a](", "[a](b", "![", "![a](", "](", "][", "[a][", "[^a]", "[a]: ",
    "[a\n", "<", "<a ", "<b", "</", "<!--", "<!---", "-->", "<!-- -->", "<https://", "<a@b", "&",
    "&a", "&amp", "&amp;", "&#1", "> ", ">", "> a\n", "- ", "- a\n", "* * ", "1. ", "1) a\n", "# ",
    "#", "a #", "a#\n", "\"", "'", "\" ", "('", "(", ")", "{", "}", "{{", "{{ name }}", "\\{{",
    "{{ name | default(", "{a", ")}{", "|", "|a", "|-", "|-|\n", " ", "\t", "\n", " \n", "\n\n",
    "a", "é", "日", "a ", "a\n", "a\n\n", "=", "=\n", "a\n=\n", "-", "--\n", "+",
    "·", " · ", "· a · ",
    " · Source", "[a] · b · Source c\n", "— ", " — 2026-01-01", "a — ", ":", ": ",
    "a: b\n", "a:\n ",
    "url(", "http://", "http://a/", "https://a.example/ ", "www.a ", "tel:+1", "%a", "%%a", "%a%",
    "*|a", "[[a", "${a", "<%a", "{%a", "~~~\n", "```\n", "```a\n", "    a\n", "\ta\n", "\u202e",
    "\u200b", "e\u0301", "@", "a@", "a.", "a@b.", "?", "? ", "&a ", "*a ", "!a ",
    "- - ", "[[", "{a: ",
    "](http:", "](http: \"", "](<http:", "![a](http://a.example/){", "[a]: http://a 'b\n",
]  # fmt: skip
#: What stands before and behind, where the middle alone would end at once.
FRAMES = [("", ""), ("a", "b"), ("[", "](https://a.example/)"), ("- ", "\n\nend"), ('"', '"')]


def letter(text: str) -> object:
    return parse_issue(f"---\nsubject: x\n---\n{text}", name="a.md")


def front(text: str) -> object:
    return parse_issue(f"---\nsubject: x\n{text}\n---\nbody", name="a.md")


def subject(text: str) -> object:
    return parse_issue(f"---\nsubject: {text}\n---\nbody", name="a.md")


def tokens_of(text: str) -> tuple[Markdown, list[Token]]:
    made = Markdown(text, in_url=str, name="a.md", line=1)
    return made, made.blocks(text)


def markdown(text: str) -> object:
    made, tokens = tokens_of(text)
    piece = PlainText()
    return first_missing(
        words_of(text, line=1, marks="nlnone"), made.html(tokens), piece.blocks(tokens)
    ), piece.footnotes()


def body(text: str) -> object:
    parts = parse_body(parse_issue(f"---\nsubject: x\n---\n{text}\n.", name="a.md"), {})
    return [list(_in_paragraph(one)) for one in parts.paragraphs]


def words(text: str) -> object:
    return first_missing(words_of(text, line=1, marks="nlnone"), f"<p>{text}</p>", text)


def page(text: str) -> object:
    links = dict.fromkeys(merge_fields.LINKS, "https://x.example/")
    made = Placeholders("-nl", "-nl0u-", ())
    return to_page(f"<html><body>{text}</body></html>", made, links=links)


def placeholders(text: str) -> object:
    marks = Marks(text, avoid=[text], links=dict.fromkeys(merge_fields.LINKS, "https://x.example/"))
    made = marks.mark(text, name="a", line=1)
    return marks.placeholders(marks.in_html(made), marks.in_text(made), marks.in_url(made))


def digest_file(text: str) -> object:
    return import_digest(f"Title — 2026-01-01\n\nHead#\n\n{text}", name="a")


#: Whatever reads what an author, or whoever they copied from, has written.
DOORS: dict[str, Door] = {
    "letter": letter,
    "front matter": front,
    "subject": subject,
    "markdown": markdown,
    "body": body,
    "comments": lambda text: without_comments(f"<!-- a -->{text}", name="a", line=1),
    "digest": lambda text: parse_digest(f"## A\n\n### B\n\n{text}", name="a"),
    "digest's entry": lambda text: parse_digest(f"## A\n\n### B\n\n*{text}* · [{text}](", name="a"),
    "pasted digest": digest_file,
    "pasted title": lambda text: import_digest(text, name="a"),
    "comparing": lambda text: compare(text, text[::-1]),
    "comparing lines": lambda text: compare("\n".join(text), "\n".join(text[1:] + "x")),
    "words": words,
    "page": page,
    "placeholders": placeholders,
    "slug": slug_of,
    "preview": lambda text: _TAG.sub(lambda tag: _PICTURE.sub("", tag[0]), f'<img alt="{text}">'),
}
#: Those that are in C for the most part, or in milliseconds: worth to be measured with long texts.
QUICK = sorted(set(DOORS) - {"markdown", "body", "comparing", "comparing lines"})
#: Those that take a millisecond for a hundred letters: each unit is tried in one frame.
HEAVY = {"markdown", "body", "comparing", "comparing lines"}
OURS = str(Path(merge_fields.__file__).parents[2])


def texts(unit: str, size: int) -> list[str]:
    middle = (unit * (size // len(unit) + 1))[:size]
    return [before + middle + behind for before, behind in FRAMES]


def tried(door: Door, text: str) -> None:
    # Refusing is an answer, too.
    with suppress(IssueError):
        door(text)


def steps(door: Door, text: str) -> int:
    """The calls, and the lines of our own that run."""
    count = 0

    def line(_frame: FrameType, _event: str, _arg: Any) -> Any:
        nonlocal count
        count += 1
        return line

    def call(frame: FrameType, _event: str, _arg: Any) -> Any:
        nonlocal count
        count += 1
        is_ours = (
            frame.f_code.co_filename.startswith(OURS) and "/.venv/" not in frame.f_code.co_filename
        )
        return line if is_ours else None

    before = sys.gettrace()
    gc.disable()  # what earlier tests have left is not cleared away at this one's expense
    sys.settrace(call)
    try:
        tried(door, text)
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@pytest.mark.slow
def test_comparing_gives_up_after_a_number_of_steps() -> None:
    for unit in ("*a ", "[a] · "):
        (few, many) = (steps(DOORS["comparing"], unit * size) for size in (700, 2800))
        assert many < 2 * few


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DOORS) - {"comparing"}))
def test_no_text_makes_more_work_than_its_length(name: str) -> None:
    door, slow = DOORS[name], []
    for unit in UNITS:
        shorter, longer = texts(unit, 250), texts(unit, 1000)
        for short, long in zip(shorter, longer, strict=True):
            if name in HEAVY and long != longer[0]:
                continue
            few, many = steps(door, short), steps(door, long)
            # Four times the text: four times the work. Sixteen would be its square.
            if many > 7 * few + 2000:
                slow.append((unit, long[:1], few, many))
    assert not slow


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_no_regular_expression_takes_the_square_of_a_text(name: str) -> None:
    door, slow = DOORS[name], []
    for unit in UNITS:
        for short, long in zip(texts(unit, 20_000)[:2], texts(unit, 80_000)[:2], strict=True):
            # Only what is slow at all is looked at, and again: once it may be another's work.
            if seconds(door, long) < 0.5:
                continue
            took = min(seconds(door, long) for _ in range(3))
            if took > 10 * seconds(door, short) and took > 0.4:
                slow.append((unit, long[:1], took))
    assert not slow


def seconds(door: Door, text: str) -> float:
    """Processor time, without that for what earlier tests have left."""
    gc.disable()
    try:
        began = time.thread_time()
        tried(door, text)
        return time.thread_time() - began
    finally:
        gc.enable()
