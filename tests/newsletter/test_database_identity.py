"""A database knows the key of its address hashes: with another one, nothing begins."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from newsletter import database_identity
from newsletter.container import Container
from newsletter.db.backup import copied
from newsletter.db.engine import open_database, transaction
from newsletter.errors import SettingsError
from newsletter.settings.load import load
from newsletter.web.app import create_app
from subscribers.email_address import address_key
from subscribers.models import Subscriber
from tests.conftest import ADDRESS_KEY, add_person
from tests.forking import command

OTHER = "another address key of 32 characters and more"
NAME = "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY"
#: Every command that hashes an address, or that starts what does.
COMMANDS = (
    ("serve", "--port", "0"),
    ("subscribers", "import", "people.csv", "--confirmed"),
    ("subscribers", "data", "alice@example.org"),
    ("subscribers", "erase", "alice@example.org", "--yes"),
    ("issue", "test", "issue.md", "--to", "alice@example.org"),
    ("render", "issue.md", "--as", "alice@example.org", "--out", "out"),
    ("send", "issue.md", "--segment", "everybody", "--despite-findings"),
    ("reconcile",),
    ("worker",),
)


def key(database: Engine, secret: str) -> None:
    with transaction(database) as session:
        database_identity.require_address_key(session, address_key(secret), now=datetime.now(UTC))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_every_command_that_needs_the_key_refuses_another_one(
    database: Engine, environment: dict[str, str], words: tuple[str, ...], tmp_path
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("the same commands; what they ask is asked of both below")
    key(database, ADDRESS_KEY)
    with transaction(database) as session:
        add_person(session, "alice@example.org")
    (tmp_path / "people.csv").write_text("email\nbob@example.org\n")
    (tmp_path / "issue.md").write_text("---\nsubject: Hello\n---\n\nGood day.\n")
    assert command(("segment", "create", "everybody"), environment=environment, folder=tmp_path)
    done = command(words, environment=environment | {NAME: OTHER}, folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "subscribers.address_key: this is not the address key of this database" in done.stderr
    assert NAME in done.stderr
    assert OTHER not in done.stdout + done.stderr
    with database.connect() as connection:
        for table, rows in (("subscriber", 1), ("send", 0), ("suppression", 0)):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == rows


def test_a_missing_key_has_a_hint_of_its_own(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        _ = Container(load(environment | {NAME: ""})).address_key
    assert "never change it" in str(caught.value.hint)
    assert "links" not in str(caught.value.hint)


def test_the_first_key_becomes_the_databases(database: Engine) -> None:
    key(database, ADDRESS_KEY)
    key(database, ADDRESS_KEY)
    with pytest.raises(SettingsError):
        key(database, OTHER)
    with database.connect() as connection:
        for (value,) in connection.execute(text("SELECT value FROM identity")):
            assert ADDRESS_KEY not in value
            assert address_key(ADDRESS_KEY).hex() not in value


def test_a_database_that_has_people_and_was_never_asked_knows_its_key(database: Engine) -> None:
    with transaction(database) as session:
        for n in range(3):
            add_person(session, f"p{n}@example.org")
    with pytest.raises(SettingsError):
        key(database, OTHER)
    key(database, ADDRESS_KEY)


def test_an_address_without_a_readable_spelling_tells_nothing(database: Engine) -> None:
    with transaction(database) as session:
        person = add_person(session, "alice@example.org")
        session.get_one(Subscriber, person).email = "alice at example"
    key(database, ADDRESS_KEY)


def test_links_may_have_another_key(environment: dict[str, str]) -> None:
    parts = Container(load(environment))
    _ = parts.database, create_app(parts, background=False)
    turned = environment | {
        "NEWSLETTER_LINKS__KEYS": "a key of 32 characters and more for links alone"
    }
    again = Container(load(turned))
    assert again.database.url == parts.database.url
    parts.database.dispose()
    again.database.dispose()


def test_a_copy_of_the_database_on_another_machine_knows_the_key(
    database: Engine, environment: dict[str, str], tmp_path
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("a file is copied here")
    key(database, ADDRESS_KEY)
    with copied(database, tmp_path / "copy.db"):
        pass
    elsewhere = environment | {
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{tmp_path}/copy.db",
        NAME: OTHER,
    }
    with pytest.raises(SettingsError):
        _ = Container(load(elsewhere)).database
    engine = open_database(elsewhere["NEWSLETTER_DATABASE_URL"])
    key(engine, ADDRESS_KEY)
    engine.dispose()
