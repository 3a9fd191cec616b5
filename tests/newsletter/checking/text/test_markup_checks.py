"""What means something elsewhere and nothing here: a warning with the line for each kind."""

import pytest

from tests.newsletter.checking.conftest import Look

ELSEWHERE = {
    "<b>bold</b>": "HTML",
    "<p style='color: red'>text": "HTML",
    "<center>text": "HTML",
    "<o:p>text": "HTML",
    "<my-widget>": "HTML",
    "<br>": "HTML",
    "<BR/>": "HTML",
    "<!DOCTYPE html>": "HTML",
    "<![endif]>": "HTML",
    "<?php echo 1; ?>": "HTML",
    "<img src=x\nonerror=y>": "HTML",
    "<!– dashes of an editor –>": "not a comment",
    "| a | b |\n|---|\n| 1 | 2 |": "a table of | and -",
    "a | b | c\n:-- | --:\n1 | 2": "a table of | and -",
    "A claim[^1].": "no such footnote",
    "See “https://example.com/page”": "is not a link",
    "HTTPS://example.com/page": "is not a link",
    "tel:+43123456": "is not a link",
    "*|FNAME|*": "another system",
    "*|IF:VIP|*": "another system",
    "Dear %recipient.name%,": "another system",
    "Dear %FIRSTNAME%,": "another system",
    "%%first name_x%%".replace(" ", "_"): "another system",
    "Dear {$name},": "another system",
    "Dear [[FIRSTNAME]],": "another system",
    "Dear {name},": "another system",
    "Dear {first_name},": "another system",
    "Dear ${user.name},": "another system",
    "Dear <%= name %>,": "another system",
    "{% if vip %}": "another system",
    "{!firstname_fix}": "another system",
    "{subtag:name}": "another system",
    "[firstname, fallback=there]": "another system",
    "[subscriber:firstname]": "another system",
    "[nobody]: https://example.com/ 'Words'": "never used",
}


@pytest.mark.parametrize(("body", "said"), ELSEWHERE.items(), ids=list(ELSEWHERE))
def test_each_kind_is_found_at_its_line(look: Look, body: str, said: str) -> None:
    found = look("markup", f"One.\n\n{body}\n")
    assert [said in one.message for one in found] == [True] * len(found)
    line = 5 + 2 + (1 if "a table of" in said else 0)
    assert found, body
    assert found[0].line == line
    assert found[0].hint


@pytest.mark.parametrize("body", [*ELSEWHERE])
def test_in_code_it_is_meant(look: Look, body: str) -> None:
    assert not look("markup", f"```\n{body}\n```\n")
    assert not look("markup", f"Use ``{body.replace(chr(10), ' ')}`` there.")


@pytest.mark.parametrize(
    "body",
    [
        "5% of 10% and 100%",
        "a < b and List<T>, <your name>, <- and ->",
        "[https://example.com](https://example.com)",
        "<https://example.com>",
        "a@www.example.com",
        "{{ name }} and \\{{ name }}",
        "[words][one] and [two]\n\n[one]: https://example.com/\n[Two]: https://example.com/2",
        "A | B",
        "---",
        "| |",
        "~ ten ~ twenty",
        "[1] and [2]",
        "set {a, b}",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "a | b\n:-- | --:\n1 | 2",
        "A claim[^1].\n\n[^1]: The note.",
        "~~old~~ new",
        "https://example.com/page",
        "See www.example.com today",
        "- [x] done",
    ],
)
def test_what_may_be_meant_is_left_alone(look: Look, body: str) -> None:
    assert not look("markup", f"One.\n\n{body}\n")


def test_a_merge_tag_in_the_subject_is_found_at_its_key(look: Look) -> None:
    (found,) = look("markup", "One.", subject="'Hi *|FNAME|*'")
    assert found.line == 2
    assert "*|FNAME|*" in found.message


def test_a_text_full_of_them_does_not_drown_what_else_is_found(look: Look) -> None:
    found = look("markup", "<b>\n" * 500)
    assert len(found) == 51
    assert "450 more" in found[-1].message
