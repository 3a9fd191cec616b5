"""`newsletter init`: two files or none, nothing overwritten, no question in a pipe."""

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from newsletter.settings.load import load
from tests.forking import command
from tests.newsletter.cli.test_commands import complaint
from tests.pseudo_terminal import Terminal

Init = Callable[..., subprocess.CompletedProcess[str]]
LOCAL = "--sandbox --name News --sender-email me@example.org"
REAL = (
    "--sendgrid-key-stdin --name News --sender-email me@paper.org "
    "--base-url https://news.paper.org --postal-address '1 Main Street'"
)


@pytest.fixture
def init(tmp_path: Path) -> Init:
    def init(words: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        told = {"PATH": os.environ["PATH"], **environment}
        return command(["init", *shlex.split(words)], environment=told, folder=tmp_path)

    return init


def with_key(words: str, key: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("newsletter"), "init", *shlex.split(words)],
        input=f"{key}\n",
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_options_make_both_files(init: Init, tmp_path: Path) -> None:
    done = init(f"'my news' {LOCAL}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cd 'my news'\nnewsletter serve --sandbox\n"
    folder = tmp_path / "my news"
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    assert tomllib.loads((folder / "newsletter.toml").read_text()) == {
        "site": {"base_url": "http://127.0.0.1:8000"},
        "sendgrid": {"host": "http://127.0.0.1:8025"},
        "initial": {
            "site": {"name": "News"},
            "sender": {"name": "News", "email": "me@example.org"},
        },
    }
    settings = load({"NEWSLETTER_CONFIG": str(folder / "newsletter.toml")})
    assert settings.sendgrid.api_key.get_secret_value() == "SG.sandbox"
    keys = [settings.links.keys[0], settings.subscribers.address_key]
    assert len({key.get_secret_value() for key in keys}) == 2
    assert all(len(key.get_secret_value()) >= 32 for key in keys)


def test_the_publication_begins_with_the_answers_and_can_be_changed(
    init: Init, tmp_path: Path
) -> None:
    assert init(LOCAL).returncode == 0
    environment = {"PATH": os.environ["PATH"]}

    def settings(words: str = "") -> str:
        done = command(["settings", *shlex.split(words)], environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "site.name\tNews\tnewsletter.toml [initial]" in settings()
    assert not (tmp_path / "data").exists()
    settings("set sender.email desk@paper.org")
    said = settings()
    assert "sender.email\tdesk@paper.org\tconsole (database)" in said
    assert "site.name\tNews\tconsole (database), (initial value)" in said


def test_a_shell_reads_the_same_values(init: Init, tmp_path: Path) -> None:
    assert init(LOCAL).returncode == 0
    script = 'set -a; . ./.env; echo "$NEWSLETTER_LINKS__KEYS"'
    said = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    settings = load({"NEWSLETTER_CONFIG": str(tmp_path / "newsletter.toml")})
    assert said.strip() == settings.links.keys[0].get_secret_value()


def test_in_a_pipe_all_missing_answers_are_named(init: Init, tmp_path: Path) -> None:
    said = complaint(init(), 2)
    for option in ("--name", "--sender-email", "--sandbox or --sendgrid-key-stdin"):
        assert option in said
    assert list(tmp_path.iterdir()) == []


def test_the_key_comes_from_standard_input(tmp_path: Path) -> None:
    done = with_key(f"real {REAL}", "SG.secret", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cd real\nnewsletter serve\n"
    folder = tmp_path / "real"
    assert "SG.secret" not in (folder / "newsletter.toml").read_text() + done.stderr
    settings = load({"NEWSLETTER_CONFIG": str(folder / "newsletter.toml")})
    assert settings.sendgrid.api_key.get_secret_value() == "SG.secret"
    assert settings.sendgrid.host == "https://api.sendgrid.com"
    assert settings.site.postal_address == "1 Main Street"


def test_behind_tls_the_proxy_of_this_machine_is_trusted(tmp_path: Path) -> None:
    done = with_key(f"{REAL} --webhook-key ' MFkwKey '", "SG.secret", tmp_path)
    assert done.returncode == 0, done.stderr
    settings = load({"NEWSLETTER_CONFIG": str(tmp_path / "newsletter.toml")})
    assert [str(one) for one in settings.web.trusted_proxies] == ["127.0.0.1/32"]
    assert settings.sendgrid.webhook_public_keys == ["MFkwKey"]
    assert settings.explicit_source("site.name") is None
    assert settings.site.name == "News"


def test_a_password_of_the_database_goes_to_env(tmp_path: Path) -> None:
    url = "postgresql://me:s3cret@host/news"
    done = with_key(f"{REAL} --database {url}", "SG.secret", tmp_path)
    assert done.stdout == "newsletter db upgrade\nnewsletter serve\n"
    assert "s3cret" not in (tmp_path / "newsletter.toml").read_text()
    assert load({"NEWSLETTER_CONFIG": str(tmp_path / "newsletter.toml")}).database_url == url


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("--name ''", "--name"),
        ("--base-url nowhere", "--base-url"),
        ("--sender-email 'Me <me@example.org>'", "--sender-email"),
        ("--database mysql://host/name", "--database"),
        ("--sendgrid-key-stdin", "--sandbox, --sendgrid-key-stdin"),
    ],
)
def test_a_wrong_answer_is_named_with_its_option(
    init: Init, tmp_path: Path, words: str, place: str
) -> None:
    assert f"error: {place}: " in complaint(init(f"{LOCAL} {words}"), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["newsletter.toml", ".env"])
def test_what_exists_is_never_overwritten(init: Init, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert f"{name}: the file exists" in complaint(init(LOCAL), 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_database_with_its_own_keys_gets_no_new_ones(init: Init, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "newsletter.db").touch()
    assert "belongs to its own keys" in complaint(init(LOCAL), 2)
    assert not (tmp_path / ".env").exists()


def test_a_folder_that_cannot_be_made_is_named(init: Init, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in complaint(init(f"file/below {LOCAL}"), 6)


def test_variables_that_win_are_named(init: Init) -> None:
    done = init(LOCAL, NEWSLETTER_SITE__NAME="Other")
    assert "it sets: NEWSLETTER_SITE__NAME" in done.stderr


def test_a_terminal_is_asked_until_the_answers_are_valid(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    with Terminal(["init"], environment=environment, folder=tmp_path) as terminal:
        terminal.wait_for("Name of the publication")
        terminal.type("My news")
        terminal.wait_for("Email address of the sender")
        terminal.type("me")
        terminal.wait_for("an address is written like")
        terminal.type("me@paper.org")
        terminal.wait_for("Name of the sender [My news]")
        terminal.type("")
        terminal.wait_for("API key")
        terminal.type_hidden("SG.s3cret")
        terminal.wait_for("Public address of the service")
        terminal.type("http://news.paper.org")
        terminal.wait_for("Postal address")
        terminal.type("1 Main Street")
        assert terminal.end() == 0, terminal.said
        assert "s3cret" not in terminal.said
        assert "Before you send: site.base_url" in terminal.words
        assert terminal.said.endswith("newsletter serve\n")
    settings = load({"NEWSLETTER_CONFIG": str(tmp_path / "newsletter.toml")})
    assert settings.sender.name == "My news"
    assert settings.sender.email == "me@paper.org"


def test_no_key_on_a_terminal_is_the_sandbox(tmp_path: Path) -> None:
    words = shlex.split("init --name News --sender-email me@example.org")
    environment = {"PATH": os.environ["PATH"]}
    with Terminal(words, environment=environment, folder=tmp_path) as terminal:
        terminal.wait_for("API key")
        terminal.type_hidden("")
        terminal.wait_for("Public address")
        terminal.type("")
        assert terminal.end() == 0, terminal.said
        assert "Postal address" not in terminal.said
        assert terminal.said.endswith("newsletter serve --sandbox\n")


def test_a_terminal_is_not_asked_for_what_has_a_default(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    words = shlex.split(f"init {LOCAL}")
    with Terminal(words, environment=environment, folder=tmp_path) as terminal:
        assert terminal.end() == 0, terminal.said
