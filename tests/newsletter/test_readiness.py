"""Before mail leaves to people: links that lead here, an own address and sender, all keys."""

import json
import tomllib
from pathlib import Path

import pytest

from newsletter import readiness
from newsletter.container import Container
from newsletter.errors import SettingsError
from newsletter.settings.load import load, resource
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.newsletter.cli.test_commands import ISSUE, Run, add_readers, complaint, run

__all__ = ["run"]

#: A provider elsewhere; TEST-NET-1 (RFC 5737) answers nobody.
ELSEWHERE = "http://192.0.2.1:9"
OWN = {
    "NEWSLETTER_SENDGRID__HOST": ELSEWHERE,
    "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
    "NEWSLETTER_LINKS__KEYS": LINK_KEY,
    "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
    "NEWSLETTER_SITE__BASE_URL": "https://news.paper.org",
    "NEWSLETTER_SITE__POSTAL_ADDRESS": "1 Main Street, Springfield",
    "NEWSLETTER_SENDER__EMAIL": "editors@paper.org",
}


def lacks(**settings: str) -> list[str]:
    return [lack.key for lack in readiness.unfit(load({**OWN, **settings}))]


def test_own_values_are_fit_and_the_built_in_ones_only_for_a_sandbox_here() -> None:
    assert lacks() == []
    built_in = load({"NEWSLETTER_SENDGRID__HOST": ELSEWHERE})
    every = ["site.base_url", "site.postal_address", "sender.email"]
    assert [lack.key for lack in readiness.unfit(built_in)] == every
    assert [lack.key for lack in readiness.unfit(load({}))] == every
    for host in ("http://127.0.0.1:8025", "http://localhost:8025", "http://[::1]:8025"):
        assert readiness.unfit(load({"NEWSLETTER_SENDGRID__HOST": host})) == []


def test_the_production_example_is_not_fit_before_it_is_edited() -> None:
    example = resource("config") / "production.example.toml"
    found = readiness.unfit(load({"NEWSLETTER_CONFIG": str(example)}))
    every = ["site.base_url", "site.postal_address", "sender.email", "sender.reply_to"]
    assert [lack.key for lack in found] == every


def test_the_examples_of_the_files_are_known() -> None:
    for name in ("default.toml", "production.example.toml"):
        values = tomllib.loads((resource("config") / name).read_text())
        # The example of a file for production has them as initial values.
        values = values.get("initial", values)
        assert values["site"]["postal_address"] in readiness.EXAMPLE_ADDRESSES
        assert readiness.is_example(values["sender"]["email"])


@pytest.mark.parametrize(
    "url",
    [
        "http://news.paper.org", "http://127.0.0.1:8000", "https://127.0.0.1", "https://localhost",
        "https://news.localhost", "https://[::1]", "https://[::ffff:127.0.0.1]", "https://10.0.0.1",
        "https://192.168.1.5", "https://172.16.0.1", "https://169.254.1.1", "https://100.64.0.1",
        "https://[fe80::1]", "https://[fc00::1]", "https://0.0.0.0", "https://255.255.255.255",
        "https://192.0.2.1", "https://news", "https://news.local", "https://news.test",
        "https://news.example", "https://news.invalid", "https://example.com",
        "https://news.example.com", "https://NEWS.EXAMPLE.ORG", "https://example.net.",
        "https://news.internal", "https://news.home.arpa", "https://news.lan", "https://127.1",
        "https://0x7f.1", "https://2130706433", "https://news.onion",
    ],
)  # fmt: skip
def test_a_base_url_that_readers_cannot_reach_is_refused(url: str) -> None:
    assert lacks(NEWSLETTER_SITE__BASE_URL=url) == ["site.base_url"]


@pytest.mark.parametrize(
    "url", ["https://paper.org", "https://news.paper.org:8443", "https://myexample.com",
            "https://bücher.de", "https://93.184.215.14"]
)  # fmt: skip
def test_a_public_base_url_is_taken(url: str) -> None:
    assert lacks(NEWSLETTER_SITE__BASE_URL=url) == []


@pytest.mark.parametrize(
    "address",
    ["", " ", "Example Street 1, 12345 Example Town", "EXAMPLE STREET 1 12345  Example Town",
     "Paper, Example Street 1, 12345 Example Town, Germany",
     "Example Media GmbH, Beispielstraße 1, 10115 Berlin, Germany"],
)  # fmt: skip
def test_an_example_s_postal_address_is_refused(address: str) -> None:
    assert lacks(NEWSLETTER_SITE__POSTAL_ADDRESS=address) == ["site.postal_address"]


@pytest.mark.parametrize(
    "address", ["newsletter@example.com", "a@Example.ORG", "a@mail.example.net", "a@paper.test",
                "a@localhost", "a@paper.local", "a@paper"]
)  # fmt: skip
@pytest.mark.parametrize("key", ["SENDER__EMAIL", "SENDER__REPLY_TO", "INBOUND__ADDRESS"])
def test_an_example_s_mailbox_is_refused(key: str, address: str) -> None:
    assert lacks(**{f"NEWSLETTER_{key}": address}) == [key.lower().replace("__", ".")]


def test_the_way_out_is_closed_and_questions_are_not() -> None:
    parts = Container(load({**OWN, "NEWSLETTER_SITE__BASE_URL": "http://127.0.0.1:8000"}))
    with pytest.raises(SettingsError) as caught:
        _ = parts.gateway
    assert caught.value.place == "site.base_url"
    assert "not https" in caught.value.message
    assert "https address" in str(caught.value.hint)
    assert parts.provider
    assert Container(load(OWN)).gateway


#: Every command by which mail leaves, or that makes what leaves later.
SENDING = (
    "serve --port 0",
    "worker",
    "send issue.md --segment all",
    "send issue.md --segment all --at 2099-01-01T07:00Z",
    "send issue.md --segment all --despite-findings",
    "sends retry 1",
    "sends continue 1",
    "issue test issue.md --to alice@example.org",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", SENDING)
def test_no_command_sends_with_the_examples(words: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 1)
    said = complaint(run(*words.split(), NEWSLETTER_SENDGRID__HOST=ELSEWHERE), 2)
    for key in ("site.base_url", "site.postal_address", "sender.email"):
        assert key in said
    assert "http://127.0.0.1:8000, which is not https" in said
    assert "no sends" in run("sends").stderr


def test_the_check_blocks_and_says_each(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE.replace("---\n", "---\nfrom: a@example.org\n", 1))
    settings = {**OWN, "NEWSLETTER_SITE__BASE_URL": "http://127.0.0.1:8000"}
    settings |= {"NEWSLETTER_CHECKS__FILE": "mine.toml"}
    (tmp_path / "mine.toml").write_text('[sender_domain]\nlevel = "off"\n')
    done = run("check", "issue.md", "--json", **settings)
    found = [row for row in map(json.loads, done.stdout.splitlines()) if row["check"] == "settings"]
    assert done.returncode == 1
    assert [(row["level"], row["line"]) for row in found] == [("block", None), ("block", 2)]
    assert found[0]["message"].startswith("site.base_url is http://127.0.0.1:8000")
    assert "a@example.org" in found[1]["message"]
    # With a sandbox on this machine the same is no finding.
    settings["NEWSLETTER_SENDGRID__HOST"] = "http://127.0.0.1:9"
    assert '"settings"' not in run("check", "issue.md", "--json", **settings).stdout


#: Each with a key that it cannot do without; all that lack are told.
NEEDING = (
    ("serve --port 0", 3),
    ("worker", 3),
    ("send issue.md --segment all", 3),
    ("issue test issue.md --to alice@example.org", 3),
    ("reconcile", 3),
    ("subscribers import people.csv", 3),
    ("subscribers data alice@example.org", 3),
)


@pytest.mark.parametrize(("words", "number"), NEEDING)
def test_missing_keys_are_told_all_at_once(
    words: str, number: int, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    (tmp_path / "people.csv").write_text("email\nalice@example.org\n")
    nothing = {
        "NEWSLETTER_LINKS__KEYS": "",
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": "",
        "NEWSLETTER_SENDGRID__API_KEY": "",
    }
    said = complaint(run(*words.split(), **nothing), 2)
    for key in ("links.keys", "subscribers.address_key", "sendgrid.api_key"):
        assert key in said
    assert said.count("is not set") == number
    for name in ("LINKS__KEYS", "SUBSCRIBERS__ADDRESS_KEY", "SENDGRID__API_KEY"):
        assert f"export NEWSLETTER_{name}=" in said
    for purpose in ("sends the emails", "signs the links", "hashes addresses"):
        assert purpose in said
    assert "newsletter init" in said


def test_a_single_missing_key_has_a_hint_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("email\nalice@example.org\n")
    words = ("subscribers", "import", "people.csv")
    said = complaint(run(*words, NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY=""), 2)
    assert "subscribers.address_key: is not set" in said
    assert "never change it" in said
    assert "links.keys" not in said
    # Another key would not fit the database.
    assert "newsletter init" not in said
