"""A backup is put back, and the commands go on from there: nobody gets an issue twice."""

import shutil
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from newsletter.db.engine import beside, open_database, transaction
from newsletter.sandbox.server import RunningSandbox
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.ledger.forgotten_sends import ForgottenSendInfo
from newsletter.sending.planning.planner import plan
from tests.forking import command
from tests.newsletter.cli.test_commands import ISSUE, complaint
from tests.newsletter.cli.test_terminals import sandbox, settings
from tests.restoring import Backup

__all__ = ["sandbox", "settings"]


@pytest.fixture
def home(settings: dict[str, str], tmp_path: Path) -> Path:
    """A folder with an issue and a database of three readers, which is named by its whole path."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "issue.md").write_text(ISSUE)
    names = ("ada", "bob", "cleo")
    people = "".join(f"ok+{name}@example.org,{name.title()}\n" for name in names)
    (home / "people.csv").write_text(f"Email,Name\n{people}")
    settings["NEWSLETTER_DATABASE_URL"] = f"sqlite:///{home}/data/newsletter.db"
    for words in (
        ["subscribers", "import", "people.csv", "--confirmed"],
        ["segment", "create", "all"],
    ):
        done = command(words, environment=settings, folder=home)
        assert done.returncode == 0, done.stderr
    return home


def backup(home: Path) -> Backup:
    return Backup(open_database(f"sqlite:///{home}/data/newsletter.db"), home)


@pytest.mark.slow
def test_a_send_from_another_folder_is_known_after_a_restore(
    sandbox: RunningSandbox, settings: dict[str, str], home: Path, tmp_path: Path
) -> None:
    kept = backup(home)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    send = ["send", str(home / "issue.md"), "--segment", "all"]
    assert command(send, environment=settings, folder=elsewhere).returncode == 0
    assert list((home / "data" / "departures").glob("*.jsonl"))
    assert not list(elsewhere.iterdir())
    kept.put_back()
    complaint(command(send, environment=settings, folder=home), 3)
    assert set(Counter(mail.email for mail in sandbox.store.accepted(0)).values()) == {1}
    said = command(["doctor"], environment=settings, folder=elsewhere).stdout
    assert str(home / "data" / "departures") in "".join(said.split())


@pytest.mark.slow
def test_one_word_settles_one_request(settings: dict[str, str], home: Path) -> None:
    """Two forgotten sends of one issue, whose number was the same as well."""
    engine = open_database(f"sqlite:///{home}/data/newsletter.db")
    with transaction(engine) as session:
        for day in (1, 2):
            made = datetime(2026, 3, day, tzinfo=UTC)
            known = forgotten_sends.get_or_create(
                session, 1, made, ForgottenSendInfo("one", ""), now=made
            )
            forgotten_sends.add_recipients(session, known, 1, [b"%d" % day * 8], answered=False)
    engine.dispose()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return command(["departures", *words], environment=settings, folder=home)

    said = " ".join(run().stderr.split())
    for send in (1, 2):
        assert f"batch 1 of the send {send}, made 2026-03-0{send} 00:00:00 UTC" in said
        assert f"resolve one --batch 1 --send {send} --sent|--resend" in said
    refused = complaint(run("resolve", "one", "--batch", "1", "--resend"), 2)
    assert "choose one with --send N" in refused
    assert run("resolve", "one", "--batch", "1", "--send", "2", "--resend").returncode == 0
    said = " ".join(run().stderr.split())
    assert said.count("is uncertain") == 1
    assert "0 recipients" not in said
    assert run("resolve", "one", "--batch", "1", "--sent").returncode == 0
    assert "is uncertain" not in run().stderr


@pytest.mark.slow
def test_to_continue_is_refused_while_a_log_is_waited_for(
    settings: dict[str, str], home: Path
) -> None:
    """The log is lost: nothing would be sent, however long the command waited."""
    at = ["--at", "2099-01-01T07:00Z"]
    send = ["send", "issue.md", "--segment", "all"]
    assert command([*send, *at], environment=settings, folder=home).returncode == 0
    engine = open_database(f"sqlite:///{home}/data/newsletter.db")
    with transaction(engine) as session:
        plan(session, 1, now=datetime.now(UTC), batch_size=1)
    engine.dispose()
    shutil.rmtree(home / "data" / "departures")
    for words in (["sends", "continue", "1"], send):
        said = complaint(command(words, environment=settings, folder=home, seconds=30), 2)
        assert "sending waits until the departure logs are compared" in said
        assert "list of departure logs says what it waits for" in said


@pytest.mark.slow
def test_what_was_cancelled_waits_for_the_operator_after_a_restore(
    settings: dict[str, str], home: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return command(words, environment=settings, folder=home)

    at = ("--at", "2099-01-01T07:00Z")
    assert run("send", "issue.md", "--segment", "all", *at).returncode == 0
    kept = backup(home)
    assert run("sends", "cancel", "1").returncode == 0
    kept.put_back()
    looked = run("departures", "compare").stdout
    assert "1 sends were paused or cancelled" in " ".join(looked.split())
    refused = complaint(run("sends", "continue", "1"), 2)
    assert "it is paused: it was cancelled at" in refused
    assert run("sends", "resume", "1").returncode == 0
    assert "nothing" in run("departures", "compare").stdout
    assert "it is scheduled for a later time" in complaint(run("sends", "continue", "1"), 2)


@pytest.mark.parametrize(
    ("url", "folder", "where"),
    [
        ("sqlite:///data/newsletter.db", "departures", "{here}/data/departures"),
        ("sqlite:///data/newsletter.db", "/var/log/d", "/var/log/d"),
        ("sqlite:////srv/x/n.db", "../d", "/srv/x/../d"),
        ("sqlite:////srv/x/n.db?timeout=3", "d", "/srv/x/d"),
        ("sqlite:///file:/srv/a%20b/n.db?mode=rw&uri=true", "d", "/srv/a b/d"),
        ("sqlite:///other.db", "d", "{here}/data/d"),
        ("postgresql://u:p@host/name", "departures", "departures"),
        ("postgresql://u:p@host/name", "/var/log/d", "/var/log/d"),
    ],
)
def test_a_relative_folder_stands_beside_sqlites_file(
    url: str, folder: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the address is a link: one file has one folder."""
    here = tmp_path.resolve()
    (here / "data").mkdir()
    (here / "data" / "newsletter.db").touch()
    (here / "other.db").symlink_to(here / "data" / "newsletter.db")
    monkeypatch.chdir(here)
    assert str(beside(url, folder)) == where.format(here=here)
