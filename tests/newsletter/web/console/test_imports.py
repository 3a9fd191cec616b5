"""Importing in the console: upload, dry run, start, progress, rejects; and what goes wrong."""

import csv
import gzip
import html
import io
import re
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.imports import import_jobs
from newsletter.imports.import_worker import ImportWorker
from newsletter.imports.models import ImportJob, JobState
from newsletter.imports.upload_store import UploadStore
from subscribers.consent import suppression, topics
from subscribers.models import Consent, Subscriber, Subscription, SuppressionReason
from subscribers.transfer import import_run
from subscribers.transfer.import_run import import_people
from tests.conftest import add_person
from tests.newsletter.web.conftest import HTML, Browser, Office
from tests.newsletter.web.console.test_subscribers import NASTY, log
from tests.subscribers.list_files.exports import EXPORTS, MAILED

HOME = "/console/subscribers/import"
GOOD = b"email,name,plan\na@example.org,Ann,pro\nb@example.org,Ben,free\n"
_job, _person = table_of(ImportJob), table_of(Subscriber)


@pytest.fixture
def editor(office: Office) -> Browser:
    return office.signed_in(Role.EDITOR)


def upload(browser: Browser, data: bytes, name: str = "people.csv", csrf: str | None = None):
    return browser.client.post(
        HOME,
        data={"csrf": browser.csrf if csrf is None else csrf},
        files={"file": (name, data, "text/csv")},
        headers=HTML,
    )


def uploaded(browser: Browser, data: bytes, name: str = "people.csv") -> str:
    answer = upload(browser, data, name)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def work(office: Office) -> None:
    importer = office.parts.import_worker()
    while importer.work_once():
        pass


def emails(office: Office) -> list[str]:
    with reading(office.parts.database) as session:
        return list(session.scalars(select(_person.c.email).order_by(_person.c.id)))


def job(office: Office):
    with reading(office.parts.database) as session:
        return session.execute(select(_job).order_by(_job.c.id.desc()).limit(1)).one()


def uploads_of(office: Office) -> UploadStore:
    return UploadStore(office.parts.settings.imports.folder)


def files(office: Office) -> set[str]:
    folder = uploads_of(office).folder
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


# The usual way.


def test_a_list_is_looked_at_first_and_then_taken_over(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name="News")
        left = add_person(session, "left@example.org")
        suppression.add(
            session, [left], SuppressionReason.UNSUBSCRIBED, at=datetime.now(UTC), evidence="x"
        )
    data = GOOD + b"left@example.org,Lea,pro\nnonsense,No,\n"
    path = uploaded(editor, data, "C:\\lists\\May 2026.csv")
    assert (
        "Checking the file" in editor.get(path).text
        or "Waiting for the check" in editor.get(path).text
    )
    work(office)
    page = editor.get(path).text
    assert emails(office) == ["left@example.org"]
    assert "May 2026.csv" in page
    assert "attribute plan" in page
    assert "nonsense" in page
    assert re.search(r"would be added</dt><dd>2<", page)
    answer = editor.post(
        f"{path}/start", topic="news", wording="at our stand", confirmed="yes", known="update"
    )
    assert answer.status_code == 303
    work(office)
    page = editor.get(path).text
    assert "Import finished" in page
    assert re.search(r"added</dt><dd>2<", page)
    assert "1 unsubscribed here" in page
    assert emails(office) == ["left@example.org", "a@example.org", "b@example.org"]
    with reading(office.parts.database) as session:
        consent = table_of(Consent).c
        acts = session.execute(select(consent.act, consent.source, consent.wording)).all()
        confirmed = session.scalar(select(func.count()).where(_person.c.confirmed_at.is_not(None)))
        chosen = session.scalar(select(func.count()).select_from(table_of(Subscription)))
    assert {tuple(act) for act in acts} == {("imported", "import:May 2026.csv", "at our stand")}
    assert (confirmed, chosen) == (3, 2)
    assert [what for what, _ in log(office)] == [
        "file uploaded",
        "import started",
        "import finished",
    ]
    # The people's data is nowhere else any more, but for the rejects.
    assert files(office) == {"1.rejects.csv"}


def test_rejects_are_a_file_that_no_spreadsheet_runs(office: Office, editor: Browser) -> None:
    path = uploaded(editor, b"email,name\nnot an address,=HYPERLINK(1)\n=cmd|' /C calc'!A0,x\n")
    work(office)
    answer = editor.get(f"{path}/rejects")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert [row[0] for row in rows] == ["line", "2", "3"]
    assert rows[2][2].startswith("'=cmd")
    assert office.signed_in(Role.VIEWER).get(f"{path}/rejects").status_code == 403


def test_the_status_is_a_part_of_a_page_that_goes_on_by_itself_until_it_is_over(
    office: Office, editor: Browser
) -> None:
    path = uploaded(editor, GOOD)
    status = editor.get(f"{path}/status")
    assert "<html" not in status.text
    assert 'hx-trigger="every 1s"' in status.text
    work(office)
    assert "hx-trigger" not in editor.get(f"{path}/status").text


def test_vouching_needs_words_and_what_was_chosen_stays(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name="News")
    path = uploaded(editor, GOOD)
    work(office)
    answer = editor.post(f"{path}/start", confirmed="yes", topic="news", wording=" ")
    assert answer.status_code == 400
    assert "What did these people agree to" in answer.text
    assert re.search(r'value="news" checked', answer.text)
    answer = editor.post(f"{path}/start", topic="nothing\0")
    assert answer.status_code == 400
    assert job(office).state == JobState.CHECKED


def test_known_people_are_left_alone_where_that_is_asked(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        add_person(session, "a@example.org", name="Anna")
    path = uploaded(editor, GOOD)
    work(office)
    editor.post(f"{path}/start", known="keep")
    work(office)
    with reading(office.parts.database) as session:
        name = session.scalar(select(_person.c.name).where(_person.c.email == "a@example.org"))
    assert name == "Anna"


def test_another_encoding_is_tried(office: Office, editor: Browser) -> None:
    path = uploaded(editor, "email,name\na@example.org,Łukasz\n".encode("cp1250"))
    work(office)
    assert "windows-1252" in editor.get(path).text.lower() or "cp1252" in editor.get(path).text
    editor.post(f"{path}/read-again", encoding="windows-1250")
    work(office)
    editor.post(f"{path}/start")
    work(office)
    with reading(office.parts.database) as session:
        assert session.scalar(select(_person.c.name)) == "Łukasz"


# Pressing twice, stopping, dying.


def test_a_list_is_started_once(office: Office, editor: Browser) -> None:
    path = uploaded(editor, GOOD)
    early = editor.post(f"{path}/start")
    assert early.status_code == 400
    assert "The list is now uploaded" in early.text
    work(office)
    assert editor.post(f"{path}/start").status_code == 303
    assert editor.post(f"{path}/start").status_code == 400
    work(office)
    assert editor.post(f"{path}/start").status_code == 400
    assert [what for what, _ in log(office)].count("import started") == 1


def test_a_list_that_nobody_wants_is_deleted(office: Office, editor: Browser) -> None:
    path = uploaded(editor, GOOD)
    work(office)
    editor.post(f"{path}/stop")
    assert job(office).state == JobState.STOPPED
    assert "1.upload" not in files(office)
    assert editor.post(f"{path}/stop").status_code == 400


def many(people: int) -> bytes:
    return b"email\n" + b"".join(b"p%d@example.org\n" % n for n in range(people))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told after each ten rows, and without waiting."""
    monkeypatch.setattr(import_run, "_BATCH", 10)
    monkeypatch.setattr("newsletter.imports.import_worker._PROGRESS_EVERY", 0.0)


def started(office: Office, editor: Browser, people: int = 200) -> str:
    path = uploaded(editor, many(people))
    work(office)
    assert editor.post(f"{path}/start", confirmed="yes", wording="x").status_code == 303
    return path


def test_a_running_import_is_stopped_and_what_was_taken_over_stays(
    office: Office, editor: Browser, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = started(office, editor)
    told = import_jobs.store_progress

    def tell(session, claimed, rows, part, *, now):
        if rows >= 50:
            import_jobs._moved(session, claimed.id, {claimed.state: claimed.state}, stop_asked=True)
        return told(session, claimed, rows, part, now=now)

    monkeypatch.setattr(import_jobs, "store_progress", tell)
    work(office)
    page = editor.get(path).text
    assert "Stopped by an operator; rows imported so far are kept" in page
    assert 0 < len(emails(office)) < 200
    assert "1.upload" not in files(office)


@pytest.mark.slow
def test_a_service_that_stops_puts_the_list_back_and_the_next_one_ends_it(
    office: Office, editor: Browser, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = started(office, editor)
    importer = office.parts.import_worker()
    told = import_jobs.store_progress

    def tell(session, claimed, rows, part, *, now):
        if rows >= 50:
            importer._stopping.set()
        return told(session, claimed, rows, part, now=now)

    monkeypatch.setattr(import_jobs, "store_progress", tell)
    assert importer.work_once()
    assert job(office).state == JobState.QUEUED
    assert 0 < len(emails(office)) < 200
    monkeypatch.setattr(import_jobs, "store_progress", told)
    work(office)
    assert len(emails(office)) == 200
    assert "so the import started again" in editor.get(path).text


def test_a_dead_process_s_list_is_taken_up_when_its_lease_is_over(
    office: Office, editor: Browser
) -> None:
    path = started(office, editor)
    uploads, now = uploads_of(office), datetime.now(UTC)
    with transaction(office.parts.database) as session:
        lost = import_jobs.claim(session, "dead", has=uploads.has, now=now)
        assert lost is not None
        assert import_jobs.claim(session, "other", has=uploads.has, now=now) is None
    work(office)
    assert job(office).state == JobState.RUNNING
    with transaction(office.parts.database) as session:
        session.execute(update(_job).values(alive_until=now - timedelta(seconds=1)))
    work(office)
    assert (job(office).state, job(office).interruptions) == (JobState.DONE, 1)
    assert "so the import started again" in editor.get(path).text
    # The dead process awakes, and changes nothing.
    with pytest.raises(import_jobs.LeaseLostError), transaction(office.parts.database) as session:
        import_jobs.store_progress(session, lost, 1, 0.5, now=now)


@pytest.mark.slow
def test_a_list_on_another_machine_waits_for_that_machine(office: Office, editor: Browser) -> None:
    path = uploaded(editor, GOOD)
    there = uploads_of(office).upload(1).rename(uploads_of(office).folder / "elsewhere")
    work(office)
    assert job(office).state == JobState.UPLOADED
    there.rename(uploads_of(office).upload(1))
    work(office)
    assert job(office).state == JobState.CHECKED
    assert path


@pytest.mark.slow
def test_the_service_s_own_thread_takes_lists_up(office: Office, editor: Browser) -> None:
    importer = office.parts.import_worker()
    importer.start()
    try:
        path = uploaded(editor, GOOD)
        for _ in range(200):
            if "would be added" in editor.get(f"{path}/status").text:
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("the list was not looked at")
    finally:
        importer.stop()


def test_a_list_that_breaks_does_not_end_the_background(
    office: Office, editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError

    path = uploaded(editor, GOOD)
    with monkeypatch.context() as patch:
        patch.setattr("newsletter.imports.import_worker.import_people", broken)
        work(office)
    assert "An internal error" in editor.get(path).text
    uploaded(editor, GOOD)
    work(office)
    assert job(office).state == JobState.CHECKED


def test_what_is_old_is_deleted_and_figures_stay(office: Office, editor: Browser) -> None:
    forgotten = uploaded(editor, GOOD + b"nonsense,x,y\n")
    work(office)
    done = uploaded(editor, GOOD + b"nonsense,x,y\n")
    work(office)
    editor.post(f"{done}/start")
    work(office)
    stray = uploads_of(office).folder / "0123456789abcdef.part"
    stray.write_bytes(b"x")
    with transaction(office.parts.database) as session:
        session.execute(update(_job).values(made_at=datetime.now(UTC) - timedelta(days=8)))
    importer: ImportWorker = office.parts.import_worker()
    importer.sweep()
    assert files(office) == {stray.name}  # an upload may be under way
    assert "not started for a long time" in editor.get(forgotten).text.lower()
    page = editor.get(done).text
    assert "nonsense" not in page
    assert re.search(r"rows rejected</dt><dd>1<", page)


# Hostile uploads.


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("people.csv", b"\0" * 10_000_000)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(), "This is a ZIP archive or a spreadsheet"),
        (gzip.compress(GOOD, mtime=0), "This is compressed by gzip"),
        (b"%PDF-1.7 " + b"x" * 100, "This is a PDF"),
        (b"\x7fELF" + bytes(1000), "This is not text"),
        ("email\na@example.org\n".encode("utf-32-le"), "This is not text"),
        (b"name,plan\nAnn,pro\n", "No column has addresses"),
        (b"   \n \n", "The file is empty"),
        (b'[{"email": "a@example.org"}]', "One JSON list"),
        (b'"' * 100_000, "No column has addresses"),
    ],
)
def test_what_is_no_list_is_a_clear_answer(
    office: Office, editor: Browser, data: bytes, words: str
) -> None:
    path = uploaded(editor, data)
    work(office)
    page = editor.get(path).text
    assert words.lower() in page.lower()
    assert job(office).state == JobState.FAILED
    assert "1.upload" not in files(office)
    assert emails(office) == []


def test_a_list_over_the_limit_is_refused_and_nothing_is_kept(
    environment: dict[str, str], open_office
) -> None:
    environment["NEWSLETTER_IMPORTS__MAX_MEGABYTES"] = "1"
    office = open_office(require_second_factor="false")
    editor = office.signed_in(Role.EDITOR)
    answer = upload(editor, b"email\n" + b"x" * 1_100_000)
    assert answer.status_code == 413
    assert "The file is larger than 1 MB" in answer.text
    assert files(office) == set()
    assert log(office) == []

    def endless():
        boundary = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
        yield boundary % (b"csrf", b"") + editor.csrf.encode() + b"\r\n"
        yield boundary % (b"file", b'; filename="a.csv"')
        for _ in range(30):
            yield b"a@example.org\n" * 5000

    # Without a length beforehand.
    answer = editor.client.post(
        HOME,
        content=endless(),
        headers=HTML | {"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413
    assert files(office) == set()


@pytest.mark.slow
def test_a_forged_upload_is_refused_before_anything_is_written(
    office: Office, editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Path.open

    def watched(self: Path, mode: str = "r", *args: object, **more: object):
        if "w" in mode:
            written.append(self.name)
        return real(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", watched)
    for csrf in ("", "x", editor.csrf[:-1] + "é"):
        assert upload(editor, GOOD, csrf=csrf).status_code == 403
    answer = editor.client.post(
        HOME,
        files=[("file", ("a.csv", GOOD)), ("csrf", (None, editor.csrf))],
        headers=HTML,
    )
    assert answer.status_code == 403  # the token has to come first
    elsewhere = editor.client.post(
        HOME,
        data={"csrf": editor.csrf},
        files={"file": ("a.csv", GOOD)},
        headers=HTML | {"origin": "https://evil.example"},
    )
    assert elsewhere.status_code == 403
    assert written == []
    assert (
        office.signed_in(Role.VIEWER).client.post(HOME, files={"file": ("a.csv", GOOD)}).status_code
        == 403
    )


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\boot.ini", "\0", "a\r\nSet-Cookie: x=y", NASTY, "é" * 900]
)
def test_a_file_s_name_is_never_a_path_nor_a_part_of_the_page(
    office: Office, editor: Browser, name: str
) -> None:
    answer = upload(editor, GOOD, name)
    assert answer.status_code in {303, 400}
    assert files(office) <= {"1.upload"}
    work(office)
    for path in (HOME, f"{HOME}/1"):
        page = editor.get(path).text
        assert "<script>alert" not in page
        assert "onerror=alert(2)>" not in page


def test_columns_and_rejected_rows_are_text(office: Office, editor: Browser) -> None:
    with transaction(office.parts.database) as session:
        topics.save(session, "news", name=NASTY, description=NASTY)
    cell = '"' + NASTY.replace('"', '""') + '"'
    path = uploaded(editor, f"email,{cell}\n{cell},{cell}\na@example.org,{cell}\n".encode())
    work(office)
    page = editor.get(path).text
    assert "1337" not in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_the_log_names_no_person(office: Office, editor: Browser) -> None:
    path = uploaded(editor, GOOD)
    work(office)
    editor.post(f"{path}/start", wording="x", confirmed="yes")
    work(office)
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        told = str(session.execute(select(entry.c.subject, entry.c.detail)).all())
    assert "@example.org" not in told.replace("editor@example.org", "")


@pytest.mark.parametrize("number", ["0", "999", "9" * 30])
def test_a_list_that_there_is_not_is_404(editor: Browser, number: str) -> None:
    for what in ("", "/status", "/rejects"):
        assert editor.get(f"{HOME}/{number}{what}").status_code == 404
    assert editor.post(f"{HOME}/{number}/start").status_code in {400, 404}


# What columns mean.


def choices(page: str) -> dict[str, list[str]]:
    """The form that says what columns mean, as the page gives it."""
    form = page[page.index("/read-again") : page.index("Check again")]
    columns = re.findall(r'name="column" value="([^"]*)"', form)
    return {
        "column": [html.unescape(one) for one in columns],
        "meaning": ["as-found"] * len(columns),
        "word": [html.unescape(one) for one in re.findall(r'name="word" value="([^"]*)"', form)],
    }


def test_what_a_list_leaves_open_is_answered_on_the_page_before_it_starts(
    office: Office, editor: Browser
) -> None:
    data = (
        b"Adresse;Newsletter;status\n"
        b"alice@example.org;yes;active\nbob@example.org;no;gone fishing\n"
    )
    path = uploaded(editor, data)
    work(office)
    page = editor.get(path).text
    assert "No column has addresses" in page
    assert ">Import</button>" not in page
    refused = editor.post(f"{path}/start", confirmed="yes", wording="x")
    assert refused.status_code == 400
    assert "still open who in this list may be emailed" in refused.text

    form = choices(page)
    form["meaning"][0] = "email"
    editor.post(f"{path}/read-again", **form)
    work(office)
    page = editor.get(path).text
    assert "The column “Newsletter” may say who left" in page
    assert "“gone fishing” on line 3" in page
    assert "Would get email: 0 of 2" in page
    assert emails(office) == []

    form = choices(page)
    form |= {"meaning": ["email", "consent", "as-found"], "state": ["bounced"]}
    assert form["word"] == ["gone fishing"]
    editor.post(f"{path}/read-again", **form)
    work(office)
    page = editor.get(path).text
    assert "0 of 2; 1 if you confirm that they opted in" in page
    assert "1 unsubscribed elsewhere" in page
    assert editor.post(f"{path}/start", confirmed="yes", wording="x").status_code == 303
    work(office)
    assert "Get email: 1 of 2" in editor.get(path).text
    assert emails(office) == ["alice@example.org"]


def test_two_columns_cannot_be_the_address(office: Office, editor: Browser) -> None:
    path = uploaded(editor, GOOD)
    work(office)
    form = choices(editor.get(path).text)
    form["meaning"][1] = form["meaning"][2] = "email"
    answer = editor.post(f"{path}/read-again", **form)
    assert answer.status_code == 400
    assert "cannot both be the email" in answer.text
    assert job(office).state == JobState.CHECKED


@pytest.mark.slow
def test_the_console_and_the_command_line_find_the_same(office: Office, editor: Browser) -> None:
    """Of every system's export; with its file's name, which may say who left."""
    for system, export in EXPORTS.items():
        path = uploaded(editor, export.text.encode(), export.filename)
        work(office)
        mapping = dict(export.options.get("mapping", ()))
        if export.options:
            form = choices(editor.get(path).text)
            told = [name for name, _ in job(office).found["columns"]]
            form["meaning"] = [mapping.get(name, "as-found") for name in told]
            form["everybody"] = [export.options.get("everybody", "")]
            editor.post(f"{path}/read-again", **form)
            work(office)
        found = job(office).found
        dry = import_people(
            office.parts.database,
            io.BytesIO(export.text.encode()),
            address_key=office.parts.address_key,
            now=datetime.now(UTC),
            name=export.filename,
            options=import_run.ImportOptions(dry_run=True, **export.options),
        )
        assert found["questions"] == [] == list(dry.questions), system
        for figure in ("read", "added", "updated", "left", "refused", "mailed", "rejected"):
            assert found[figure] == getattr(dry, figure), (system, figure)
        assert found["mailed_if_vouched"] == list(export.people.values()).count(MAILED), system
        assert [tuple(one) for one in found["columns"]] == list(dry.columns), system
