"""The command line as an operator meets it: a mistake ends in words and an exit code."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from newsletter.db.engine import open_database
from newsletter.sandbox.server import SandboxConfig, start_sandbox
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.forking import command

SEED = Path(__file__).parents[1] / "issues" / "engineering-at-scale-2026-03-27.txt"
ISSUE = "---\nsubject: Hello\n---\n\nGood day, {{ name }}.\n"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in an empty folder, with the least environment that it needs."""

    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "NEWSLETTER_LINKS__KEYS": LINK_KEY,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
            "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
            **settings,
        }
        return command(words, environment=environment, folder=tmp_path)

    return run


def complaint(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_help_names_every_command(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("issue", "render", "send", "sends", "segment", "serve", "sandbox", "settings"):
        assert name in done.stdout


def test_settings_are_listed_with_their_source_and_secrets_masked(run: Run) -> None:
    done = run("settings", "--json", NEWSLETTER_SITE__NAME="Paper")
    found = {row["setting"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert found["site.name"] == {
        "setting": "site.name",
        "value": "Paper",
        "from": "NEWSLETTER_SITE__NAME",
    }
    assert LINK_KEY not in done.stdout
    assert run("settings").stdout.splitlines()[0] == "setting\tvalue\tfrom"


def test_a_wrong_setting_stops_the_start(run: Run) -> None:
    said = complaint(run("settings", NEWSLETTER_SITE__NAM="x"), 2)
    assert "NEWSLETTER_SITE__NAM: site.nam: there is no such setting" in said
    assert "base_url" in said


def test_the_seed_is_imported_and_rendered(run: Run, tmp_path: Path) -> None:
    done = run("issue", "import", str(SEED), "-o", "issue.md")
    assert done.returncode == 0
    assert "18 entries" in done.stdout
    assert (tmp_path / "issue.md").read_text().count("\n### ") == 18
    assert "the file exists" in complaint(run("issue", "import", str(SEED), "-o", "issue.md"), 2)
    done = run("render", "issue.md", "--out", "out")
    assert done.returncode == 0
    assert "bytes" in done.stdout
    assert "<!DOCTYPE html>" in (tmp_path / "out/issue.html").read_text()
    assert "Signal of the Day" in (tmp_path / "out/issue.txt").read_text()


def test_a_rendered_issue_has_the_defaults_of_its_placeholders(run: Run, tmp_path: Path) -> None:
    greeting = '{{ name | default("you") }}'
    subject = '"Hello, {{ name | default(\\"reader\\") }}"'
    issue = f"---\nsubject: {subject}\n---\n\nDear {greeting},\n"
    (tmp_path / "issue.md").write_text(issue)
    done = run("render", "issue.md", "--out", "out")
    assert "Hello, reader" in done.stdout
    for name in ("issue.html", "issue.txt"):
        text = (tmp_path / "out" / name).read_text()
        assert "Dear you," in text
        assert not re.search(r"-nl[a-z0-9]+-", text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("---\nslug: x\n---\nHello\n", "subject"),
        ("---\nsubject: [\n---\nHello\n", "issue.md:"),
        ("---\nsubject: x\nsubjekt: y\n---\nHello\n", "subjekt"),
        ("---\nsubject: x\n---\n\nHello {{ nmae }}\n", "issue.md:5"),
        ("Just some words.\n", "issue.md:1"),
    ],
)
def test_a_malformed_issue_is_named_with_its_line(
    run: Run, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "issue.md").write_text(content)
    assert words in complaint(run("render", "issue.md", "--out", "out"), 2)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(run: Run) -> None:
    assert "nowhere.md" in complaint(run("render", "nowhere.md", "--out", "out"), 2)


def test_a_template_mistake_is_named_with_its_line(run: Run, tmp_path: Path) -> None:
    from shutil import copytree

    from newsletter.settings.load import resource

    copytree(resource("templates/email"), tmp_path / "mine")
    letter = tmp_path / "mine" / "letter.mjml"
    letter.write_text(letter.read_text().replace("</mj-body>", "<mj-broken></mj-body>"))
    (tmp_path / "issue.md").write_text(ISSUE)
    done = run("render", "issue.md", "--out", "out", NEWSLETTER_TEMPLATES__DIRECTORY="mine")
    assert "letter.mjml:" in complaint(done, 2)


@pytest.mark.slow
def test_an_unknown_and_an_empty_segment_send_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    said = complaint(run("send", "issue.md", "--segment", "nobody"), 2)
    assert "there is no segment of this name" in said
    assert run("segment", "create", "nobody").returncode == 0
    said = complaint(run("send", "issue.md", "--segment", "nobody"), 3)
    assert "nobody would get this issue" in said
    assert "no sends" in run("sends").stderr


def add_readers(tmp_path: Path, run: Run, number: int) -> None:
    """Sample people by SQL: importing is tested elsewhere."""
    assert run("segment", "create", "all").returncode == 0
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'newsletter.db'}")
    with engine.begin() as connection:
        for n in range(number):
            connection.execute(
                text(
                    "INSERT INTO subscriber (email, address_hash, name, attributes, source,"
                    " created_at, confirmed_at) VALUES (:email, :hash, '', '{}', '',"
                    " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')"
                ),
                {"email": f"ok+{n}@example.org", "hash": bytes([n]) * 16},
            )
    engine.dispose()


def test_a_send_now_reaches_everybody_and_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 3)
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as sandbox:
        done = run("send", "issue.md", "--segment", "all", NEWSLETTER_SENDGRID__HOST=sandbox.url)
        assert done.returncode == 0, done.stderr
        assert sandbox.store.summary()["recipients"] == 3
    shown = run("sends", "--json").stdout
    assert json.loads(shown)["state"] == "sent"
    assert "accepted" in run("sends", "show", "1").stdout
    assert complaint(run("send", "issue.md", "--segment", "all"), 3).count("3 had this issue") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "sender", "words"),
    [
        ("SG.wrong", "example.com", "does not know the API key"),
        ("SG.test", "elsewhere.example", "Verify the sender's domain"),
    ],
)
def test_a_wrong_key_or_sender_pauses_with_the_next_step_and_resumes(
    run: Run, tmp_path: Path, key: str, sender: str, words: str
) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 3)
    config = SandboxConfig(api_keys=frozenset({"SG.test"}), verified_senders=frozenset({sender}))
    with start_sandbox(config) as sandbox:
        done = run(
            "send", "issue.md", "--segment", "all",
            NEWSLETTER_SENDGRID__HOST=sandbox.url, NEWSLETTER_SENDGRID__API_KEY=key,
        )  # fmt: skip
        assert done.returncode == 4
        assert words in done.stderr.split("\nerror: ")[1]
        assert sandbox.store.summary()["recipients"] == 0
    assert json.loads(run("sends", "--json").stdout)["state"] == "paused"
    assert run("sends", "resume", "1").returncode == 0
    assert json.loads(run("sends", "--json").stdout)["state"] == "sending"


@pytest.mark.slow
def test_a_send_for_later_waits_and_can_be_cancelled(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issue.md").write_text(ISSUE)
    add_readers(tmp_path, run, 3)
    later = ("send", "issue.md", "--segment", "all", "--at")
    assert "not a time" in complaint(run(*later, "soon"), 2)
    assert "past" in complaint(run(*later, "2020-01-01T00:00Z"), 2)
    assert "the year 9999" in complaint(run(*later, "9999-12-31T23:30-12:00"), 2)
    assert "scheduled for" in run(*later, "2099-01-01T07:00+02:00").stdout
    assert run("sends", "cancel", "1").returncode == 0
    assert "cannot become" in complaint(run("sends", "pause", "1"), 2)
    assert "no such send" in complaint(run("sends", "show", "7"), 2)


def test_a_newer_database_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("db", "upgrade").returncode == 0
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'newsletter.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for words in (("db", "upgrade"), ("sends",), ("serve",)):
        assert "newer release" in complaint(run(*words), 5)


def test_a_port_in_use_and_a_missing_key_stop_the_service(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot listen" in complaint(run("serve", "--port", port), 6)
        assert "cannot listen" in complaint(run("sandbox", "--port", port), 6)
    said = complaint(run("serve", NEWSLETTER_LINKS__KEYS=""), 2)
    assert "NEWSLETTER_LINKS__KEYS" in said
    assert "secrets.token_urlsafe" in said


@pytest.mark.slow
def test_topics_are_made_and_unknown_ones_are_named(run: Run, tmp_path: Path) -> None:
    add_readers(tmp_path, run, 1)
    (tmp_path / "issue.md").write_text(ISSUE.replace("subject", "topics: [tech]\nsubject"))
    said = complaint(run("send", "issue.md", "--segment", "all"), 2)
    assert "Create the topic first, for example as tech" in said
    assert run("topic", "create", "tech").returncode == 0
    assert "1 topic" in complaint(run("send", "issue.md", "--segment", "all"), 3)
    assert json.loads(run("topic", "list", "--json").stdout)["subscribers"] == 0


@pytest.mark.slow
def test_people_come_in_go_out_and_are_forgotten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("Email,Name\nada@example.org,Ada\nnobody,X\n")
    said = complaint_after_notes(run("subscribers", "import", "people.csv", "--confirmed"))
    assert "1 rows were rejected" in said
    assert "line 3" in said
    assert run("segment", "create", "all").returncode == 0
    assert "can be emailed  1" in run("segment", "count", "all").stdout
    assert run("subscribers", "export", "out.csv").returncode == 0
    assert "ada@example.org" in (tmp_path / "out.csv").read_text()
    assert "the file exists" in complaint(run("subscribers", "export", "out.csv"), 2)
    kept = json.loads(run("subscribers", "data", "ADA@example.org").stdout)
    assert kept["consent"][0]["act"] == "imported"
    assert run("subscribers", "erase", "ada@example.org", "--yes").returncode == 0
    assert "no subscriber has this address" in complaint(
        run("subscribers", "data", "ada@example.org"), 2
    )
    again = run("subscribers", "import", "out.csv", "--json")
    assert json.loads(again.stdout)["not imported: erased"] == 1
    # A database that is restored from a backup would have forgotten it.
    (log_file,) = (tmp_path / "data" / "departures").glob("*.jsonl")
    assert '"erased"' in log_file.read_text()


def complaint_after_notes(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_file_without_addresses_is_named_with_what_was_seen(run: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("Name,Plan\nAda,pro\n")
    said = complaint(run("subscribers", "import", "people.csv"), 2)
    assert "people.csv" in said
    assert "email" in said.lower()


@pytest.mark.slow
def test_an_issue_is_put_into_the_archive_and_taken_out(run: Run, tmp_path: Path) -> None:
    assert "there is no such issue" in complaint(run("issue", "archive", "first", "--on"), 2)
    (tmp_path / "first.md").write_text(ISSUE)
    (tmp_path / "people.csv").write_text("email\nalice@example.org\n")
    run("subscribers", "import", "people.csv", "--confirmed")
    run("segment", "create", "everybody")
    at = ("--at", "2099-01-01T07:00Z", "--segment", "everybody")
    assert run("send", "first.md", *at).returncode == 0
    off = run("issue", "archive", "first", "--off")
    assert (off.returncode, off.stdout.split(".")[0]) == (0, "first is not in the archive")
    on = run("issue", "archive", "first", "--on")
    assert "once it is sent: http://127.0.0.1:8000/archive/first" in on.stdout
    assert run("issue", "archive", "first").returncode == 2
    entries = json.loads("[" + ",".join(run("user", "log", "--json").stdout.splitlines()) + "]")
    switched = [one["to"] for one in entries if "archive" in one["what"]]
    assert switched == ["first", "first"]


@pytest.mark.slow
def test_a_list_says_in_a_pipe_what_each_column_became_and_asks_before_it_mails(
    run: Run, tmp_path: Path
) -> None:
    run("topic", "create", "engineering")
    (tmp_path / "hubspot.csv").write_text(
        "Email,Unsubscribed from all email,Tags,Newsletter\n"
        "ada@example.org,,Engineering,yes\nbob@example.org,true,,yes\n"
    )
    asked = run("subscribers", "import", "hubspot.csv", "--confirmed")
    said = complaint(asked, 2)
    assert "the column “Newsletter” may say who left or may be emailed: “yes” (line 2)" in said
    assert '--map "Newsletter=' in said
    assert "--ignore-column" in said
    dry = run("subscribers", "import", "hubspot.csv", "--dry-run", "--confirmed")
    assert dry.returncode == 2
    assert re.search(r"would get email +0 of 2", dry.stdout)
    done = run("subscribers", "import", "hubspot.csv", "--confirmed", "--ignore-column=newsletter")
    assert done.returncode == 0, done.stderr
    for fact in (
        *(r"get email +1 of 2", r"suppressed: unsubscribed +1", r"topic engineering +1"),
        *(r"Unsubscribed from all email +unsubscribed", r"Tags +tags", r"Newsletter +ignored"),
    ):
        assert re.search(fact, done.stdout), fact
    told = json.loads(
        run(
            "subscribers", "import", "hubspot.csv", "--json", "--map", "Newsletter=attribute"
        ).stdout
    )
    assert (told["mailed"], told["columns"][1]) == (
        1,
        {"column": "Unsubscribed from all email", "becomes": "unsubscribed"},
    )
    (tmp_path / "optouts.txt").write_text("ada@example.org\n")
    assert "--as unsubscribed" in complaint(run("subscribers", "import", "optouts.txt"), 2)
    assert run("subscribers", "import", "optouts.txt", "--as", "unsubscribed").returncode == 0
    again = run("subscribers", "import", "hubspot.csv", "--confirmed", "--map=Newsletter=consent")
    assert re.search(r"get email +0 of 2", again.stdout)
