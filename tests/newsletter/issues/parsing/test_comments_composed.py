"""Bodies composed of what decides where code is: no note is read by anybody, no word is lost."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from newsletter.issues.parsing.comments import without_comments
from newsletter.rendering.markdown import Markdown
from newsletter.rendering.plaintext import PlainText, joined
from tests.newsletter.issues.parsing.test_comments import code_in

#: S and E are words of a comment (where it begins, and on its next line), W is one for readers.
_PARTS = (
    "<!--S-->", "<!--S-->", "<!--S-->", "<!--S\nE-->", "<!--S ``` -->",
    "- ", "-", "* ", "1", ".", "1. ", "2) ", "> ", ">", "\t", " ", "    ", "  ", "```", "~~~", "``",
    "`", "````", "W", "W", "W ", "and ", "\n", "\n", "\n\n", "# ", "---", "===", "\\", "\n   ",
    "\n\t",
)  # fmt: skip
#: A comment that is no escaped one: its first word, and that on its second line.
_COMMENT = re.compile(r"(?<!\\)(?:\\\\)*<!--(start\d+q)(?:\n(end\d+q))?")
#: The language of a fence: nobody reads it.
_LANGUAGE = re.compile(
    r"^(?:[ \t>*+.)\d-]|<!--|-->|start\d+q|end\d+q|`(?=`* -->))*(?:```|~~~)([^\n]*)",
    re.MULTILINE,
)


def numbered(parts: list[str]) -> str:
    """The body of these parts, with words that stand in it once."""
    number = 0

    def word(found: re.Match[str]) -> str:
        nonlocal number
        number += found[0] != "E"
        return {"S": "start", "E": "end", "W": "plain"}[found[0]] + f"{number}q"

    return re.sub("[SEW]", word, "".join(parts))


def parts_of_mail(body: str) -> tuple[str, str]:
    markdown = Markdown(body, in_url=str, name="news.md", line=1)
    tokens, piece = markdown.blocks(body), PlainText()
    return markdown.html(tokens), joined(piece.blocks(tokens), piece.footnotes())


def require_right(body: str) -> None:
    kept = without_comments(body, name="news.md", line=1)
    assert kept.count("\n") == body.count("\n")
    code = code_in(MarkdownIt("commonmark", {"html": False}).parse(kept))
    html, text = parts_of_mail(kept)
    for start, end in _COMMENT.findall(body):
        assert start in code or start not in html + text, "a note is read"
        assert not end or start in kept or end not in html + text, "half of a note is read"
    languages = " ".join(_LANGUAGE.findall(body.replace("\nend", "end")))
    for word in re.findall(r"plain\d+q", body):
        assert word in languages or (word in html and word in text), "a word is lost"


@pytest.mark.slow
@settings(max_examples=700, deadline=None)
@example(["<!--S-->", "- ", "<!--S-->", " W"])
@example(["<!--S-->", "1. ", "<!--S-->", "\n   W"])
@example(["<!--S-->", "> ", "<!--S\nE-->", " W"])
@example(["W\n\t``` and W\n", "<!--S-->"])
@example(["``", "<!--S-->", "`W "])
@example(["````", "<!--S ``` -->", "W"])
@example(["-  \n  ~~~\n", "<!--S-->"])
@example(["1. # ``", "<!--S\nE-->", "``"])
@example(["W\n  1.\n\t", "<!--S-->"])
@example([">2) ```\n>   ", "<!--S-->"])
@example(["W```\n\t- ```", "<!--S ``` -->"])
@example([">\n    >", "<!--S-->"])
@example(["1", "<!--S-->", ". W\n\n    ", "<!--S-->"])
@given(st.lists(st.sampled_from(_PARTS), min_size=2, max_size=14))
def test_no_note_is_read_and_no_word_is_lost(parts: list[str]) -> None:
    require_right(numbered(parts))


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("<!-- a -->- <!-- b --> item", "- item"),
        ("<!-- a -->1. <!-- b -->\n   item", "1. \n   item"),
        ("  <!-- a -->> <!-- b -->- <!-- c --> words", "  > - words"),
        ("Words\n\t``` no fence\n<!-- a -->", "Words\n\t``` no fence\n"),
        ("``<!-- a -->`words", "\\```words"),
        ("- > <!-- a\nb --> words", "- > words\n  >"),
    ],
)
def test_what_stands_around_a_note_stays(body: str, kept: str) -> None:
    assert without_comments(body, name="news.md", line=1) == kept
