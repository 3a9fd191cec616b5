"""Settings in the database: precedence, validation, history, two owners at once, many processes."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SettingsError
from newsletter.operations import settings as operations
from newsletter.operations.settings import SettingsChangeError
from newsletter.settings import publication
from newsletter.settings.load import Settings, load
from newsletter.settings.publication import Value
from tests.forking import command

pytestmark = pytest.mark.both_databases

OLGA, PAUL = Actor(1, "olga@example.org"), Actor(2, "paul@example.org")


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Container]:
    opened = Container(load(environment))
    yield opened
    opened.database.dispose()


def change(
    parts: Container,
    values: dict[str, Value | None],
    *,
    by: Actor = OLGA,
    base: int | None = None,
) -> list[str]:
    """Change settings in a transaction; this process looks into the database at once."""
    with transaction(parts.database) as session:
        changed = operations.change(session, parts, values, by=by, now=datetime.now(UTC), base=base)
    parts.current_settings.forget()
    return changed


def version(parts: Container) -> int:
    with reading(parts.database) as session:
        return max((one.id for one in publication.latest(session).values()), default=0)


def test_every_key_exists_and_takes_its_own_default() -> None:
    settings = load({})
    for key in publication.KEYS:
        value = publication.value_of(settings, key)
        assert publication.validated(key, value) == value


def test_a_change_is_in_force_and_its_removal_brings_the_default_back(parts: Container) -> None:
    assert parts.settings.site.name == "My newsletter"
    assert change(parts, {"site.name": " Paper ", "tracking.opens": "off"}) == [
        "site.name",
        "tracking.opens",
    ]
    assert parts.settings.site.name == parts.publication.name == "Paper"
    assert parts.checker.publication.name == "Paper"
    assert parts.tracked.opens is False
    assert change(parts, {"site.name": "Paper"}) == []
    assert change(parts, {"site.name": None}) == ["site.name"]
    assert change(parts, {"site.name": None}) == []
    assert parts.settings.site.name == "My newsletter"
    with reading(parts.database) as session:
        told = [(one.key, one.value, one.set_by) for one in publication.history(session, limit=9)]
    assert told == [
        ("site.name", None, OLGA.name),
        ("tracking.opens", False, OLGA.name),
        ("site.name", "Paper", OLGA.name),
    ]


def test_file_and_environment_win_over_the_database(
    parts: Container, environment: dict[str, str], tmp_path: Path
) -> None:
    change(parts, {"site.name": "Paper", "sender.name": "Olga", "site.language": "de"})
    file = tmp_path / "mine.toml"
    file.write_text('[site]\nname = "My newsletter"\n')
    told = environment | {
        "NEWSLETTER_CONFIG": str(file),
        "NEWSLETTER_SENDER__NAME": "Machine",
    }
    other = Container(load(told))
    try:
        # Also where a file says what the default says.
        assert other.settings.site.name == "My newsletter"
        assert other.settings.sender.name == "Machine"
        assert other.settings.site.language == "de"
        for key, source in (("site.name", str(file)), ("sender.name", "NEWSLETTER_SENDER__NAME")):
            with pytest.raises(SettingsError, match="wins over the database") as caught:
                change(other, {key: "x"})
            assert source in caught.value.message
    finally:
        other.database.dispose()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("site.timezone", "Nowhere/Here", "Europe/Berlin"),
        ("site.name", "a\nBcc: x", "line breaks"),
        ("site.logo_url", "http://x.example/a.png", "pattern"),
        ("site.language", "deutsch", "pattern"),
        ("sender.email", "", "must not be empty"),
        ("site.name", " ", "must not be empty"),
        ("sender.email", "Me <me@x.example>", "without a name"),
        ("sending.quiet_hours", "at night", "22:00-07:00"),
        ("tracking.clicks", "perhaps", "boolean"),
        ("database_url", "sqlite:///x.db", "belongs to the machine"),
        ("sendgrid.api_key", "SG.x", "belongs to the machine"),
        ("site.nam", "x", "no such setting"),
        ("", "x", "no such setting"),
    ],
)
def test_a_wrong_value_is_refused_as_in_the_file_and_nothing_is_saved(
    parts: Container, key: str, value: str, words: str
) -> None:
    with pytest.raises(SettingsChangeError, match=words) as caught:
        change(parts, {"site.postal_address": "Elsewhere 1", key: value})
    assert set(caught.value.problems) == {key}
    assert version(parts) == 0


def test_with_a_real_provider_no_setting_may_become_an_example(
    environment: dict[str, str], database: Engine
) -> None:
    told = environment | {
        "NEWSLETTER_SENDGRID__HOST": "https://api.sendgrid.com",
        "NEWSLETTER_SITE__BASE_URL": "https://news.paper.org",
    }
    parts = Container(load(told))
    try:
        with pytest.raises(SettingsChangeError, match="is empty"):
            change(parts, {"site.postal_address": ""})
        change(parts, {"site.postal_address": "Road 1", "sender.email": "news@paper.org"})
        _ = parts.gateway
        with pytest.raises(SettingsChangeError, match="still the example"):
            change(parts, {"site.postal_address": None})
    finally:
        parts.database.dispose()


def test_of_two_owners_the_second_learns_both_values_and_nothing_is_lost(
    parts: Container,
) -> None:
    change(parts, {"site.name": "Paper", "sender.name": "Paper"})
    base = version(parts)
    form = {"site.name": "Paper", "sender.name": "Paper", "site.language": "en"}
    change(parts, form | {"site.name": "Olga's paper"}, by=OLGA, base=base)
    # Another setting of the same form: both stay.
    assert change(parts, form | {"site.language": "de"}, by=PAUL, base=base) == ["site.language"]
    assert parts.settings.site.name == "Olga's paper"
    # The same setting: nothing is saved, and the answer has who, and both values.
    with pytest.raises(SettingsChangeError, match="changed it to “Olga's paper”") as caught:
        change(parts, form | {"site.name": "Paul's", "sender.name": "Paul"}, by=PAUL, base=base)
    assert set(caught.value.conflicts) == {"site.name"}
    assert caught.value.conflicts["site.name"].by == OLGA.name
    assert caught.value.touched == {"site.name", "sender.name"}
    assert parts.settings.sender.name == "Paper"
    # Knowing that, Paul may insist.
    change(parts, {"site.name": "Paul's"}, by=PAUL, base=version(parts))
    assert parts.settings.site.name == "Paul's"
    # Whoever writes the same is in no conflict.
    assert change(parts, {"site.name": "Paul's"}, by=OLGA, base=base) == []


def test_two_owners_at_the_same_moment(parts: Container) -> None:
    _ = parts.database
    results: list[object] = []
    both = threading.Barrier(2)

    def save(name: str) -> None:
        both.wait()
        try:
            results.append(change(parts, {"site.name": name}, base=0))
        except SettingsChangeError as error:
            results.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in ("One", "Two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(one).__name__ for one in results) == ["SettingsChangeError", "list"]


@pytest.mark.slow
def test_another_process_follows_within_seconds(
    parts: Container, environment: dict[str, str]
) -> None:
    other = Container(load(environment))
    try:
        assert other.settings.site.name == "My newsletter"
        change(parts, {"site.name": "Paper"})
        waited = threading.Event()
        for _ in range(100):
            if other.settings.site.name == "Paper":
                break
            waited.wait(0.1)
        assert other.settings.site.name == "Paper"
    finally:
        other.database.dispose()


def test_without_a_database_nothing_is_created(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    settings: Settings = load(environment | {"NEWSLETTER_DATABASE_URL": f"sqlite:///{file}"})
    assert Container(settings).settings.site.name == "My newsletter"
    assert publication.peek(settings) == {}
    assert not file.exists()


@pytest.mark.slow
def test_the_command_shows_who_set_it_and_changes_it(
    environment: dict[str, str], database: Engine, tmp_path: Path
) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = command(["settings", *words], environment=environment, folder=tmp_path)
        return done.returncode, done.stdout + done.stderr

    def row(key: str) -> dict[str, str]:
        _, said = run("--json")
        return {one["setting"]: one for one in map(json.loads, said.splitlines())}[key]

    assert run("set", "sending.quiet_hours", "22:00-07:00")[0] == 0
    assert row("sending.quiet_hours")["value"] == "22:00-07:00"
    assert "console (database), command line" in row("sending.quiet_hours")["from"]
    code, said = run("set", "sending.quiet_hours", "22:00-07:00")
    assert (code, "already" in said) == (3, True)
    code, said = run("set", "site.timezone", "Mars")
    assert (code, "Europe/Berlin" in said) == (2, True)
    assert run("unset", "sending.quiet_hours")[0] == 0
    assert row("sending.quiet_hours")["from"] == "default.toml"
    assert row("sendgrid.api_key")["value"] == "********"


def test_settings_are_shown_without_the_database(
    environment: dict[str, str], tmp_path: Path
) -> None:
    told = environment | {"NEWSLETTER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    done = command(["settings"], environment=told, folder=tmp_path)
    assert done.returncode == 0
    assert "My newsletter" in done.stdout
    assert "Without the settings in the database" in done.stderr


INITIAL = """
[initial]
site.name = "The Paper"
sender.name = "Desk"
sender.email = "desk@paper.org"
"""


@pytest.fixture
def begun(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment with a file that has initial values."""
    (tmp_path / "newsletter.toml").write_text(INITIAL)
    return environment | {"NEWSLETTER_CONFIG": str(tmp_path / "newsletter.toml")}


def test_the_database_takes_over_initial_values_once(
    begun: dict[str, str], environment: dict[str, str]
) -> None:
    environ = begun | {"NEWSLETTER_SENDER__NAME": "Fixed"}
    for _ in range(2):
        parts = Container(load(environ))
        assert parts.settings.site.name == "The Paper"
        assert parts.settings.sender.name == "Fixed"
        with reading(parts.database) as session:
            history = publication.history(session, limit=9)
        parts.database.dispose()
        assert [(one.key, one.set_by) for one in history] == [
            ("sender.email", publication.INITIAL),
            ("site.name", publication.INITIAL),
        ]
    # Another machine, whose file has none, uses them as well.
    other = Container(load(environment))
    assert other.settings.site.name == "The Paper"
    assert other.settings.sender.email == "desk@paper.org"
    other.database.dispose()


def test_initial_values_are_taken_over_no_second_time(begun: dict[str, str]) -> None:
    for value in ("Other", None):
        parts = Container(load(begun))
        change(parts, {"site.name": value})
        parts.database.dispose()
    parts = Container(load(begun))
    with reading(parts.database) as session:
        assert publication.latest(session)["site.name"].value is None
    # What the database does not set comes from the file again.
    assert parts.settings.site.name == "The Paper"
    parts.database.dispose()


def test_processes_that_begin_at_once_take_over_each_value_once(begun: dict[str, str]) -> None:
    opened = [Container(load(begun)) for _ in range(4)]
    barrier = threading.Barrier(len(opened))

    def begin(parts: Container) -> None:
        barrier.wait()
        assert parts.settings.site.name == "The Paper"

    threads = [threading.Thread(target=begin, args=(parts,)) for parts in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(opened[0].database) as session:
        assert len(publication.history(session, limit=9)) == 3
    for parts in opened:
        parts.database.dispose()


def test_an_initial_value_that_prevents_sending_can_be_corrected_in_the_file(
    begun: dict[str, str], tmp_path: Path
) -> None:
    environ = begun | {"NEWSLETTER_SENDGRID__HOST": "https://api.sendgrid.com"}
    for email, stored in (("desk@example.org", False), ("desk@paper.org", True)):
        (tmp_path / "newsletter.toml").write_text(INITIAL.replace("desk@paper.org", email))
        parts = Container(load(environ))
        assert parts.settings.sender.email == email
        with reading(parts.database) as session:
            assert ("sender.email" in publication.latest(session)) is stored
        parts.database.dispose()
