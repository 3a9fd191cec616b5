"""Plain-text digests turned into issue files, word for word."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from newsletter.errors import IssueError
from newsletter.issues.digest_import import escape_markdown, import_digest
from newsletter.issues.parsing.digest import parse_digest
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.issues.parsing.text import read_text

SEED = Path(__file__).with_name("engineering-at-scale-2026-03-27.txt")
SAMPLE = Path(__file__).parents[3] / "issues" / "engineering-at-scale-2026-03-27.md"


def imported(text: str) -> Draft:
    return parse_issue(import_digest(text, name="d.txt"), name="d.md")


def test_the_committed_sample_is_what_the_import_writes() -> None:
    assert SAMPLE.read_text(encoding="utf-8") == import_digest(read_text(SEED), name=SEED.name)


def test_the_seed_has_complete_front_matter() -> None:
    draft = imported(read_text(SEED))
    assert draft.subject == draft.title == "Engineering @ Scale — 2026-03-27"
    assert draft.slug == "engineering-at-scale-2026-03-27"
    assert (draft.template, draft.language, draft.topics) == ("digest", "en", ("engineering",))
    assert str(draft.date) == "2026-03-27"
    assert draft.preheader == (
        "Airbnb’s pivot in observability demonstrates a critical reality for scaling "
        "organizations: what often looks…"
    )


def test_all_eighteen_entries_of_the_seed_are_whole() -> None:
    signal, dives, patterns = parse_digest(imported(read_text(SEED)).body, name="d.md").sections
    assert (signal.title, dives.title) == ("Signal of the Day", "Deep Dives")
    assert patterns.title == "Patterns Across Companies"
    written = [line for line in read_text(SEED).split("\n") if line.startswith("[")]
    made = [
        f"[{e.title}] · {e.organization} · {e.source_label} {e.body_markdown}"
        for e in dives.entries
    ]
    assert made == written
    assert len(made) == 18


def test_machines_line_breaks_blanks_and_wrapping_do_not_matter() -> None:
    tidy = import_digest(
        "Paper — 2026-01-02#\n\nNews#\n\nOne two three C# four\n\n"
        "[A b] · C · Source d e f.\n\nMore.\n",
        name="d.txt",
    )
    messy = import_digest(
        "\ufeffSources \r\n\r\n\r\nPaper — 2026-01-02 #  \r\nNews#\r\nOne two\r\n  three C#\t\r\n"
        "four\r\n"
        "\r\n[A\r\nb] · C ·\r\nSource d\r\ne f.   \r\n\r\nMore.",
        name="d.txt",
    )
    assert messy == tidy
    assert "One two three C# four\n\n### A b\n\n*C* · Source\n\nd e f.\n\nMore.\n" in tidy


def test_any_sections_will_do_and_the_preheader_comes_from_what_is_there() -> None:
    draft = imported("Paper — 2026-01-02\n\nDives#\n\n[T] · O · Source First one. Second one.")
    assert draft.preheader == "First one."
    assert imported("Paper - 2026-01-02\n\nOnly#\n\nWords").preheader == "Words"


def test_titles_keep_their_brackets_slashes_and_colons() -> None:
    (section,) = parse_digest(
        imported("P — 2026-01-02\n\nD#\n\n[[Paper] A / B: why? #] · R&D · Source x").body, name="d"
    ).sections
    (entry,) = section.entries
    assert MarkdownIt().renderInline(entry.title) == "[Paper] A / B: why? #"
    assert entry.organization == "R&D"


@pytest.mark.parametrize(
    ("words", "preheader"),
    [
        ("How we removed <!-- comments --> from pages.", "How we removed comments from pages."),
        ("A --> B, and nothing<!--else.", "A B, and nothing else."),
        ("A --> B.", "A --> B."),
        ("A path C:\\{{x}} is here.", "A path C:\\\\\\{{x}} is here."),
        ("Two \\\\{{x}} slashes.", "Two \\\\\\{{x}} slashes."),
        ("Braces {{x}} alone.", "Braces \\{{x}} alone."),
        ("One\u2028line\x85only.", "One line only."),
    ],
)
def test_the_preheader_made_of_any_words_can_be_read(words: str, preheader: str) -> None:
    assert imported(f"Paper — 2026-01-02\n\nD#\n\n{words}").preheader == preheader


def test_a_digest_of_which_no_issue_can_be_made_is_refused() -> None:
    with pytest.raises(IssueError, match="subject has 313 characters") as caught:
        import_digest(f"{'a' * 300} — 2026-01-02\n\nD#\n\nwords", name="d.txt")
    assert caught.value.place == "d.txt:1"
    assert caught.value.hint == "At most 300 are allowed."


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no text"),
        ("Sources\n\n", 1, "no text"),
        ("Sources\n\nHello there\n", 3, "expected title and date"),
        ("Paper — 2026-02-30\n\nA#\n\nb", 1, "no day"),
        ("\nPaper — 2026-02-03\n\nprose only\n", 2, "no section"),
        ("Paper — 2026-02-03\n\nA#\n\nB#\n\ntext", 3, "section is empty"),
        ("Paper — 2026-02-03\n\nA#\n\ntext\n\nB#\n", 7, "section is empty"),
        ("Paper — 2026-02-03\n\nA#\n\n[T] · Source text", 5, "expected an entry"),
        ("Paper — 2026-02-03\n\nA#\n\n[T] O Source text", 5, "expected an entry"),
        ("Paper — 2026-02-03\n\n[T] · O · Source text\n\nA#\n\nb", 3, "outside of a section"),
        ("Paper — 2026-02-03\n\nA#\n\nb\x01", 5, "U+0001"),
    ],
)
def test_another_layout_is_refused_at_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(IssueError, match=re.escape(words)) as caught:
        import_digest(text, name="d.txt")
    assert caught.value.place == f"d.txt:{line}"
    assert caught.value.hint


_WORDS = st.text(
    st.one_of(
        st.sampled_from("*_`[]<>&#+-=~!|\\{}()$.:;'\"1a \u00a0é"),
        st.characters(categories=["L", "N", "P", "S"]),
    ),
    min_size=1,
    max_size=30,
).map(lambda text: " ".join(text.split(" ")).strip(" "))


@given(_WORDS.filter(lambda text: text.strip() and "{{" not in text))
def test_escaped_text_comes_back_as_that_text(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": False}).parse(escape_markdown(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == text.strip()
