"""What differs between two texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.issues.diff import ChangeKind, DiffLine, compare

TEXTS = st.lists(st.sampled_from(["", "a", "one two three", "one two four", "## x"])).map("\n".join)


def told(lines: list[DiffLine]) -> list[str]:
    """``-`` gone, ``+`` new, words that differ in brackets."""
    signs = {
        ChangeKind.SAME: " ",
        ChangeKind.GONE: "-",
        ChangeKind.NEW: "+",
        ChangeKind.SKIPPED: "…",
    }
    return [
        f"{signs[line.kind]}{line.number} "
        + "".join(f"[{piece.text}]" if piece.marked else piece.text for piece in line.pieces)
        for line in lines
    ]


def test_words_that_differ_are_marked_within_their_line() -> None:
    before = "title\n\nDelete before you tune the alert, please.\n\nend\n"
    after = "title\n\nDelete before you mute the alert.\n\nend\n"
    assert told(compare(before, after)) == [
        " 1 title",
        " 2 ",
        "-3 Delete before you [tune] the alert[, please].",
        "+3 Delete before you [mute] the alert.",
        " 4 ",
        " 5 end",
        "…1 ",
    ]


def test_lines_that_have_nothing_in_common_are_told_whole() -> None:
    assert told(compare("Good day to you all.", "42 = 6 * 7")) == [
        "-1 Good day to you all.",
        "+1 42 = 6 * 7",
    ]


def test_what_is_the_same_is_left_out_and_counted() -> None:
    same = "\n".join(f"line {n}" for n in range(1, 11))
    assert told(compare(f"old\n{same}\nx", f"new\n{same}\ny")) == [
        "-1 old",
        "+1 new",
        " 2 line 1",
        " 3 line 2",
        "…6 ",
        " 10 line 9",
        " 11 line 10",
        "-12 x",
        "+12 y",
    ]


def test_nothing_differs_where_nothing_does() -> None:
    assert compare("a\nb", "a\nb") == compare("", "") == []


@pytest.mark.slow
def test_more_lines_than_can_be_compared_are_told_as_changed() -> None:
    many = [f"{n} {n % 7}" for n in range(200_000)]
    before = "\n".join(["same", *many, "end"])
    after = "\n".join(["same", *reversed(many), "end"])
    kinds = [line.kind for line in compare(before, after)]
    assert (kinds.count(ChangeKind.GONE), kinds.count(ChangeKind.NEW)) == (200_000, 200_000)


@given(TEXTS, TEXTS)
def test_both_texts_can_be_read_off_the_comparison(before: str, after: str) -> None:
    lines = compare(before, after)
    assert (lines == []) == (before == after)
    for text, own in (before, ChangeKind.GONE), (after, ChangeKind.NEW):
        of = dict(enumerate(text.split("\n"), 1))
        for line in lines:
            if line.kind is own:
                assert "".join(piece.text for piece in line.pieces) == of[line.number]
    skipped = sum(line.number for line in lines if line.kind is ChangeKind.SKIPPED)
    here = sum(line.kind in {ChangeKind.SAME, ChangeKind.NEW} for line in lines)
    assert lines == [] or here + skipped == len(after.split("\n"))
