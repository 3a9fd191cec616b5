"""`newsletter check`, preview and test mails as an operator meets them."""

import json
from pathlib import Path

import pytest

from newsletter.sandbox.server import SandboxConfig, start_sandbox
from newsletter.settings.load import resource
from tests.newsletter.cli.test_commands import ISSUE, SEED, Run, add_readers, complaint, run

__all__ = ["run"]

BROKEN = ISSUE.replace("{{ name }}", "{{ nam }}")
LINKED = ISSUE + "\nSee [this](example.com).\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(resource("issues").glob("*.md")), ids=lambda path: path.stem
)
def test_the_sample_issues_have_nothing_that_must_be_mended(run: Run, path: Path) -> None:
    done = run("check", str(path), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == []


def test_a_digest_that_was_imported_is_checked(run: Run) -> None:
    assert run("issue", "import", str(SEED), "-o", "seed.md").returncode == 0
    done = run("check", "seed.md", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {json.loads(line)["level"] for line in done.stdout.splitlines()} <= {"warn"}


def test_findings_come_with_line_and_remedy_and_a_code_when_one_blocks(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "issue.md").write_text(LINKED)
    done = run("check", "issue.md")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("check\tlevel\tline\tmessage\thint\n")
    assert "links\twarn\t7\texample.com is not a web address" in done.stdout
    (tmp_path / "issue.md").write_text(BROKEN)
    done = run("check", "issue.md", "--json")
    assert done.returncode == 1
    (found,) = map(json.loads, done.stdout.splitlines())
    assert (found["check"], found["level"], found["line"]) == ("file", "block", 5)
    assert found["hint"]
    assert "no such file" in complaint(run("check", "nothing.md"), 2)


@pytest.mark.slow
def test_a_stored_issue_is_checked_by_its_slug(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(LINKED)
    assert run("issue", "save", "issue.md").returncode == 0
    (tmp_path / "issue.md").unlink()
    done = run("check", "issue")
    assert "links\twarn\t7\texample.com is not a web address" in done.stdout
    assert "no such issue" in complaint(run("check", "other"), 2)


@pytest.mark.slow
def test_people_are_asked_when_a_segment_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 3)
    done = run("check", "issue.md", "--segment", "all", "--json")
    found = {one["check"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert "3 of 3 recipients would see a gap" in found["placeholders"]["message"]
    assert found["duration"]["level"] == "note"
    assert "no segment" in complaint(run("check", "issue.md", "--segment", "none"), 2)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[links\n", "cannot be read"),
        ('[linx]\nlevel = "off"', "linx: there is no such key"),
        ('[links]\nlevel = "loud"', "links.level: input should be"),
        ("[size]\nmost = -1", "size.most"),
        ("links = 3", "links: input should be"),
        ('[links]\nlevel = "off"\nlongest = 3', "links.longest: there is no such key"),
    ],
)
def test_a_wrong_rule_is_named(run: Run, tmp_path: Path, rules: str, said: str) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    (tmp_path / "rules.toml").write_text(rules)
    done = run("check", "issue.md", NEWSLETTER_CHECKS__FILE="rules.toml")
    text = complaint(done, 2)
    assert "rules.toml" in text
    assert said in text


@pytest.mark.slow
def test_a_send_is_refused_for_what_blocks_unless_somebody_insists(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "issue.md").write_text(LINKED)
    (tmp_path / "rules.toml").write_text('[links]\nlevel = "block"\n')
    own = {"NEWSLETTER_CHECKS__FILE": "rules.toml"}
    add_readers(tmp_path, run, 3)
    send = ("send", "issue.md", "--segment", "all", "--at", "2099-01-01T07:00Z")
    done = run(*send, **own)
    assert done.returncode == 2
    assert "issue.md:7: example.com is not a web address" in done.stderr
    assert "--despite-findings" in done.stderr
    assert "no sends" in run("sends").stderr
    assert "no preheader" not in done.stderr
    assert run(*send, "--despite-findings", **own).returncode == 0
    assert run("sends").stdout.count("\n") == 2
    assert "errors ignored" in run("user", "log").stdout


@pytest.mark.slow
def test_every_variant_of_a_test_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    (tmp_path / "other.md").write_text(LINKED)
    (tmp_path / "rules.toml").write_text(
        '[links]\nlevel = "block"\n[subject]\nlevel = "block"\nlongest = 20\n'
    )
    own = {"NEWSLETTER_CHECKS__FILE": "rules.toml"}
    add_readers(tmp_path, run, 3)
    send = ("send", "issue.md", "--segment", "all", "--at", "2099-01-01T07:00Z")
    assert "other.md:7" in run(*send, "--variant", "other.md", **own).stderr
    assert "issue.md:2: the subject has 24" in run(*send, "--subject", "x" * 24, **own).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "own"),
    [
        ("tracking", "{clicks: false}", None),
        ("tracking", "{opens: false, clicks: true}", "{opens: false}"),
        ("archive", "false", None),
        ("archive", "true", "false"),
        ("topics", "[tools]", None),
        ("topics", "[tools, news]", "[tools]"),
        ("series", "others", None),
        ("series", "others", "letters"),
        ("archive", None, "false"),
    ],
)
def test_a_variant_that_says_what_its_send_would_not_do_is_refused(
    run: Run, tmp_path: Path, key: str, value: str | None, own: str | None
) -> None:
    for name, said in (("issue.md", own), ("other.md", value)):
        front = f"---\n{key}: {said}\n" if said else "---\n"
        (tmp_path / name).write_text(ISSUE.replace("---\n", front, 1))
    add_readers(tmp_path, run, 3)
    send = ("send", "issue.md", "--segment", "all", "--at", "2099-01-01T07:00Z")
    told = complaint(run(*send, "--variant", "other.md", "--winner", "me", "--despite-findings"), 2)
    assert f"other.md:{2 if value else 1}: {key} of this variant differs" in told
    assert "no sends" in run("sends").stderr


@pytest.mark.slow
def test_a_variant_that_says_the_same_is_sent(run: Run, tmp_path: Path) -> None:
    for name in ("issue.md", "alike.md"):
        front = "---\narchive: false\nseries: letters\ntracking: {clicks: false}\n"
        (tmp_path / name).write_text(ISSUE.replace("---\n", front, 1))
    add_readers(tmp_path, run, 3)
    send = ("send", "issue.md", "--segment", "all", "--at", "2099-01-01T07:00Z")
    done = run(*send, "--variant", "alike.md", "--winner", "me", "--despite-findings")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_issue_is_shown_as_somebody_gets_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(
        ISSUE.replace("name", "email") + "![A](https://x.example/a.png)"
    )
    (tmp_path / "people.csv").write_text("Email,Name\nada@example.org,Ada\n")
    assert run("subscribers", "import", "people.csv", "--confirmed").returncode == 0
    shown = run("render", "issue.md", "--out", "o", "--as", "ADA@example.org", "--no-images")
    assert shown.returncode == 0, shown.stderr
    assert "Good day, ada@example.org." in (tmp_path / "o" / "issue.txt").read_text()
    assert "a.png" not in (tmp_path / "o" / "issue.html").read_text()
    nobody = run("render", "issue.md", "--out", "o", "--as", "nobody@example.org")
    assert "no subscriber has" in complaint(nobody, 2)


@pytest.mark.slow
def test_a_test_mail_goes_to_those_named_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 3)
    config = SandboxConfig(api_keys=frozenset({"SG.test"}), event_rates={}, event_delay=0.0)
    with start_sandbox(config) as sandbox:
        words = ("issue", "test", "issue.md", "--to", "me@example.org", "--to", "you@example.org")
        host = {"NEWSLETTER_SENDGRID__HOST": sandbox.url}
        done = run(*words, **host)
        assert done.returncode == 0, done.stderr
        assert sandbox.store.summary()["recipients"] == 2
        assert "refused it" in complaint(run(*words, **host, NEWSLETTER_SENDGRID__API_KEY="no"), 4)
    assert "no sends" in run("sends").stderr
