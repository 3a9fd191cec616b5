"""Files with people's data are private to the user that runs us; passwords in URLs are masked."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from newsletter.accounts.models import Role
from newsletter.cli.service.doctor import examine
from newsletter.db.engine import open_database
from newsletter.errors import UserError
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.settings.load import load, load_with_origins
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.console.test_imports import uploaded, work

ROOT = Path(__file__).parents[3]
SECRET = "hunter2-and-more"


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Files get every bit that is asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path, *, but: frozenset[str] = frozenset()) -> list[str]:
    """Files and folders below that somebody else could look into, with their modes."""
    return [
        f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o}"
        for path in sorted(folder.rglob("*"))
        if path.name not in but and path.stat().st_mode & 0o077
    ]


@pytest.mark.slow
def test_commands_make_private_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("email\nada@example.org\nnobody\n")
    environment = {
        "PATH": os.environ["PATH"],
        "NEWSLETTER_DATABASE_URL": "sqlite:///deep/down/newsletter.db",
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
    }
    program = Path(sys.executable).with_name("newsletter")
    for words in (
        "db upgrade",
        "subscribers import people.csv --confirmed --rejects rejected.csv",
        "subscribers export everybody.csv",
        "subscribers export everybody.jsonl",
    ):
        done = subprocess.run(
            [program, *words.split()],
            cwd=tmp_path,
            env=environment,
            umask=0,
            capture_output=True,
            text=True,
            check=False,
        )
        # A rejected row is told by the exit code.
        assert done.returncode == (2 if "import" in words else 0), done.stderr
    made = {path.name for path in tmp_path.rglob("*")}
    assert {"newsletter.db", "rejected.csv", "everybody.csv", "everybody.jsonl"} <= made
    assert open_to_others(tmp_path, but=frozenset({"people.csv"})) == []


def test_a_database_in_use_its_journal_and_uploads_are_private(
    office: Office, tmp_path: Path, no_umask: None
) -> None:
    mine = tmp_path / "mine"
    engine = open_database(f"sqlite:///{mine / 'a' / 'b.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE people (email TEXT)")
        DepartureLogFile(mine / "c" / "departures")
        assert {"b.db", "b.db-wal", "b.db-shm"} <= {path.name for path in mine.rglob("*")}
        assert open_to_others(mine) == []
    engine.dispose()
    uploaded(office.signed_in(Role.EDITOR), b"email\nada@example.org\nnobody\n")
    work(office)
    imports = Path(office.parts.settings.imports.folder)
    assert [*imports.iterdir()]
    assert imports.stat().st_mode & 0o777 == 0o700
    assert open_to_others(imports) == []


#: Where files and folders are made in another way, and why that is right.
MADE_OTHERWISE = {
    "newsletter/db/private_files.py": "it is the way",
    "newsletter/sending/recovery/departure_log.py": "sets the modes of new files itself",
    "newsletter/text_workers.py": "tells the system about a process: nothing is made",
    "newsletter/cli/content/issues.py": "pages to look at in a browser, of an issue",
}


def test_whatever_makes_a_file_or_folder_makes_it_private() -> None:
    makes = re.compile(r"\.mkdir\(|\.write_(text|bytes)\(|\bopen\([^)]*[\"'][wax]b?\+?[\"']")
    found = {
        str(path.relative_to(ROOT))
        for package in ("newsletter", "subscribers")
        for path in (ROOT / package).rglob("*.py")
        for call in makes.finditer(path.read_text())
        if "private_files.opener" not in path.read_text()[call.start() : call.start() + 300]
    }
    assert found == MADE_OTHERWISE.keys()


URLS = [
    f"postgresql://me:{SECRET}@127.0.0.1:9/name",
    f"postgresql://me:{SECRET}@127.0.0.1:9/name?sslmode=require&sslpassword={SECRET}",
    f"postgresql://127.0.0.1:9/name?user=me&password={SECRET}",
    f"postgresql://me:p@{SECRET}@127.0.0.1:9/name",
    f"postgresql://me:{SECRET}@127.0.0.1:port/name",
    f"postgresql://me:{SECRET}",
    f"postgresql://me:{SECRET}@[::1/name",
    f"postgresql://me:{SECRET}@127.0.0.1:9/name?bogus=1",
    f"postgres//me:{SECRET}@127.0.0.1:9/name",
    f"me:{SECRET}@127.0.0.1",
    f"mysql://me:{SECRET}@127.0.0.1/name",
    f"postgresql+nothing://me:{SECRET}@127.0.0.1/name",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_of_a_database_is_shown_by_settings_doctor_or_errors(url: str) -> None:
    environment = {"NEWSLETTER_DATABASE_URL": url}
    try:
        shown = repr(load_with_origins(environment)[1])
        asked = lambda _name, _kind: [], lambda _url, _headers: "9.9.9.9"
        shown += repr(list(examine(load(environment), *asked)))
    except UserError as error:
        shown = str(error) + repr(error.__dict__)
    with pytest.raises(UserError) as refused:
        open_database(url)
    shown += str(refused.value) + repr(refused.value.__dict__)
    assert SECRET not in shown
    assert refused.value.place == "database_url"


@pytest.mark.parametrize("key", ["site__base_url", "sendgrid__host", "signup__origins"])
def test_a_web_address_with_a_password_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UserError, match="without a user or password") as refused:
        load({f"NEWSLETTER_{key.upper()}": f"https://me:{SECRET}@example.com"})
    assert SECRET not in str(refused.value)


def test_no_setting_shows_a_password_in_its_address() -> None:
    for origin in load_with_origins({})[1]:
        name = f"NEWSLETTER_{origin.key.replace('.', '__').upper()}"
        for url in (f"https://me:{SECRET}@example.com/x", f"https://example.com/?token={SECRET}"):
            try:
                shown = repr(load_with_origins({name: url})[1])
            except UserError as error:
                shown = str(error)
            assert SECRET not in shown, origin.key
