"""Subject, preheader, size, the way out, the sender's address, the text part."""

import shutil
from pathlib import Path

import pytest

from newsletter.checking.checker import Checker
from newsletter.checking.finding import Level
from tests.conftest import NOW
from tests.newsletter.checking.conftest import PUBLICATION, RULES, TEMPLATES, Look, changed


def edited(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """Our templates with other words in one file."""
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    "check", ["unsubscribe", "postal_address", "text_part", "subject", "preheader", "size"]
)
def test_a_plain_letter_has_nothing_to_mend(look: Look, check: str) -> None:
    assert look(check, "Good day, {{ name }}.") == []


def test_a_long_subject_is_found_at_its_line_without_counting_placeholders(look: Look) -> None:
    assert (
        look(
            "subject", "Hi", subject='"{{ attributes.a_very_long_name_of_a_key }} ' + "x" * 60 + '"'
        )
        == []
    )
    (found,) = look("subject", "Hi", subject="x" * 71)
    assert (found.line, found.level) == (2, Level.WARN)
    assert "71 characters" in found.message


def test_a_subject_of_a_placeholder_alone_is_empty_for_some(look: Look) -> None:
    (found,) = look("subject", "Hi", subject='"{{ name }}"')
    assert "empty for recipients who lack" in found.message
    assert look("subject", "Hi", subject="'{{ name | default(\"you\") }}'") == []


@pytest.mark.parametrize(
    ("words", "said"), [("", "no preheader"), ("x" * 141, "141"), ("Short.", "6 characters")]
)
def test_a_preheader_that_does_not_fit_is_found(look: Look, words: str, said: str) -> None:
    (found,) = look("preheader", "Hi", preheader=words)
    assert found.line == 3
    assert said in found.message


def test_the_size_is_that_of_the_longest_values(look: Look) -> None:
    body = "Good day, {{ name }}.\n\n" + "word " * 100
    (plain,) = look("size", body, rules=changed("size", most=100))
    most = int(plain.message.split(" bytes")[0].rpartition(" ")[2].replace(",", ""))
    assert "longest values" in plain.message
    assert look("size", body, rules=changed("size", most=most)) == []
    assert len(look("size", body, rules=changed("size", most=most - 1))) == 1


def test_a_template_without_a_way_out_blocks(look: Look, tmp_path: Path) -> None:
    folder = edited(tmp_path, "partials/footer.mjml", "links.unsubscribe", "publication.base_url")
    (found,) = look("unsubscribe", "Hi", templates=folder)
    assert found.level is Level.BLOCK
    assert "HTML part has no unsubscribe link" in found.message
    assert look("unsubscribe", "[Leave]({{ unsubscribe_url }})", templates=folder) == []


def test_a_template_without_the_postal_address_blocks(look: Look, tmp_path: Path) -> None:
    folder = edited(tmp_path, "partials/footer.mjml", "{{ publication.postal_address }}", "")
    (found,) = look("postal_address", "Hi", templates=folder)
    assert found.level is Level.BLOCK
    assert "HTML" in found.message


def test_pictures_alone_leave_the_text_part_without_words(look: Look) -> None:
    (found,) = look("text_part", "![All of it](https://example.com/a.png)")
    assert (found.line, found.level) == (5, Level.BLOCK)
    assert look("text_part", "```\nSELECT 1\n```") == []


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("---\nsubject: Hi\n---\nOne\n{{ nam }}\n", 5, "no placeholder nam"),
        ("---\nsubject: Hi\nsubjekt: Hi\n---\nOne\n", 3, "not a key"),
        ("---\nsubject: Hi\ntemplate: digest\n---\n\n# One\n", 6, "no # heading"),
    ],
)
def test_what_keeps_a_file_from_being_read_is_a_finding(text: str, line: int, said: str) -> None:
    (found,) = Checker(PUBLICATION, TEMPLATES, RULES).check_text(text, name="a/b:c.md", now=NOW)
    assert (found.check, found.level, found.line) == ("file", Level.BLOCK, line)
    assert said in found.message
    assert found.hint
