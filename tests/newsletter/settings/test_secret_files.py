"""Secrets from files, as Docker and systemd hand them over."""

from pathlib import Path

import pytest

from newsletter.errors import SettingsError
from newsletter.settings import secret_files
from newsletter.settings.load import Settings, load, load_with_origins

KEYS = ("a" * 32, "b" * 32)


def test_each_secret_may_be_in_a_file(tmp_path: Path) -> None:
    contents = {
        "NEWSLETTER_DATABASE_URL": "postgresql://me:pass@host/name\n",
        "NEWSLETTER_SENDGRID__API_KEY": "SG.abc\r\n",
        "NEWSLETTER_LINKS__KEYS": "\n".join(KEYS) + "\n",
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": KEYS[0],
        "NEWSLETTER_INBOUND__KEY": KEYS[1],
        "NEWSLETTER_METRICS__TOKEN": KEYS[1],
    }
    environment = {}
    for name, text in contents.items():
        path = tmp_path / name
        path.write_bytes(text.encode())
        environment[f"{name}_FILE"] = str(path)
    settings, origins = load_with_origins(environment)
    assert settings.database_url == "postgresql://me:pass@host/name"
    assert settings.sendgrid.api_key.get_secret_value() == "SG.abc"
    assert tuple(key.get_secret_value() for key in settings.links.keys) == KEYS
    assert settings.subscribers.address_key.get_secret_value() == KEYS[0]
    assert settings.inbound.key.get_secret_value() == KEYS[1]
    sources = {origin.key: origin.source for origin in origins}
    for setting in secret_files.SETTINGS:
        name = f"NEWSLETTER_{setting.upper().replace('.', '__')}_FILE"
        assert sources[setting] == f"{name} ({environment[name]})"
    assert KEYS[0] not in repr(origins)


def test_every_secret_of_the_settings_is_known() -> None:
    secrets = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key, kind in getattr(field.annotation, "model_fields", {}).items()
        if "SecretStr" in repr(kind.annotation)
    }
    assert secrets | {"database_url"} == set(secret_files.SETTINGS)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "empty"), (b"\xff", "text file")]
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as caught:
        load({"NEWSLETTER_LINKS__KEYS_FILE": str(path)})
    assert caught.value.place == f"NEWSLETTER_LINKS__KEYS_FILE: {path}"


def test_a_value_and_a_file_are_too_much(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("SG.abc")
    name = "NEWSLETTER_SENDGRID__API_KEY"
    with pytest.raises(SettingsError, match=f"{name} is set, too") as caught:
        load({name: "SG.abc", f"{name}_FILE": str(tmp_path / "key")})
    assert caught.value.place == f"{name}_FILE"


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("News")
    with pytest.raises(SettingsError, match="no such setting"):
        load({"NEWSLETTER_SITE__NAME_FILE": str(tmp_path / "name")})


def test_env_may_name_files_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "key").write_text("SG.file\n")
    env = tmp_path / ".env"
    env.write_text(f"NEWSLETTER_SENDGRID__API_KEY_FILE={tmp_path / 'key'}\n")
    env.chmod(0o600)
    named = {"NEWSLETTER_CONFIG": str(tmp_path / "mine.toml")}
    assert load(named).sendgrid.api_key.get_secret_value() == "SG.file"
    settings = load({**named, "NEWSLETTER_SENDGRID__API_KEY": "SG.variable"})
    assert settings.sendgrid.api_key.get_secret_value() == "SG.variable"
