"""Notes among editors: gone from what readers get, while code stays code and lines stay lines."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from newsletter.errors import IssueError
from newsletter.issues.parsing.comments import without_comments
from newsletter.issues.parsing.issue_file import parse_issue


def stripped(body: str) -> str:
    return without_comments(body, name="news.md", line=5)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("a <!-- note --> b", "a b"),
        ("pre<!-- note -->fix", "prefix"),
        ("<!-- note -->\nText", "\nText"),
        ("<!-- note -->    Text", "Text"),
        ("Text\n<!-- one\n\n# two\n```\n-->\nText", "Text\n\n\n\n\n\nText"),
        ("Text <!-- one\ntwo --> more\nend", "Text more\n\nend"),
        ("- one <!-- note -->\n- <!-- note --> two", "- one\n- two"),
        ("- one\n\n  <!-- note\n more --> two", "- one\n\n\n  two"),
        ("> <!-- note\n> more --> two\n> three", ">\n> two\n> three"),
        ("<!-- a --><!-- b --> <!-- c --> Text", "Text"),
        ("<!--[if mso]>Outlook<![endif]-->Text", "Text"),
        ("one <!--> two <!---> three", "one two three"),
        ("<!-- -- - > -->Text", "Text"),
        ("[words](https://example.com/<!-- note -->)", "[words](https://example.com/)"),
        ("# <!-- note --> Title", "# Title"),
        ("Text\n    <!-- no code: goes on with the line above -->end", "Text\n    end"),
    ],
)
def test_a_comment_goes_and_the_words_around_it_stay(body: str, kept: str) -> None:
    assert stripped(body) == kept
    assert kept.count("\n") == body.count("\n")


@pytest.mark.parametrize(
    "body",
    [
        "`<!-- code -->`",
        "``a ` <!-- code --> ` b``",
        "`code <!-- over\nlines -->` end",
        "```html\n<!-- code -->\n```",
        "~~~\n```\n<!-- code -->\n~~~",
        "    <!-- code -->",
        "Text\n\n\t<!-- code -->",
        "- one\n\n      <!-- code -->",
        "1. one\n\n   ```\n   <!-- code -->\n   ```",
        "> ```\n> <!-- code -->",
        r"\<!-- words -->",
        "&lt;!-- words -->",
    ],
)
def test_what_is_code_or_escaped_is_text(body: str) -> None:
    assert stripped(body) == body


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("> ```\n> <!-- code -->\n<!-- note -->Text", "> ```\n> <!-- code -->\nText"),
        ("- ```\n  <!-- code -->\n- <!-- note -->Text", "- ```\n  <!-- code -->\n- Text"),
        ("`one\n\n<!-- note --> two`", "`one\n\ntwo`"),
        ("`one\n- <!-- note --> two`", "`one\n- two`"),
        ("\\`<!-- note -->`", "\\``"),
        ("<!-- ``` --> Text <!-- ``` -->", "Text"),
        ("```\ncode\n```\n<!-- note -->", "```\ncode\n```\n"),
        ("````\n```\n<!-- code -->\n````\n<!-- note -->", "````\n```\n<!-- code -->\n````\n"),
    ],
)
def test_where_code_ends_comments_are_comments_again(body: str, kept: str) -> None:
    assert stripped(body) == kept


def test_a_comment_without_an_end_is_refused_at_its_line() -> None:
    with pytest.raises(IssueError, match="not closed") as caught:
        stripped("Text\n\n- more <!-- note\n\nall the rest")
    assert caught.value.place == "news.md:7"
    assert caught.value.hint is not None
    assert "-->" in caught.value.hint


def test_taking_one_away_makes_no_other_of_what_is_left() -> None:
    assert "<!--" not in stripped("<!<!-- a -->-- hidden -->")
    assert "<!--" not in stripped("<<!-- a -->!-- hidden -->")


def test_what_a_note_says_is_no_placeholder_and_no_part_of_a_digest() -> None:
    body = "<!-- {{ TODO }}\n## Not yet\n-->\n\n## News\n\nText.\n"
    draft = parse_issue(f"---\nsubject: x\ntemplate: digest\n---\n{body}", name="news.md")
    assert draft.body.strip() == "## News\n\nText."
    assert draft.source.endswith(body)


_LINES = st.lists(
    st.sampled_from(
        ["Text", "", "  ", "- item", "1. item", "> quote", "```", "~~~", "    four",
         "a `b` c", "# Head", "* * *", "\tTab", "- - deep", "> - x",
         "- > y", "  two", "   three", "- ```", "> ~~~", "````", "\\`"]
    ),
    max_size=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_LINES, st.sampled_from(["", "- ", "> ", "  ", "    ", "a "])),
                min_size=1, max_size=4))  # fmt: skip
def test_what_is_code_is_decided_as_the_parser_of_markdown_does(
    parts: list[tuple[list[str], str]],
) -> None:
    """Words in the place of the comments say whether the parser takes them for code."""
    lines: list[str] = []
    for number, (above, before) in enumerate(parts):
        lines += [*above, f"{before}x NOTE{number}NOTE"]
    words = "\n".join(lines)
    notes = set(re.findall(r"NOTE\d+NOTE", words))
    in_code = {note for note in notes if note in code_in(MarkdownIt().parse(words))}
    kept = stripped(re.sub(r"NOTE(\d+)NOTE", r"<!--NOTE\1NOTE-->", words))
    assert {note for note in notes if note in kept} == in_code


def code_in(tokens: list[Token]) -> str:
    found = ""
    for token in tokens:
        if token.type in {"fence", "code_block", "code_inline"}:
            found += f"\n{token.info}\n{token.content}"
        found += code_in(token.children or [])
    return found
