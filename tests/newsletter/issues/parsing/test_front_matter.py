"""Front matter: the author's words as they stand, or a clear error with the line."""

import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.errors import IssueError
from newsletter.issues.parsing.issue_file import Draft, parse_issue


def issue(front: str) -> Draft:
    return parse_issue(f"---\n{front}\n---\nGood day.\n", name="news.md")


def refusal(front: str) -> IssueError:
    with pytest.raises(IssueError) as caught:
        issue(front)
    return caught.value


@pytest.mark.parametrize(
    "words",
    ["no", "yes", "on", "off", "True", "1e3", "0x10", "012", "0o7", "1:30", "190:20:30", "1_000",
     ".inf", ".nan", "2026", "2026-11-29", "2026-11-29T10:00:00Z", "-1.5", "=", "<<", "a:b",
     "C#", "Weekly#665", "100 %", "a & b", "it's", "say \"hi\"", "a, b", "3 > 2", "😀 news",
     "? what", "Q&A: really", "naïve — “so”", "\u202ertl"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["subject", "preheader", "title"])
def test_what_yaml_makes_something_else_of_stays_text(key: str, words: str) -> None:
    if words in {"? what", "Q&A: really"}:  # YAML does not take these without quotes
        words = f"'{words}'"
    draft = issue(f"{key}: {words}" if key == "subject" else f"subject: x\n{key}: {words}")
    assert getattr(draft, key) == words.strip("'")


@pytest.mark.parametrize(
    ("front", "line", "words"),
    [
        ("subject: Python Weekly Issue #665", 2, "ends before the #"),
        ("subject: #665 is out", 2, "ends before the #"),
        ("subject: x\npreheader: No. #1\ntitle: y", 3, "ends before the #"),
        ("subject: x\ntitle: a # b", 3, "ends before the #"),
        ("subject: x\nfrom: Ann <a@b.example> # the boss", 3, "ends before the #"),
        ("subject: x\nreply_to: a@b.example #2", 3, "ends before the #"),
        ("subject: x\nslug: issue #665", 3, "ends before the #"),
        ("subject: x\nseries: weekly # y", 3, "ends before the #"),
        ("subject: over\n  two lines #1", 3, "ends before the #"),
        ("{subject: a, title: b # c\n}", 2, "ends before the #"),
        ("subject: null", 2, "as no value"),
        ("subject: x\npreheader: ~", 3, "as no value"),
        ("subject: @here", 2, "not YAML"),
        ("subject: %name%", 2, "not YAML"),
        ("subject: `code`", 2, "not YAML"),
        ("subject: &amp; more", 2, "not YAML"),
        ("subject: &more of it", 2, "as an anchor"),
        ("subject: *really* new", 2, "not YAML"),
        ("subject: *really new", 2, "as a reference"),
        ("subject: !important", 2, "as a tag"),
        ("subject: !!python/object/apply:os.system [ls]", 2, "as a tag"),
        ("subject: | pipe", 2, "not YAML"),
        ("subject: > quote", 2, "not YAML"),
        ("subject: [News] today", 2, "not a list"),
        ("subject: [News]", 2, "not a list"),
        ("subject: {{ name }}, hello", 2, "not YAML"),
        ("subject: - dash", 2, "not YAML"),
        ("subject: a: b", 2, "not YAML"),
        ("subject: ends with:", 2, "not YAML"),
        ("subject:\ttab", 2, "there is a tab"),
        ("subject: a\tb", 2, "there is a tab"),
        ("\tsubject: a", 2, "there is a tab"),
        ("subject: x\nsubject: y", 3, "second time"),
        ("base: &b {subject: x}\n<<: *b", 2, "not a key"),
        ("subject: x\n<<: {title: y}", 3, "not a key"),
        ("subject: x\n1: y", 3, "not a key"),
        ("subject: x\nno: y", 3, "not a key"),
        ("subject: x\n? [a]\n: y", 3, "not a key"),
        ("subject: x\n...\ntitle: y", 4, ""),
        ("subject: x\n--- y", 3, "second document"),
        ("%YAML 1.2\n--- {subject: x}", 2, "second document"),
        ('subject: "open\npreheader: x', 2, "quotation mark that opens"),
        ("subject: x\npreheader: 'open", 3, "quotation mark that opens"),
        ('subject: "closed" and more', 2, "not YAML"),
        ("subject: a\x85b", 2, "line break of another kind"),
        ("subject: a\ntitle: b\u2028from: c@d.example", 3, "line break of another kind"),
        ('subject: "a\\0b"', 2, "U+0000"),
        ('subject: "a\\x1b[2J"', 2, "U+001B"),
        ('subject: "a\\x9bb"', 2, "U+009B"),
        ('subject: "half \\ud83d"', 2, "U+D83D"),
        ('subject: "a\\nb"', 2, "line break"),
        ("subject: |\n  a\n  b", 2, "line break"),
        ("subject: New <!-- check -->", 2, "HTML comment"),
        ("subject: x\ntopics: [a, [b]]", 3, "not a topic's slug"),
        ("subject: x\ntopics: {a: b}", 3, "topics is a list"),
        ("subject: x\narchive: yes", 3, "true or false"),
        ("subject: x\ndate: 2026-02-30", 3, "no such day"),
        ("subject: x\n" + "# long\n" * 4000, 2, "characters"),
    ],
)  # fmt: skip
def test_what_would_change_or_hide_words_is_refused(front: str, line: int, words: str) -> None:
    error = refusal(front)
    assert error.place == f"news.md:{line}"
    assert words in error.message
    assert error.hint


def test_the_hint_is_the_line_as_it_should_be() -> None:
    hint = refusal("subject: Python Weekly Issue #665").hint or ""
    written = re.search(r'subject: "[^"]*"', hint)
    assert written is not None
    assert issue(written[0]).subject == "Python Weekly Issue #665"


@pytest.mark.parametrize(
    ("front", "subject"),
    [
        ('subject: "Python Weekly Issue #665"', "Python Weekly Issue #665"),
        ("subject: 'It''s #1'  # a note of ours", "It's #1"),
        ("# a note\nsubject: x\n# another", "x"),
        ("subject: >\n  folded\n  lines", "folded lines"),
        ("subject: |\n  one line", "one line"),
        ("subject: x\ntopics: # ours\n  - a", "x"),
        ("subject: x\ndate: 2026-11-29 # a Sunday", "x"),
        ("subject: x\ntopics: ~\narchive: null\nlanguage:", "x"),
        ('subject: "\\ud83d\\ude00 \\U0001F600"', "😀 😀"),
        ('"subject": x', "x"),
        ("subject:   padded   ", "padded"),
    ],
)
def test_what_is_plain_to_yaml_and_to_people_is_read(front: str, subject: str) -> None:
    assert issue(front).subject == subject


def test_no_nesting_and_no_repetition_grows() -> None:
    bomb = "a: &a [x, x, x, x, x, x]\n" + "".join(
        f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )
    tracemalloc.start()
    for front in (bomb, "subject: " + "[" * 19_000, "topics: " + "[[" * 80, "- " * 9000):
        assert refusal(front).hint
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"])
        | st.sampled_from("#:'\"{}[]&*!|>%@`- \t~?,"),
        max_size=40,
    )
)
def test_any_subject_is_read_as_written_or_refused(words: str) -> None:
    """Blanks around it aside, and behind a quotation mark YAML's own spelling."""
    try:
        draft = issue(f"subject: {words}")
    except IssueError as error:
        assert error.hint
        assert error.place is not None
        assert re.fullmatch(r"news\.md:\d+", error.place)
    else:
        if words.strip()[:1] not in {'"', "'"}:
            assert draft.subject == words.strip()
