"""Settings: what is in force, where it came from, and what stops the start."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import SettingsError
from newsletter.settings.load import Settings, load, load_with_origins, resource


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[site]\nname = "From the file"\nbase_url = "https://file.example"\n')
    settings, origins = load_with_origins(
        {"NEWSLETTER_CONFIG": str(file), "NEWSLETTER_SITE__BASE_URL": "https://env.example/"}
    )
    assert settings.site.name == "From the file"
    assert settings.site.base_url == "https://env.example"
    sources = {origin.key: origin.source for origin in origins}
    assert sources["site.name"] == str(file)
    assert sources["site.base_url"] == "NEWSLETTER_SITE__BASE_URL"
    assert sources["site.language"] == "default.toml"


def test_only_defaults_yield_to_initial_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[initial]\nsite.name = "A"\nsite.language = "de"\nsender.name = "B"\n'
        '[site]\nlanguage = "fr"\n'
    )
    settings = load({"NEWSLETTER_CONFIG": str(file), "NEWSLETTER_SENDER__NAME": "C"})
    assert (settings.site.name, settings.site.language, settings.sender.name) == ("A", "fr", "C")
    assert settings.initial == {"site.name"}
    assert settings.sources["site.name"] == f"{file} [initial]"
    assert settings.explicit_source("site.name") is None
    assert settings.explicit_source("site.language") == str(file)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('initial = "x"', "[initial]", "only settings of the publication"),
        ('[initial]\nsite = "x"', "[initial]: site", "a section, not a setting"),
        ('[initial]\nsite.base_url = "https://a.org"', "[initial]: site.base_url", "only settings"),
        ('[initial]\nsite.nam = "x"', "[initial]: site.nam", "only settings"),
        ('[initial]\nsite.name.x = "x"', "[initial]: site.name.x", "only settings"),
        ('[initial]\nsender.email = "me"', "[initial]: sender.email", "an address is written"),
    ],
)
def test_a_wrong_initial_value_is_named(tmp_path: Path, text: str, place: str, words: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load({"NEWSLETTER_CONFIG": str(file)})
    assert place in str(caught.value.place)


def test_secrets_are_masked() -> None:
    secret = "s3cret" * 8
    _, origins = load_with_origins(
        {
            "NEWSLETTER_SENDGRID__API_KEY": secret,
            "NEWSLETTER_LINKS__KEYS": secret,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": secret,
            "NEWSLETTER_DATABASE_URL": f"postgresql://me:{secret}@host/name",
        }
    )
    assert secret not in repr(origins)


@pytest.mark.parametrize(
    ("name", "value", "place", "words"),
    [
        ("NEWSLETTER_SITE__BAS_URL", "x", "site.bas_url", "no such setting"),
        ("NEWSLETTER_NOTHING", "x", "nothing", "no such setting"),
        ("NEWSLETTER_SENDING__BATCH_SIZE", "5000", "sending.batch_size", "1000"),
        ("NEWSLETTER_SENDING__BATCH_SIZE", "many", "sending.batch_size", "integer"),
        ("NEWSLETTER_SENDING__LATE_LIMIT", "soon", "sending.late_limit", "30s, 15m, 6h"),
        ("NEWSLETTER_SENDING__UNCERTAIN_POLICY", "guess", "sending.uncertain_policy", "hold"),
        ("NEWSLETTER_SITE__BASE_URL", "news.example", "site.base_url", "https://"),
        ("NEWSLETTER_SITE__NAME", "a\nBcc: x", "site.name", "line breaks"),
        ("NEWSLETTER_SENDER__EMAIL", "Me <me@x.example>", "sender.email", "without a name"),
        ("NEWSLETTER_SENDGRID__API_KEY", "SG.abc\n", "sendgrid.api_key", "line breaks"),
        ("NEWSLETTER_SENDGRID__API_KEY", "SG.abc…", "sendgrid.api_key", "ASCII"),
        ("NEWSLETTER_SENDGRID__HOST", "https://a.example\n", "sendgrid.host", "line breaks"),
        ("NEWSLETTER_SENDGRID__HOST", "https://a.example:x", "sendgrid.host", "ort"),
        ("NEWSLETTER_LINKS__KEYS", "short", "links.keys", "32 characters"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    name: str, value: str, place: str, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    assert caught.value.place == f"{name}: {place}"
    assert words in str(caught.value)


def test_a_key_that_is_refused_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"NEWSLETTER_SENDGRID__API_KEY": "SG.s3cret\n"})
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_an_unknown_key_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[sendgrid]\ntimout = '5s'\n")
    with pytest.raises(SettingsError) as caught:
        load({"NEWSLETTER_CONFIG": str(file)})
    assert caught.value.place == f"{file}: sendgrid.timout"
    assert "timeout" in str(caught.value.hint)


def test_a_file_that_is_no_toml_is_named_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[site]\nname = \n")
    with pytest.raises(SettingsError, match="line 2") as caught:
        load({"NEWSLETTER_CONFIG": str(file)})
    assert caught.value.place == str(file)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load({"NEWSLETTER_CONFIG": "nowhere.toml"})


def test_the_production_example_is_valid_as_it_stands() -> None:
    settings = load({"NEWSLETTER_CONFIG": str(resource("config") / "production.example.toml")})
    assert settings.database_url.startswith("postgresql://")


def test_every_setting_stands_in_the_default_file_with_an_explanation() -> None:
    text = (resource("config") / "default.toml").read_text()
    sections = tomllib.loads(text)
    for name, field in Settings.model_fields.items():
        assert name in sections
        if isinstance(sections[name], dict):
            assert set(sections[name]) == set(field.annotation.model_fields)  # type: ignore[union-attr]


@given(st.text(max_size=30))
def test_no_value_of_a_length_of_time_brings_a_traceback(value: str) -> None:
    try:
        load({"NEWSLETTER_SENDGRID__TIMEOUT": value})
    except SettingsError as error:
        assert error.place == "NEWSLETTER_SENDGRID__TIMEOUT: sendgrid.timeout"
