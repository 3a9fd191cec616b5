"""Personal values: three forms, and none of them ever anything but text."""

import html
import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import IssueError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.placeholders import Marks, PersonalValue, Placeholders, fill
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication
from newsletter.settings.load import resource

PREFIX = "-nlabcdef"
ALL = Placeholders(
    PREFIX,
    f"{PREFIX}0u-",
    (
        PersonalValue("name", "reader", f"{PREFIX}1h-", f"{PREFIX}1t-", f"{PREFIX}1q-"),
        PersonalValue("attributes.company", "", f"{PREFIX}2h-", "", ""),
    ),
)
LINKS = {"unsubscribe_url": "https://n.example/unsubscribe/"}


def forms(value: object, default: str = "reader") -> tuple[str, str, str]:
    """HTML, plain and URL form of a name."""
    values = ALL.substitutions({"name": value, "email": "", "attributes": {}}, "tok")
    return values[f"{PREFIX}1h-"], values[f"{PREFIX}1t-"], values[f"{PREFIX}1q-"]


@given(st.text(max_size=120))
def test_any_text_reads_the_same_in_every_form(text: str) -> None:
    escaped, plain, url = forms(text)
    assert not re.search(r"[<>\"']|&(?!amp;|lt;|gt;|quot;|#x27;)", escaped)
    assert html.unescape(escaped) == plain == unquote(url)
    assert plain.isprintable() or not re.search(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", plain
    )
    if text.isprintable() and text.strip():
        assert plain == text


def test_a_value_that_is_missing_or_blank_gives_the_default() -> None:
    for nothing in ("", "  ", "\n", None, "\u00a0"):
        assert forms(nothing) == ("reader", "reader", "reader")
    assert ALL.substitutions({}, "tok")[f"{PREFIX}2h-"] == ""
    assert ALL.substitutions({"attributes": None}, "tok")[f"{PREFIX}1t-"] == "reader"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (42, "42"),
        (2.50, "2.5"),
        (["a", "b & c", 3], "a, b &amp; c, 3"),
        ([], ""),
        (None, ""),
    ],
)
def test_attributes_of_any_kind_are_readable(value: object, words: str) -> None:
    assert ALL.substitutions({"attributes": {"company": value}}, "t")[f"{PREFIX}2h-"] == words


def test_a_line_break_in_a_value_ends_no_subject() -> None:
    assert forms("Alice\r\nBcc: b@example.com\u2028x\x00")[1] == "Alice Bcc: b@example.com x"


def test_half_a_surrogate_pair_spoils_no_request() -> None:
    assert forms("a\ud83d")[1] == "a\ufffd"


@pytest.mark.parametrize("hostile", [f"{PREFIX}0u-", f"{PREFIX}2h-", f"x{PREFIX}"])
def test_a_tag_within_a_value_stays_text_also_when_tags_are_replaced_one_by_one(
    hostile: str,
) -> None:
    values = ALL.substitutions({"name": hostile, "attributes": {"company": "SECRET"}}, "TOKEN")
    for form in "htq":
        text = f"{PREFIX}1{form}-"
        for _ in range(2):
            for tag, value in values.items():
                text = text.replace(tag, value)
        assert "TOKEN" not in text
        assert "SECRET" not in text
    assert html.unescape(values[f"{PREFIX}1h-"]) == hostile
    assert unquote(values[f"{PREFIX}1q-"]) == hostile
    assert values[f"{PREFIX}1t-"].replace("\u2011", "-") == hostile


def test_the_longest_values_stay_below_the_providers_limit() -> None:
    values = tuple(
        PersonalValue(f"attributes.a{n}", "", *(f"{PREFIX}{n}{form}-" for form in "htq"))
        for n in range(9)
    )
    many = Placeholders(PREFIX, f"{PREFIX}0u-", values)
    for character in ("😀", '"', "x"):
        person = {"attributes": {f"a{n}": character * 10_000 for n in range(9)}}
        made = many.substitutions(person, "t" * 200)
        assert sum(len((tag + text).encode()) for tag, text in made.items()) <= 10_000
        assert made[f"{PREFIX}1t-"].endswith("…")


def test_they_come_back_from_json_as_they_were() -> None:
    back = Placeholders.from_json(json.loads(json.dumps(ALL.to_json())))
    assert back == ALL
    person = {"name": "A", "email": "", "attributes": {}}
    assert back.substitutions(person, "t") == ALL.substitutions(person, "t")


def test_filling_is_a_single_pass() -> None:
    assert fill("-a- -b-", {"-a-": "-b-", "-b-": "x"}) == "-b- x"
    assert fill("nothing", {}) == "nothing"


def marked(text: str, avoid: str = "") -> Marks:
    marks = Marks("seed", avoid=(avoid,), links=LINKS)
    marks.mark(text, name="a.md", line=1)
    return marks


def test_the_same_source_gives_the_same_tags_and_they_avoid_the_content() -> None:
    first = marked("").link("unsubscribe_url")
    assert first == marked("").link("unsubscribe_url")
    assert re.fullmatch(r"https://n\.example/unsubscribe/-nl[a-z0-9]{6}0u-", first)
    nonce = first.rsplit("/", 1)[1][1:9]
    assert nonce not in marked("", avoid=f"x{nonce.upper()}x").link("unsubscribe_url")


def test_the_same_placeholder_shares_a_tag_and_another_default_has_its_own() -> None:
    marks = Marks("seed", avoid=(), links=LINKS)
    text = '{{ name }}{{name}} {{ name | default("you") }}'
    tags = marks.in_text(marks.mark(text, name="a.md", line=1))
    same, other = re.findall(r"-nl\w+-", tags)[1:]
    assert tags == f"{same}{same} {other}"
    person = {"name": "", "email": "", "attributes": {}}
    assert fill(tags, marks.placeholders(tags).substitutions(person, "t")) == " you"


def test_only_tags_in_use_are_sent() -> None:
    marks = Marks("seed", avoid=(), links=LINKS)
    text = marks.in_html(marks.mark("{{ name }} {{ email }}", name="a.md", line=1))
    made = marks.placeholders(text.split()[0])
    assert [(v.name, bool(v.html), bool(v.plain), bool(v.url)) for v in made.values] == [
        ("name", True, False, False)
    ]
    assert made.token == ""
    assert len(made.substitutions({"name": "A"}, "t")) == 1


def test_no_issue_has_more_values_than_the_provider_takes() -> None:
    """It would refuse the request for each person in turn."""

    def rendered(number: int) -> int:
        body = " ".join(f"{{{{ attributes.a{n} }}}}" for n in range(number))
        draft = parse_issue(f"---\nsubject: S\n---\n\n{body}\n", name="x.md")
        publication = Publication(
            "N", "https://n.example", "Street 1", "a@n.example", "N", None, "en", None
        )
        return render(draft, publication, templates=resource("templates/email")).placeholders.tags

    # Each stands in the HTML part and in the text; the token of our own links is one more.
    assert rendered(74) == 149
    with pytest.raises(IssueError, match="151 values for each recipient"):
        rendered(75)
