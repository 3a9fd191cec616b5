"""Lists of other systems: nobody who left there gets a mail, and nothing is guessed."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import UserError
from subscribers.email_address import hash_address, parse
from subscribers.list_files.dates import UnreadableDateError, parse_moment
from subscribers.list_files.file_reader import Reading, SubscriberFile
from subscribers.list_files.row import Row
from subscribers.models import Subscriber, Subscription, Suppression, Topic
from subscribers.segments import store as segment_store
from subscribers.transfer.import_run import ImportOptions, ImportReport, import_people
from tests.subscribers.list_files.exports import EXPORTS, MAILED, Export

KEY = b"an address key of a test, 32 octs"
NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
_person, _suppression = table_of(Subscriber), table_of(Suppression)


def bring(engine: Engine, text: str, filename: str = "members.csv", **options: Any) -> ImportReport:
    return import_people(
        engine,
        io.BytesIO(text.encode()),
        address_key=KEY,
        now=NOW,
        name=filename,
        options=ImportOptions(**{"confirmed": True, **options}),
    )


def mailed(engine: Engine) -> set[str]:
    with reading(engine) as session:
        people = select(_person.c.email).select_from(segment_store.PEOPLE)
        return set(session.scalars(people.where(segment_store.exclusion_reason(NOW, ()).is_(None))))


def states(engine: Engine, export: Export) -> dict[str, str]:
    """What became of each person of an export."""
    getting = mailed(engine)
    with reading(engine) as session:
        reasons = {
            row.address_hash: row.reason for row in session.execute(select(_suppression)).all()
        }
        known = set(session.scalars(select(_person.c.email)))
    found = {}
    for name in export.people:
        email = f"{name}@example.org"
        barred = reasons.get(hash_address(KEY, parse(email)))
        found[name] = barred or (MAILED if email in getting else "unconfirmed")
        assert barred or email in known
    return found


def open_list(text: str, filename: str = "members.csv", **said: Any) -> SubscriberFile:
    return SubscriberFile(io.BytesIO(text.encode()), filename, reading=Reading(**said))


def read(text: str, filename: str = "members.csv", **said: Any) -> list[Row]:
    return [row for row in open_list(text, filename, **said) if isinstance(row, Row)]


def asked(text: str, filename: str = "members.csv", **said: Any) -> list[str]:
    return [f"{one.message} {one.answer}" for one in open_list(text, filename, **said).questions]


# Exports of real systems.


@pytest.mark.parametrize("system", EXPORTS)
def test_nobody_whom_an_export_calls_gone_is_mailed(database: Engine, system: str) -> None:
    export = EXPORTS[system]
    dry = bring(database, export.text, export.filename, dry_run=True, **export.options)
    report = bring(database, export.text, export.filename, **export.options)
    assert states(database, export) == export.people
    assert report.mailed == dry.mailed == list(export.people.values()).count(MAILED)
    assert report.read == len(export.people)
    assert dry.questions == ()
    assert {meaning for _, meaning in report.columns} - {""}


def test_what_opted_out_there_is_suppressed_here_too(database: Engine) -> None:
    bring(database, "email\nbob@example.org\n")
    assert mailed(database) == {"bob@example.org"}
    bring(database, EXPORTS["HubSpot, opt-outs"].text)
    assert mailed(database) == set()


# Columns by their names and cells.

SAYS_YES = [
    "true",
    "TRUE",
    "yes",
    "Y",
    "1",
    "1.0",
    "on",
    "x",
    "X",
    "✓",
    "✔️",
    "oui",
    "ja",
    "sí",
    "Sì",
]
SAYS_YES += ["sim", "tak", "wahr", "vrai", "verdadero", "vero", "waar", "prawda", "checked", "T"]
SAYS_NO = ["false", "FALSE", "no", "N", "0", "0.0", "off", "non", "nein", "não", "nie", "nee"]
SAYS_NO += ["falsch", "faux", "falso", "fałsz", "unchecked"]
SAYS_NOTHING = ["", " ", "-", "null", "NULL", "None", "N/A"]

GONE_BY_YES = (
    """
unsubscribed|is_unsubscribed|Opted out|Opt-out|optOut|email_opt_out|hs_email_optout|Do not email
DO_NOT_CONTACT|Blacklisted|email blocklisted|bounced|hard_bounce|isBounced|complained|Marked as spam
spam|Suppressed|is_blocked|Email disabled|Abgemeldet|Ausgetragen|Désabonné|Désinscrit|De baja
Dado de baja|Descadastrado|Disiscritto|Afgemeld|Uitgeschreven|Wypisany|Widerruf|Gesperrt
Unzustellbar|Rebond|Rebotado|Unsubscribed from all email|Portal Unsubscribe
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
STAYS_BY_YES = (
    """
subscribed|subscribed_to_emails|is_subscribed|opt_in|Opted in|Email Opt-In|Consent|GDPR consent
Permission|accepts_marketing|Accepts Email Marketing|Einwilligung|Angemeldet|Abonné|Consentement
Inscrit|Suscrito|Consentimiento|Aceita e-mails|Iscritto|Consenso|Ingeschreven|Toestemming|Zgoda
Zapisany|RGPD|DSGVO-Einwilligung|double opt-in|Email verified|Active|receives_emails
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
GONE_AT = [
    *("unsubscribed_at", "UNSUBSCRIBED ON", "Unsubscribe date", "OptOut_Date", "bounced_at"),
    *("complained_at", "Abgemeldet am", "Désabonné le", "Fecha de baja", "blocked_at"),
]


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("column", GONE_BY_YES)
def test_a_column_of_leaving_bars_whoever_it_names(column: str) -> None:
    for spelt in SAYS_YES:
        (row,) = read(f"email,{column}\nalice@example.org,{cell(spelt)}\n")
        assert row.status not in {"subscribed", "unconfirmed"}, spelt
    for spelt in SAYS_NO + SAYS_NOTHING:
        (row,) = read(f"email,{column}\nalice@example.org,{cell(spelt)}\n")
        assert row.status == "subscribed", spelt


@pytest.mark.parametrize("column", STAYS_BY_YES)
def test_a_column_of_consent_bars_whoever_it_does_not_name(column: str) -> None:
    for spelt in SAYS_YES:
        (row,) = read(f"email,{column}\nalice@example.org,{cell(spelt)}\n")
        assert row.status == "subscribed", spelt
    for spelt in SAYS_NO + SAYS_NOTHING:
        (row,) = read(f"email,{column}\nalice@example.org,{cell(spelt)}\n")
        assert row.status != "subscribed", spelt


@pytest.mark.parametrize("column", GONE_AT)
def test_a_moment_of_leaving_is_leaving(column: str) -> None:
    gone, stays = read(
        f"email,status,{column}\nbob@example.org,active,2024-03-24 10:23:10 UTC\n"
        "alice@example.org,active,\n"
    )
    assert gone.status not in {"subscribed", "unconfirmed"}
    assert gone.status_at == datetime(2024, 3, 24, 10, 23, 10, tzinfo=UTC)
    assert stays.status == "subscribed"


@pytest.mark.parametrize(
    "column",
    [
        *("not subscribed", "never_bounced", "Opted out of consent", "no consent", "spam_score"),
        *("Newsletter", "marketing", "cancelled", "deleted", "inactive", "removed", "churned"),
        *("Não enviar", "Can be emailed", "Kontaktsperre", "dnc", "contactable"),
        *("Newsletter abbestellt ja/nein, kein Opt-in", "Consent withdrawn, opted out"),
    ],
)
@pytest.mark.parametrize("cells", [("yes", "no"), ("true", "false"), ("1", "0"), ("x", "")])
def test_a_column_that_may_mean_either_stops_the_import(
    column: str, cells: tuple[str, str]
) -> None:
    text = f"email,{cell(column)}\nalice@example.org,{cells[0]}\nbob@example.org,{cells[1]}\n"
    (question,) = asked(text)
    assert column in question
    assert f"“{cells[0]}”" in question
    assert f'--map "{column}=' in question
    assert "--ignore-column" in question
    # Whoever the column names is counted as mailed in no dry run.
    assert read(text)[0].status != "subscribed"
    for meaning in ("unsubscribed", "consent", "ignore", "attribute"):
        assert not asked(text, mapping=((column, meaning),))


@pytest.mark.parametrize("word", ["unsubscribed", "Bounced", "OPTED OUT", "cleaned", "complained"])
def test_cells_that_speak_of_leaving_are_heard_in_any_column(word: str) -> None:
    few = f"email,Foo\nalice@example.org,active\nbob@example.org,{word}\n"
    assert [row.status == "subscribed" for row in read(few)] == [True, False]
    mixed = few + "charlie@example.org,purple\n"
    (question,) = asked(mixed)
    assert "Foo" in question
    assert all(row.status != "subscribed" for row in read(mixed))
    many = "email,Notes\n" + "".join(f"r{n}@example.org,note {n}\n" for n in range(6_000))
    (question,) = asked(f"{many}bob@example.org,{word}\n")
    assert "line 6002" in question
    (question,) = asked(f"email,Tags\nbob@example.org,VIP;{word}\n")
    assert "Tags" in question


def test_an_attribute_of_any_words_asks_nothing() -> None:
    text = (
        "email,name,plan,vip,country,state,company,notes,sms_consent,subscriber_id,utm source\n"
        "alice@example.org,Alice,pro,true,DE,CA,Cleaning Ltd,Met in 2023,yes,12,web\n"
        "bob@example.org,Bob,free,false,FR,NY,Block & Co,,no,13,mail\n"
    )
    assert asked(text) == []
    assert {row.status for row in read(text)} == {"subscribed"}


def test_an_unknown_word_of_a_status_stops_with_its_line(database: Engine) -> None:
    text = "email,status\nalice@example.org,active\nbob@example.org,gone fishing\n"
    for dry_run in (True, False):
        try:
            report = bring(database, text, dry_run=dry_run)
        except UserError as error:
            assert "“gone fishing” on line 3" in error.message
            assert '--value "gone fishing=' in str(error.hint)
            assert not dry_run
        else:
            assert dry_run
            assert report.mailed == 1
            assert [one.about for one in report.questions] == ["gone fishing"]
    assert mailed(database) == set()
    bring(database, text, words=(("Gone Fishing", "unsubscribed"),))
    assert mailed(database) == {"alice@example.org"}


def test_an_empty_status_is_no_consent_unless_the_operator_says_so() -> None:
    text = "email,status\nalice@example.org,\nbob@example.org,unsubscribed\n"
    assert [row.status for row in read(text)] == ["unconfirmed", "unsubscribed"]
    said = read(text, words=(("", "subscribed"),))
    assert [row.status for row in said] == ["subscribed", "unsubscribed"]


@pytest.mark.parametrize(
    "filename",
    [
        *("unsubscribed.csv", "unsubscribed_members_export_4f.csv", "Opt-outs 2024.csv"),
        *("optouts.txt", "suppressed.csv", "cleaned_members.csv", "nonsubscribed_members.csv"),
        *("bounces.csv", "spam_reports.csv", "blacklist.csv", "block list.csv", "abgemeldet.csv"),
        *("désabonnés.csv", "bajas.csv", "disiscritti.csv", "afgemeld.csv", "wypisani.csv"),
        *("global_unsubscribes.csv", "invalid_emails.csv", "do-not-email.csv"),
    ],
)
def test_a_file_named_after_leaving_mails_nobody_unasked(database: Engine, filename: str) -> None:
    text = "email,name\nalice@example.org,Alice\n"
    with pytest.raises(UserError, match="file’s name") as caught:
        bring(database, text, filename)
    assert "--as" in str(caught.value.hint)
    assert bring(database, text, filename, dry_run=True).mailed == 0
    assert mailed(database) == set()
    assert bring(database, text, filename, everybody="unsubscribed").left == {"unsubscribed": 1}


@pytest.mark.parametrize("mapping", [(), (("#1", "email"),), (("column 2", "name"),)])
def test_the_first_line_of_a_list_without_names_of_columns_is_a_person(
    mapping: tuple[tuple[str, str], ...],
) -> None:
    text = "bob@example.org;Bob\ncharlie@example.org;Charlie\n"
    rows = read(text, everybody="bounced", mapping=mapping)
    assert [(row.email, row.status, row.line) for row in rows] == [
        ("bob@example.org", "bounced", 1),
        ("charlie@example.org", "bounced", 2),
    ]
    with pytest.raises(UserError, match="no column has addresses"):
        read(text, mapping=mapping)


def test_a_file_named_after_leaving_is_asked_about_besides_its_columns() -> None:
    text = "email,Newsletter\nalice@example.org,\nbob@example.org,yes\n"
    assert len(asked(text, "optouts.csv")) == 2
    assert {row.status for row in read(text, "optouts.csv")} == {"unconfirmed"}


def test_a_name_that_the_columns_bear_out_asks_nothing() -> None:
    assert asked("email,status\nbob@example.org,unsubscribed\n", "unsubscribed.csv") == []
    assert asked("email,status\nbob@example.org,active\n", "unsubscribed.csv") != []
    assert asked("email\nalice@example.org\n", "subscribed_members_export.csv") == []


COLUMNS: list[tuple[str, list[str], list[str]]] = [
    ("status", ["unsubscribed", "bounced", "cancelled"], ["active", "subscribed", "enabled"]),
    ("unsubscribed_at", ["2024-01-01", "1679653390"], ["", "-"]),
    ("bounced", ["true", "1", "yes"], ["false", "0", ""]),
    ("opt_in", ["no", "false"], ["yes", "true"]),
    ("EMAIL_BLACKLISTED", ["true"], ["false"]),
    ("complained_at", ["2024-01-01 10:00:00 UTC"], [""]),
    ("confirmed_at", [], ["2024-01-01", "2024-01-01T00:00:00Z"]),
    ("subscribed_to_emails", ["false"], ["true"]),
]


@st.composite
def rows_of_states(draw: st.DrawFn) -> tuple[list[str], list[tuple[list[str], bool]]]:
    """Columns, and rows with whether one of their cells says that the person left."""
    chosen = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, unique_by=lambda one: one[0]))
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        cells, left = [], False
        for _, gone, stays in chosen:
            if gone and draw(st.booleans()):
                cells.append(draw(st.sampled_from(gone)))
                left = True
            else:
                cells.append(draw(st.sampled_from(stays)))
        rows.append((cells, left))
    return [name for name, _, _ in chosen], rows


@pytest.mark.slow
@given(rows_of_states(), st.sampled_from([",", ";", "\t"]))
@settings(deadline=None, max_examples=150)
def test_whoever_one_column_calls_gone_is_gone_whatever_the_others_say(
    made: tuple[list[str], list[tuple[list[str], bool]]], mark: str
) -> None:
    names, rows = made
    lines = [mark.join(("email", *names))]
    lines += [mark.join((f"r{n}@example.org", *cells)) for n, (cells, _) in enumerate(rows)]
    people = open_list("\n".join(lines) + "\n")
    assert people.questions == []
    for row, (_, left) in zip(people, rows, strict=True):
        assert isinstance(row, Row)
        assert (row.status not in {"subscribed", "unconfirmed"}) == left


def test_no_consent_outweighs_a_confirmation(database: Engine) -> None:
    bring(database, "email,consent,confirmed_at\nalice@example.org,,2024-01-01\n")
    assert mailed(database) == set()


# What the operator says about columns.


def test_a_column_is_mapped_by_its_name_or_its_number(database: Engine) -> None:
    text = "Adresse,Nom,Ville,Ville\nalice@example.org,Alice,Lyon,Paris\n"
    with pytest.raises(UserError, match="no column has addresses") as caught:
        bring(database, text)
    assert '--map "Adresse=email"' in str(caught.value.hint)
    mapping = (
        ("adresse", "email"),
        ("Nom", "first name"),
        ("#4", "attribute:city"),
        ("#3", "ignore"),
    )
    bring(database, text, mapping=mapping)
    with reading(database) as session:
        person = session.scalars(select(Subscriber)).one()
        assert (person.email, person.name) == ("alice@example.org", "Alice")
        assert person.attributes == {"first_name": "Alice", "city": "Paris"}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (("Adresse", "fish"), "cannot mean"),
        (("Nobody", "email"), "no column of this name"),
        (("#9", "email"), "no column of this name"),
    ],
)
def test_a_mapping_that_does_not_fit_is_explained(
    database: Engine, mapping: tuple[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        bring(database, "Adresse\nalice@example.org\n", mapping=(mapping,))
    assert caught.value.hint


def test_first_and_last_name_stay_apart_for_greetings_and_make_the_name() -> None:
    (row,) = read("email,First Name,Last Name\nalice@example.org,Alice,Liddell\n")
    assert row.name == "Alice Liddell"
    assert row.attributes == {"first_name": "Alice", "last_name": "Liddell"}


def test_addresses_with_a_name_are_taken(database: Engine) -> None:
    text = (
        'email,name\nAlice Liddell <alice@example.org>,\n"""Ross, Bob"" <bob@example.org>",\n'
        "Charlie <charlie@example.org>,Charles\nmailto:dora@example.org,\n<eve@example.org>,\n"
    )
    assert bring(database, text).added == 5
    with reading(database) as session:
        names = {row.email: row.name for row in session.execute(select(_person))}
    assert names == {
        "alice@example.org": "Alice Liddell",
        "bob@example.org": "Ross, Bob",
        "charlie@example.org": "Charles",
        "dora@example.org": "",
        "eve@example.org": "",
    }


# Dates.

MOMENT = datetime(2023, 3, 24, 10, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("2023-03-24 10:23:10 UTC", "2023-03-24 10:23:10", "2023-03-24T10:23:10Z"),
        *("2023-03-24T10:23:10.000Z", "2023-03-24T12:23:10+02:00", "2023-03-24 12:23:10 +0200"),
        *("2023-03-24 12:23:10.5 +0200 CEST", "2023-03-24 10:23:10 +0000 UTC", "1679653390"),
        *("1679653390000", "20230324T102310", "24.03.2023 10:23:10", "2023/03/24 10:23:10"),
        *("Mar 24, 2023 10:23:10 am", "24 March 2023 10:23:10", "March 24th, 2023 at 10:23:10 AM"),
        *("Fri, 24 Mar 2023 10:23:10 +0000", "3/24/2023 10:23:10 AM", "03/24/2023 10:23:10"),
        *("24/03/2023 10:23:10", "24-03-2023 10:23:10"),
    ],
)
def test_the_dates_of_the_exporters_are_read(text: str) -> None:
    (row,) = read(f'email,created_at\nalice@example.org,"{text}"\n')
    assert row.created_at is not None
    assert row.created_at.replace(microsecond=0) == MOMENT


@pytest.mark.parametrize(
    "text", ["2023-03-24 10:23:10 EST", "3/24/23", "24", "10:23", "32.01.2023"]
)
def test_what_is_no_clear_date_is_rejected_and_never_guessed(text: str) -> None:
    with pytest.raises(UnreadableDateError):
        parse_moment(text, "mdy")


def test_day_and_month_are_told_by_the_whole_column() -> None:
    american = "email,created_at\nalice@example.org,3/4/2023 1:00 PM\nbob@example.org,3/24/2023\n"
    assert [row.created_at for row in read(american)] == [
        datetime(2023, 3, 4, 13, tzinfo=UTC),
        datetime(2023, 3, 24, tzinfo=UTC),
    ]
    european = american.replace("3/24/2023", "24/3/2023")
    assert read(european)[0].created_at == datetime(2023, 4, 3, 13, tzinfo=UTC)


@pytest.mark.parametrize("other", ["5/6/2023", "24/3/2023\nc@example.org,3/24/2023"])
def test_dates_that_may_be_two_days_stop_the_import(database: Engine, other: str) -> None:
    text = f"email,created_at\nalice@example.org,3/4/2023\nb@example.org,{other}\n"
    with pytest.raises(UserError, match="created_at") as caught:
        bring(database, text)
    assert "line" in caught.value.message
    assert "--dates" in str(caught.value.hint)
    assert read(text, dates="mdy")[0].created_at == datetime(2023, 3, 4, tzinfo=UTC)


# Rejects.


def test_rejects_are_mended_and_imported_again(database: Engine, tmp_path: Path) -> None:
    source, rejects = tmp_path / "members.csv", tmp_path / "rejects.csv"
    source.write_text(
        "Email;Name;status;created_at;Plan\n"
        "alice@example.org;Alice;active;2024-01-02;pro\n"
        "bob;Bob;active;2024-01-02;=1+1\n"
        "charlie@example.org;Charlie;unsubscribed;yesterday;free\n"
        "dora@example.org;Dora;active;2024-01-02;pro;one too many\n"
        'eve@example.org;"Eve;active;2024-01-02;pro\n',
        encoding="utf-8",
    )

    def run(file: Path, rejects: Path | None = None) -> ImportReport:
        return import_people(
            database,
            file,
            address_key=KEY,
            now=NOW,
            name="members",
            options=ImportOptions(confirmed=True),
            rejects=rejects,
        )

    assert (run(source, rejects).added, run(source, rejects).rejected) == (1, 4)
    unmended = run(rejects, tmp_path / "again.csv")
    assert (unmended.added, unmended.rejected) == (0, 4)
    with rejects.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["line", "reason", "row", "Email", "Name", "status", "created_at", "Plan"]
    assert [row[0] for row in rows] == ["3", "4", "5", "6"]
    rows[0][3], rows[1][6] = "bob@example.org", "2024-01-01"
    rows[2][3:] = ["dora@example.org", "Dora", "active", "2024-01-02", "pro"]
    rows[3][3:] = ["eve@example.org", "Eve", "active", "2024-01-02", "pro"]
    with rejects.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    report = run(rejects)
    assert (report.added, report.left, report.rejected) == (3, {"unsubscribed": 1}, 0)
    assert dict(report.columns)["Plan"] == "attribute plan"
    assert "reason" not in dict(report.columns)
    assert mailed(database) == {f"{name}@example.org" for name in ("alice", "bob", "dora", "eve")}
    with reading(database) as session:
        bob = session.scalars(select(Subscriber).where(_person.c.email == "bob@example.org")).one()
        assert bob.attributes == {"plan": "=1+1"}


def test_rejected_objects_are_mended_in_their_cells(database: Engine, tmp_path: Path) -> None:
    source, rejects = tmp_path / "members.jsonl", tmp_path / "rejects.csv"
    source.write_text(
        '{"email": "alice@example.org"}\n{"email": "bob", "plan": "pro", "n": 1}\n', "utf-8"
    )
    options = {"address_key": KEY, "now": NOW, "name": "x"}
    import_people(database, source, rejects=rejects, **options)  # type: ignore[arg-type]
    text = rejects.read_text("utf-8")
    rejects.write_text(text.replace('""bob""', '""bob@example.org""'), "utf-8")
    report = import_people(database, rejects, **options)  # type: ignore[arg-type]
    assert (report.added, report.rejected) == (1, 0)
    with reading(database) as session:
        bob = session.scalars(select(Subscriber).where(_person.c.email == "bob@example.org")).one()
        assert bob.attributes == {"plan": "pro", "n": 1}


# Topics.


@pytest.fixture
def topic(database: Engine) -> Callable[[str, str], None]:
    def make(slug: str, name: str) -> None:
        with transaction(database) as session:
            session.add(Topic(slug=slug, name=name))

    return make


@pytest.mark.parametrize(
    "word",
    ["engineering", "Engineering", "ENGINEERING", " engineering ", "Eng'ineering", "Ingénierie"],
)
@pytest.mark.parametrize("column", ["tags", "topics"])
def test_a_topic_is_meant_by_its_slug_or_name_however_it_is_written(
    database: Engine, topic: Callable[[str, str], None], word: str, column: str
) -> None:
    topic("engineering", "Ingénierie")
    topic("c", "C")
    topic("cpp", "C++")
    report = bring(database, f"email,{column}\na@example.org,{word}\nb@example.org,C++\n")
    assert report.topics == {"engineering": 1, "cpp": 1}
    assert (report.without_topic, report.unknown_topics, report.new_topics) == (0, {}, ())
    with reading(database) as session:
        chosen = session.execute(select(Topic.slug).join(Subscription)).scalars().all()  # type: ignore[call-overload]
    assert sorted(chosen) == ["cpp", "engineering"]


def test_a_topic_that_there_is_not_stops_the_import_unless_it_is_to_be_made(
    database: Engine, topic: Callable[[str, str], None]
) -> None:
    topic("news", "News")
    text = "email,topics\na@example.org,Enginering\nb@example.org,enginering;news\nc@example.org,\n"
    with pytest.raises(UserError, match="no topic “Enginering”"):
        bring(database, text)
    dry = bring(database, text, dry_run=True)
    assert dry.unknown_topics == {"Enginering": 1, "enginering": 1}
    assert (dry.topics, dry.without_topic) == ({"news": 1}, 2)
    report = bring(database, text, create_topics=True)
    assert report.new_topics == ("enginering",)
    assert report.topics == {"enginering": 2, "news": 1}
    with reading(database) as session:
        made = session.scalars(select(Topic).where(table_of(Topic).c.slug == "enginering")).one()
        assert made.name == "Enginering"


def test_tags_that_mean_no_topic_are_counted(
    database: Engine, topic: Callable[[str, str], None]
) -> None:
    topic("news", "News")
    report = bring(database, "email,tags\na@example.org,VIP\nb@example.org,VIP;News\n")
    assert (report.other_tags, report.topics, report.without_topic) == (
        {"VIP": 2},
        {"news": 1},
        1,
    )


def test_the_operators_topic_may_be_a_name(
    database: Engine, topic: Callable[[str, str], None]
) -> None:
    topic("engineering", "Engineering")
    report = bring(database, "email\na@example.org\n", topics=("Engineering",))
    assert (report.added, report.without_topic) == (1, 0)
