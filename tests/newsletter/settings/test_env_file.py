"""The files of the working directory: newsletter.toml and .env, and who wins."""

import os
from pathlib import Path

import pytest

from newsletter.errors import SettingsError
from newsletter.settings import env_file
from newsletter.settings.load import load, load_with_origins

KEY = "k" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with no settings in the environment."""
    for name in [name for name in os.environ if name.startswith("NEWSLETTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def sources() -> dict[str, str]:
    return {origin.key: origin.source for origin in load_with_origins()[1]}


def test_the_environment_wins_over_env_and_env_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "newsletter.toml", '[site]\nname = "A"\nlanguage = "de"\n[web]\nport = 1\n')
    write(folder / ".env", "# keys\n\nNEWSLETTER_SITE__NAME='B'\nNEWSLETTER_WEB__PORT=2\n")
    monkeypatch.setenv("NEWSLETTER_WEB__PORT", "3")
    settings = load()
    assert (settings.site.language, settings.site.name, settings.web.port) == ("de", "B", 3)
    found = sources()
    assert found["site.language"] == "newsletter.toml"
    assert found["site.name"] == ".env:3"
    assert found["web.port"] == "NEWSLETTER_WEB__PORT"


def test_a_named_file_has_its_own_env_and_an_empty_name_reads_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "newsletter.toml", '[site]\nname = "Here"\n')
    write(folder / ".env", "NEWSLETTER_WEB__PORT=2\n")
    there = folder / "there"
    there.mkdir()
    write(there / "mine.toml", '[site]\nname = "There"\n')
    write(there / ".env", f"NEWSLETTER_LINKS__KEYS={KEY}\n")
    monkeypatch.setenv("NEWSLETTER_CONFIG", str(there / "mine.toml"))
    settings = load()
    assert settings.site.name == "There"
    assert settings.links.keys[0].get_secret_value() == KEY
    assert settings.web.port == 8000
    monkeypatch.setenv("NEWSLETTER_CONFIG", "")
    assert load().site.name == "My newsletter"


def test_given_variables_stand_alone(folder: Path) -> None:
    write(folder / "newsletter.toml", "this is no toml")
    write(folder / ".env", "nor is this a line")
    assert load({}).site.name == "My newsletter"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X__Y=plain", "plain"),
        ("export X__Y=plain", "plain"),
        ("X__Y='with blanks and #'", "with blanks and #"),
        ('X__Y="O\'Neil"', "O'Neil"),
        ("X__Y=", ""),
        ("  X__Y=ü,é \r", "ü,é"),
        ("X__Y=https://a.example/b?c=%20", "https://a.example/b?c=%20"),
    ],
)
def test_values_are_read_as_a_shell_reads_them(folder: Path, line: str, value: str) -> None:
    write(folder / ".env", line)
    assert [found[1:] for found in env_file.lines(folder / ".env", "X__")] == [("X__Y", value)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("A=1\nnothing", 2, "sets no variable"),
        ("A = 1", 1, "sets no variable"),
        ("NEWSLETTER_SITE__NAME=My news", 1, "quoted"),
        ("NEWSLETTER_SITE__NAME='My news", 1, "quoted"),
        ("NEWSLETTER_SITE__NAME=$HOME", 1, "quoted"),
        ("NEWSLETTER_SITE__NAME=a #b", 1, "quoted"),
        ("NEWSLETTER_SITE__NAME=a\n\nNEWSLETTER_SITE__NAME=b", 3, "in line 1"),
        ("NEWSLETTER_CONFIG=x.toml", 1, "belong"),
    ],
)
def test_a_bad_line_is_named_and_not_shown(folder: Path, text: str, line: int, words: str) -> None:
    write(folder / ".env", text)
    with pytest.raises(SettingsError, match=words) as caught:
        load()
    assert caught.value.place == f".env:{line}"
    assert "My news" not in str(caught.value)


def test_a_wrong_value_is_named_with_the_line(folder: Path) -> None:
    write(folder / ".env", "\nNEWSLETTER_WEB__PORT=many\nNEWSLETTER_SITE__NAM=x\n")
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.place == ".env:3: site.nam"
    write(folder / ".env", "\nNEWSLETTER_WEB__PORT=many\n")
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.place == ".env:2: web.port"


def test_bytes_that_are_no_text_are_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(SettingsError, match="UTF-8") as caught:
        load()
    assert caught.value.place == ".env:2"


def test_keys_that_everybody_can_read_are_refused(folder: Path) -> None:
    write(folder / ".env", f"NEWSLETTER_LINKS__KEYS={KEY}\n", mode=0o644)
    with pytest.raises(SettingsError, match="everybody") as caught:
        load()
    assert caught.value.hint == "Run: chmod 600 .env"
    # A group is chosen on purpose, and other programs' files are not ours to judge.
    (folder / ".env").chmod(0o640)
    assert load().links.keys
    write(folder / ".env", "POSTGRES_DB=news\n", mode=0o644)
    load()


def test_a_folder_of_that_name_is_no_file(folder: Path) -> None:
    (folder / ".env").mkdir()
    load()


@pytest.mark.parametrize("value", ["plain", "two words", "O'Neil", 'a "quoted" one', ""])
def test_what_is_written_is_read_again(folder: Path, value: str) -> None:
    write(folder / ".env", env_file.line("X__Y", value))
    assert [found[2] for found in env_file.lines(folder / ".env", "X__")] == [value]


def test_what_no_quotes_can_hold_is_refused() -> None:
    with pytest.raises(SettingsError, match="quotes"):
        env_file.line("X", "'\"")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["newsletter.toml", ".env"])
def test_files_of_other_users_are_read_only_if_they_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(folder / "newsletter.toml", '[site]\nname = "Theirs"\n')
    write(folder / ".env", "")
    os.chown(folder / name, 12345, 12345)
    with pytest.raises(SettingsError, match="another user") as caught:
        load()
    assert caught.value.place == name
    assert "NEWSLETTER_CONFIG=newsletter.toml" in str(caught.value.hint)
    monkeypatch.setenv("NEWSLETTER_CONFIG", "newsletter.toml")
    assert load().site.name == "Theirs"
