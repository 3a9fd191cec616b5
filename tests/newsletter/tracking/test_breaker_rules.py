"""The file of rules: what it may say, and how a mistake is named with its line."""

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from newsletter.errors import SettingsError
from newsletter.provider.events import EventKind
from newsletter.settings.load import resource
from newsletter.tracking.breaker_rules import CountRule, SilenceRule, load_rules, parse_rules

SHIPPED = resource("config") / "alerts.toml"


def test_the_shipped_rules_load_and_say_what_to_do() -> None:
    rules = load_rules(SHIPPED)
    counting = [one for one in rules if isinstance(one, CountRule)]
    assert {kind for one in counting for kind in one.counts} == {
        EventKind.BOUNCE,
        EventKind.BLOCKED,
        EventKind.DROPPED,
        EventKind.SPAM_REPORT,
    }
    assert all(one.say and not one.say.endswith(".") for one in rules)


def test_the_page_for_operators_has_the_shipped_figures() -> None:
    path = Path(__file__).parents[3] / "docs" / "guides" / "circuit-breaker.md"
    page = path.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) % \| ([\d,]+) \| ([\d,]+) \|", page, re.M)
    documented = [
        (
            name,
            kinds,
            Decimal(above) / 100,
            int(least.replace(",", "")),
            int(people.replace(",", "")),
        )
        for name, kinds, above, least, people in rows
    ]
    assert documented == [
        (one.name, ", ".join(one.counts), one.above, one.at_least, one.after)
        for one in load_rules(SHIPPED)
        if isinstance(one, CountRule)
    ]


GOOD = {
    "name": '"bounces"',
    "counts": '["bounce"]',
    "of": '"accepted"',
    "above": "0.05",
    "at_least": "20",
    "after": "500",
    "say": '"look at the list"',
}


def written(**changes: str | None) -> str:
    """A rule as text; None leaves the field out."""
    fields = GOOD | changes
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[rule]]", *lines, ""])


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"abvoe": "0.05", "above": None}, "abvoe", "no such key\nKnown here: name, counts, of"),
        ({"above": None}, "above", "it is missing\nA share"),
        ({"above": '"0.05"'}, "above", "a share is a number\nA share"),
        ({"above": "true"}, "above", "a share is a number\nA share"),
        ({"above": "0"}, "above", "greater than 0\nA share"),
        ({"above": "-0.05"}, "above", "greater than 0\nA share"),
        ({"above": "5"}, "above", "less than or equal to 1\nA share"),
        ({"above": "nan"}, "above", "finite number\nA share"),
        ({"above": "inf"}, "above", "finite number\nA share"),
        ({"at_least": '"20"'}, "at_least", "valid integer\nA whole number of recipients"),
        ({"at_least": "20.0"}, "at_least", "valid integer\nA whole number of recipients"),
        ({"at_least": "0"}, "at_least", "greater than or equal to 1\nA whole number"),
        ({"after": "-1"}, "after", "greater than or equal to 1\nA whole number of recipients"),
        ({"of": '"delivered"'}, "of", "'accepted'"),
        ({"counts": '["bounced"]'}, "counts", "'bounced' is no kind of event"),
        ({"counts": '["open"]'}, "counts", "'open' is no kind of event"),
        ({"counts": '["bounce", 3]'}, "counts", "3 is no kind of event"),
        ({"counts": '[["bounce"]]'}, "counts", "is no kind of event"),
        ({"counts": "[]"}, "counts", "A list of some of: bounce, blocked, dropped, spamreport"),
        ({"counts": '"bounce"'}, "counts", "valid list\nA list of some of: bounce"),
        ({"say": '""'}, "say", "at least 1 character"),
        ({"say": '"a\\nb"'}, "say", "line breaks"),
        ({"say": f'"{"a" * 501}"'}, "say", "at most 500 characters"),
    ],
)
def test_a_wrong_rule_is_named_with_what_is_allowed(
    tmp_path: Path, changes: dict[str, str | None], field: str, words: str
) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(written(name='"first"') + written(**changes), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    keys = written(**changes).splitlines()
    line = next((n for n, key in enumerate(keys) if key.startswith(f"{field} =")), 0)
    assert caught.value.place == f"alerts.toml:{9 + line}: rule 2 (bounces): {field}"
    assert caught.value.hint
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "alerts.toml:1: rule", "it is missing\nRules begin with [[rule]]"),
        ("[[rules]]\n", "alerts.toml:1: rules", "no such key\nKnown here: rule."),
        ("rule = 3\n", "alerts.toml:1: rule", "valid list\nRules begin with [[rule]]"),
        ("rule = [3]\n", "alerts.toml:1: rule 1", "Rules begin with [[rule]]"),
        (written(name=None), "alerts.toml:1: rule 1: name", "it is missing"),
        (written(name="7"), "alerts.toml:2: rule 1 (7): name", "valid string"),
        (
            written() + written(name='"drops"') + written(),
            "alerts.toml:18: rule 3 (bounces): name",
            "rule 1 has the same name\nGive each rule",
        ),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, place: str, words: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.place == place
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, ""),
        (b"\xff\xfe", ""),
        (b"[[rule\n", ":1"),
        (b"a = 1\na = 2\n", ":2"),
        (b'[[rule]]\nname = "a"\ncounts = ["bounce",\n', ":3"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, line: str
) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.place == f"{file}{line}"
    assert caught.value.message.startswith("cannot be read: ")
    assert caught.value.hint


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        load_rules(tmp_path)


def test_no_rule_at_all_has_to_be_said(tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text("rule = []\n", encoding="utf-8")
    assert load_rules(file) == ()


TRICKY = """
# above = 3
[[rule]]
name = "first"
say = '''above = 7'''
counts = [
  # above = 8
  "bounce",
]
of = "accepted"
above = 0.5
at_least = 1
after = 1

[[ "rule" ]]  # the second
name = "second"
counts = [ "bounce",
"blocked" ]
of = "accepted"
  "above" = 5
at_least = 1
after = 1
say = "look"
"""


def test_the_line_is_the_fields_own_and_not_one_that_looks_like_it() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_rules(TRICKY, name="a.toml")
    assert caught.value.place == "a.toml:20: rule 2 (second): above"
    inline = 'rule = [\n{name = "a"}, {name = "b"}]\n'
    with pytest.raises(SettingsError) as caught:
        parse_rules(inline, name="a.toml")
    assert caught.value.place == "a.toml:1: rule 1 (a): say"


BY_DOMAIN: dict[str, str | None] = {"of": '"sent"', "by": '"domain"'}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"of": '"sent"'}, "of", 'is for rules with by = "domain"'),
        ({"by": '"domain"'}, "of", 'only "sent" is known'),
        (BY_DOMAIN | {"by": '"mailbox"'}, "by", "'domain'"),
        (BY_DOMAIN | {"domains": "[]"}, "domains", "at least 1 item"),
        (BY_DOMAIN | {"domains": '"gmail.com"'}, "domains", "valid list"),
        (BY_DOMAIN | {"domains": '["a@gmail.com"]'}, "domains", "'a@gmail.com' is no mail domain"),
        (BY_DOMAIN | {"domains": "[3]"}, "domains", "3 is no mail domain"),
        ({"domains": '["gmail.com"]'}, "domains", 'for rules with by = "domain"'),
    ],
)
def test_a_wrong_rule_by_domain_is_named(
    changes: dict[str, str | None], field: str, words: str
) -> None:
    text = written(**changes)
    with pytest.raises(SettingsError) as caught:
        parse_rules(text, name="a.toml")
    line = next(n for n, key in enumerate(text.splitlines(), 1) if key.startswith(f"{field} ="))
    assert caught.value.place == f"a.toml:{line}: rule 1 (bounces): {field}"
    assert caught.value.hint
    assert words in caught.value.message


def test_domains_are_compared_in_ascii_and_lower_case() -> None:
    (rule,) = parse_rules(written(**BY_DOMAIN, domains='["GMail.com", "BÜCHER.example"]'), name="a")
    assert isinstance(rule, CountRule)
    assert rule.domains == ["gmail.com", "xn--bcher-kva.example"]


SILENT = '[[rule]]\nname = "silent"\nsilence = {}\nsay = "look"\n'


@pytest.mark.parametrize(
    ("silence", "field", "words"),
    [
        ('"5m"', "silence", "not shorter than 10m"),
        ('"3d"', "silence", "not longer than 2d"),
        ('"soon"', "silence", "written like 30s"),
        ("2", "silence", "written like 30s"),
        ('"2h"\nabove = 0.5', "above", "no such key"),
    ],
)
def test_a_wrong_rule_about_silence_is_named(silence: str, field: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_rules(SILENT.format(silence), name="a.toml")
    line = 4 if field == "above" else 3
    assert caught.value.place == f"a.toml:{line}: rule 1 (silent): {field}"
    assert caught.value.hint
    assert words in caught.value.message


def test_a_rule_about_silence_needs_no_figures() -> None:
    (rule,) = parse_rules(SILENT.format('"2h"'), name="a.toml")
    assert isinstance(rule, SilenceRule)
    assert (rule.silence, rule.action, rule.limit) == (
        timedelta(hours=2),
        "pause",
        "no event for 2h",
    )
