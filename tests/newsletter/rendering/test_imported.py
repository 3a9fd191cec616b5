"""Any digest that is imported can be read and rendered, and its words come out of both parts."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from newsletter.errors import IssueError
from newsletter.issues.digest_import import import_digest
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.preview import UNKNOWN_READER, preview
from newsletter.rendering.render import render

from .conftest import PUBLICATION, TEMPLATES
from .test_render import shown

#: Signs that mean something to Markdown, to YAML or to us, between words that stand once.
_SIGNS = (
    "<!--", "-->", "{{", "}}", "\\", "\\{{", "{{ x }}", "[", "](", "`", "```", "~~~", "#", "*", "_",
    "1.", "-", ":", '"', "'", "&amp;", "<b>", "|", "\t", "    ", "\u2028", "\x85", "·", "!", "> ",
)  # fmt: skip
_WORDS = st.lists(st.sampled_from([*_SIGNS, " ", "W ", " W"]), min_size=1, max_size=8).map("".join)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@example("W", "W", "How we removed <!-- W --> from W pages.", "W", "W", "W")
@example("W", "W", "A path C:\\{{W}} is here.", "W", "W", "W")
@example("W", "W", "W", "W", "W", "```W")
@given(_WORDS, _WORDS, _WORDS, _WORDS, _WORDS, _WORDS)
def test_what_is_imported_can_be_rendered_and_keeps_its_words(
    title: str, heading: str, prose: str, name: str, by: str, story: str
) -> None:
    digest = (
        f"T{title} — 2026-01-02\n\nH{heading}#\n\nW {prose}\n\n"
        f"[N{name}] · O{by} · Source {story} W\n"
    )
    first, *rest = digest.split("W")
    text = first + "".join(f" word{number}q {piece}" for number, piece in enumerate(rest))
    try:
        made = import_digest(text, name="d.txt")
    except IssueError as error:
        assert error.place
        assert "no issue can be made" not in str(error), text
        return
    mail = preview(
        render(parse_issue(made, name="d.md"), PUBLICATION, templates=TEMPLATES), UNKNOWN_READER
    )
    wanted = Counter(f"word{number}q" for number in range(len(rest)))
    for part in (shown(mail.html), mail.text):
        assert not wanted - Counter(word for word in wanted if word in part)
