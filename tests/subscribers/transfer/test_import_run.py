"""Importing people: who is added, changed and refused, on both databases."""

import csv
import io
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, func, select, text

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import UserError
from subscribers.consent import suppression
from subscribers.email_address import hash_address, parse
from subscribers.list_files import export_format
from subscribers.models import (
    Consent,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)
from subscribers.segments import store as segment_store
from subscribers.self_service import erasure
from subscribers.transfer import import_run
from subscribers.transfer.import_run import ImportOptions, ImportReport, import_people

pytestmark = pytest.mark.both_databases

DATA = Path(__file__).parents[1] / "list_files" / "data"
KEY = b"an address key of a test, 32 octs"
NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)

Import = Callable[..., ImportReport]


@pytest.fixture
def run(database: Engine) -> Import:
    def run(
        text: str | bytes | Path,
        *,
        now: datetime = NOW,
        rejects: Path | None = None,
        **options: Any,
    ) -> ImportReport:
        data = text.encode() if isinstance(text, str) else text
        report = import_people(
            database,
            data if isinstance(data, Path) else io.BytesIO(data),
            address_key=KEY,
            now=now,
            name="test",
            options=ImportOptions(**options),
            rejects=rejects,
        )
        accounted = (
            report.added
            + report.updated
            + report.unchanged
            + sum(report.left.values())
            + sum(report.refused.values())
            + report.duplicates
            + report.rejected
        )
        assert accounted == report.read or not report.written
        return report

    return run


def hashed(email: str) -> bytes:
    return hash_address(KEY, parse(email))


def people(engine: Engine) -> dict[str, Subscriber]:
    with transaction(engine) as session:
        found = session.scalars(select(Subscriber).order_by(table_of(Subscriber).c.id)).all()
        session.expunge_all()
    return {person.email: person for person in found}


def suppressions(engine: Engine) -> dict[bytes, tuple[str, datetime, str]]:
    with transaction(engine) as session:
        rows = session.execute(select(table_of(Suppression)))
        return {row.address_hash: (row.reason, row.at, row.evidence) for row in rows}


def consents(engine: Engine) -> list[tuple[str, str, str, datetime, str | None]]:
    c = table_of(Consent).c
    p = table_of(Subscriber).c
    with transaction(engine) as session:
        rows = session.execute(
            select(p.email, c.act, c.wording, c.at, c.ip)
            .join_from(table_of(Consent), table_of(Subscriber))
            .order_by(c.id)
        )
        return [tuple(row) for row in rows]  # type: ignore[misc]


def topics(engine: Engine) -> dict[str, list[str]]:
    with transaction(engine) as session:
        found: dict[str, list[str]] = {}
        for email, slug in session.execute(
            select(table_of(Subscriber).c.email, table_of(Topic).c.slug)
            .select_from(table_of(Subscription).join(table_of(Subscriber)).join(table_of(Topic)))
            .order_by(table_of(Topic).c.slug)
        ):
            found.setdefault(email, []).append(slug)
        return found


def rows_of(rejects: Path) -> list[list[str]]:
    with rejects.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def count(engine: Engine, *models: Any) -> list[int]:
    with transaction(engine) as session:
        return [
            session.scalar(select(func.count()).select_from(table_of(model))) or 0
            for model in models
        ]


def add_topic(engine: Engine, *slugs: str) -> None:
    with transaction(engine) as session:
        session.add_all([Topic(slug=slug, name=slug.capitalize()) for slug in slugs])


def suppress(engine: Engine, email: str, reason: SuppressionReason) -> None:
    with transaction(engine) as session:
        suppression.add_addresses(session, [hashed(email)], reason, at=NOW, evidence="before")


# New people.


def test_new_people_are_stored_as_the_file_tells(database: Engine, run: Import) -> None:
    report = run(
        "email,name,language,timezone,plan,created_at,confirmed_at\n"
        " Alice@Example.ORG ,Alice,de,Europe/Berlin,pro,2024-01-02,2024-01-03 04:05:06.789\n"
        "bob@example.org,,,,,,\n"
    )
    assert (report.kind, report.read, report.added) == ("CSV", 2, 2)
    alice, bob = people(database).values()
    assert alice.email == "Alice@example.org"
    assert alice.address_hash == hashed("alice@example.org")
    assert (alice.name, alice.language, alice.timezone) == ("Alice", "de", "Europe/Berlin")
    assert alice.attributes == {"plan": "pro"}
    assert alice.source == "import:test"
    assert alice.created_at == datetime(2024, 1, 2, tzinfo=UTC)
    assert alice.confirmed_at == datetime(2024, 1, 3, 4, 5, 6, 789000, tzinfo=UTC)
    assert (bob.name, bob.language, bob.attributes) == ("", None, {})
    assert (bob.created_at, bob.confirmed_at) == (NOW, None)


def test_nobody_is_given_the_number_of_somebody_erased(database: Engine, run: Import) -> None:
    run("email\nalice@example.org\nbob@example.org\n")
    old = people(database)["bob@example.org"].id
    with transaction(database) as session:
        erasure.erase(session, old, now=NOW)
    run("email\ncarol@example.org\ndora@example.org\n")
    new = [person.id for person in people(database).values()][1:]
    assert old < new[0] < new[1]


def test_raw_rows_are_the_same_as_the_models_would_write(database: Engine, run: Import) -> None:
    with transaction(database) as session:
        session.add(
            Subscriber(
                email="model@example.org",
                address_hash=hashed("model@example.org"),
                name="M",
                attributes={"plan": "pro", "x": "ä"},
                created_at=NOW,
                confirmed_at=NOW,
            )
        )
    run("email,name,plan,x\nimport@example.org,M,pro,ä\n", confirmed=True)
    columns = "attributes, created_at, confirmed_at, paused_until, language"
    with transaction(database) as session:
        one, two = session.connection().exec_driver_sql(f"SELECT {columns} FROM subscriber")
    assert tuple(one) == tuple(two)


def test_each_new_person_has_a_proof_of_consent(database: Engine, run: Import) -> None:
    run("email\na@example.org\n", confirmed=True, wording="Ticked the box in our shop")
    assert consents(database) == [
        ("a@example.org", "imported", "Ticked the box in our shop", NOW, None)
    ]
    assert people(database)["a@example.org"].confirmed_at == NOW


def test_nobody_is_confirmed_whom_the_file_calls_unconfirmed(database: Engine, run: Import) -> None:
    run("email,status\na@example.org,pending\nb@example.org,active\n", confirmed=True)
    assert [person.confirmed_at for person in people(database).values()] == [None, NOW]


def test_international_domains_are_one_address_in_both_spellings(run: Import) -> None:
    report = run("email\na@bücher.example\nA@xn--bcher-kva.EXAMPLE\n")
    assert (report.added, report.duplicates) == (1, 1)


def test_addresses_that_cannot_be_mailed_are_rejected(tmp_path: Path, run: Import) -> None:
    rejects = tmp_path / "rejects.csv"
    report = run(
        'email,name\n"""quoted local""@example.org",Q\n,Nobody\nnonsense,N\nzoë@example.org,Z\n'
        "a@example.org,A\n",
        rejects=rejects,
    )
    assert (report.added, report.rejected) == (1, 4)
    assert [example.line for example in report.examples] == [2, 3, 4, 5]
    assert report.examples[1].reason == "no address"
    rows = rows_of(rejects)
    assert rows[0] == ["line", "reason", "row", "email", "name"]
    assert rows[1][0] == "2"
    assert rows[1][2] == '"""quoted local""@example.org",Q'
    assert rows[3][2] == "nonsense,N"


def test_rejects_are_safe_to_open_in_a_spreadsheet(tmp_path: Path, run: Import) -> None:
    rejects = tmp_path / "rejects.csv"
    run("name,email\n=HYPERLINK(1),x\n", rejects=rejects)
    assert "'=HYPERLINK(1),x" in rejects.read_text(encoding="utf-8")


def test_a_reject_file_of_an_import_without_rejects_is_empty(tmp_path: Path, run: Import) -> None:
    rejects = tmp_path / "rejects.csv"
    rejects.write_text("of another import")
    run("email\na@example.org\n", rejects=rejects)
    assert rejects.read_text().splitlines() == ["line,reason,row,email"]


def test_text_of_templates_and_formulas_stays_text(database: Engine, run: Import) -> None:
    text = '<b onclick="x">-name-</b> {{ x }} %recipient% =1+1 \' \\ \u202e'
    line = orjson.dumps({"email": "a@example.org", "note": text, "name": text}).decode()
    run(line)
    (person,) = people(database).values()
    assert (person.name, person.attributes) == (text, {"note": text})


# People who left.


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_nobody_who_left_or_bounced_is_revived(
    database: Engine, run: Import, reason: SuppressionReason
) -> None:
    run("email,name\na@example.org,A\nb@example.org,B\n")
    suppress(database, "a@example.org", reason)
    suppress(database, "new@example.org", reason)
    before = suppressions(database)
    report = run(
        "email,name,plan\nA@EXAMPLE.org,X,pro\nnew@example.org,N,pro\nb@example.org,B,pro\n",
        confirmed=True,
        now=LATER,
    )
    assert report.refused == {reason.value: 2}
    assert (report.added, report.updated) == (0, 1)
    assert list(people(database)) == ["a@example.org", "b@example.org"]
    alice = people(database)["a@example.org"]
    assert (alice.name, alice.attributes, alice.confirmed_at) == ("A", {}, None)
    assert suppressions(database) == before


def test_people_who_left_elsewhere_are_suppressed_and_not_kept(
    database: Engine, run: Import
) -> None:
    run("email\ncarol@example.org\n", confirmed=True)
    report = run(DATA / "mailchimp_unsubscribed.csv", confirmed=True)
    assert report.left == {"unsubscribed": 1, "complained": 1}
    assert run(DATA / "mailchimp_cleaned.csv", confirmed=True).left == {"bounced": 1}
    assert list(people(database)) == ["carol@example.org"]
    assert suppressions(database) == {
        hashed("carol@example.org"): (
            "unsubscribed",
            datetime(2022, 3, 4, 5, 6, 7, tzinfo=UTC),
            "import:test",
        ),
        hashed("dan@example.org"): (
            "complained",
            datetime(2022, 3, 5, 5, 6, 7, tzinfo=UTC),
            "import:test",
        ),
        hashed("erin@example.org"): (
            "bounced",
            datetime(2022, 3, 6, 5, 6, 7, tzinfo=UTC),
            "import:test",
        ),
    }


@pytest.mark.parametrize("order", [("active", "unsubscribed"), ("unsubscribed", "active")])
def test_a_file_of_two_minds_keeps_the_person_out(
    database: Engine, run: Import, order: tuple[str, str]
) -> None:
    text = f"email,status\na@example.org,{order[0]}\nA@example.org,{order[1]}\n"
    report = run(text, confirmed=True)
    assert (report.left, report.duplicates, report.added) == ({"unsubscribed": 1}, 1, 0)
    assert suppressions(database)[hashed("a@example.org")][0] == "unsubscribed"
    assert people(database) == {}


GOES = (
    "email,name,status\ngone@example.org,G,active\nknown@example.org,K,active\n"
    + "".join(f"p{n}@example.org,P,active\n" for n in range(6))
    + "known@example.org,K,spam\ngone@example.org,G,unsubscribed\n"
)


@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_who_leaves_on_a_later_line_is_mailable_at_no_moment(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch, *, all_or_nothing: bool
) -> None:
    monkeypatch.setattr(import_run, "_BATCH", 2)
    monkeypatch.setattr(import_run, "_SLICE", 1)
    run("email\nknown@example.org\n", confirmed=True)
    seen: list[set[str]] = []

    def look(_read: int, _part: float) -> None:
        with reading(database) as session:
            mailable = select(table_of(Subscriber).c.email).select_from(segment_store.PEOPLE)
            seen.append(
                set(
                    session.scalars(
                        mailable.where(segment_store.exclusion_reason(NOW, ()).is_(None))
                    )
                )
            )

    import_people(
        database,
        io.BytesIO(GOES.encode()),
        address_key=KEY,
        now=LATER,
        name="test",
        options=ImportOptions(confirmed=True, all_or_nothing=all_or_nothing),
        progress=look,
    )
    assert seen[-1] == {f"p{n}@example.org" for n in range(6)}
    assert not any("gone@example.org" in mailable for mailable in seen)
    # Who was mailed before is not, from the first moment on that anything was written.
    assert {"known@example.org"} in seen
    assert not any("known@example.org" in mailable for mailable in seen if len(mailable) > 1)


def test_who_leaves_on_a_later_line_stays_out_though_the_import_breaks_off(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_run, "_BATCH", 2)
    run("email\nknown@example.org\n", confirmed=True)

    def stop(_read: int, _part: float) -> None:
        if len(people(database)) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_people(
            database,
            io.BytesIO(GOES.encode()),
            address_key=KEY,
            now=LATER,
            name="test",
            options=ImportOptions(confirmed=True),
            progress=stop,
        )
    assert "gone@example.org" not in people(database)
    assert [row[0] for row in suppressions(database).values()] == ["complained"]
    assert run(GOES, confirmed=True).left == {"unsubscribed": 1, "complained": 1}
    assert list(people(database)) == ["known@example.org", *(f"p{n}@example.org" for n in range(6))]
    assert {row[0] for row in suppressions(database).values()} == {"complained", "unsubscribed"}


def test_our_own_export_brings_back_who_left_though_the_import_broke_off(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept and suppressed in one transaction: alone, either would bar the other."""
    monkeypatch.setattr(import_run, "_SLICE", 1)
    kept = dict.fromkeys(export_format.COLUMNS)
    lines = [
        orjson.dumps(kept | {"email": f"{name}@example.org", "name": "", "status": status})
        for name, status in (("one", "unsubscribed"), ("two", "bounced"))
    ]

    def stop(_read: int, _part: float) -> None:
        if people(database):
            raise KeyboardInterrupt

    def bring(progress: import_run.Progress | None) -> None:
        import_people(
            database,
            io.BytesIO(b"\n".join(lines)),
            address_key=KEY,
            now=NOW,
            name="test",
            progress=progress,
        )

    with pytest.raises(KeyboardInterrupt):
        bring(stop)
    assert len(people(database)) == len(suppressions(database)) == 1
    bring(None)
    assert len(suppressions(database)) == 2
    assert list(people(database)) == ["one@example.org", "two@example.org"]


def test_a_stronger_reason_to_stay_out_replaces_a_weaker(database: Engine, run: Import) -> None:
    suppress(database, "a@example.org", SuppressionReason.UNSUBSCRIBED)
    suppress(database, "b@example.org", SuppressionReason.ERASED)
    run("email,status\na@example.org,spam\nb@example.org,bounced\n")
    assert [row[0] for row in suppressions(database).values()].count("complained") == 1
    assert suppressions(database)[hashed("b@example.org")][0] == "erased"


# People who are known.


def test_known_people_gain_what_the_file_says_and_lose_nothing(
    database: Engine, run: Import
) -> None:
    add_topic(database, "news", "tech")
    run(
        '{"email": "a@example.org", "name": "A", "plan": "pro", "n": 1, "deep": {"x": 1},'
        ' "language": "de", "topics": ["news"]}\n'
    )
    report = run(
        '{"email": "A@Example.org", "name": "", "n": true, "deep": {"y": null},'
        ' "topics": ["tech"]}\n',
        now=LATER,
        confirmed=True,
        wording="again",
    )
    assert (report.updated, report.unchanged) == (1, 0)
    (person,) = people(database).values()
    assert (person.email, person.name, person.language) == ("a@example.org", "A", "de")
    assert orjson.dumps(person.attributes, option=orjson.OPT_SORT_KEYS) == (
        b'{"deep":{"y":null},"n":true,"plan":"pro"}'
    )
    assert (person.created_at, person.confirmed_at) == (NOW, LATER)
    assert topics(database) == {"a@example.org": ["news", "tech"]}
    assert [row[1:3] for row in consents(database)] == [("imported", ""), ("imported", "again")]


def test_a_confirmation_is_never_moved(database: Engine, run: Import) -> None:
    run("email\na@example.org\n", confirmed=True)
    run("email,confirmed_at,plan\na@example.org,2027-01-01,pro\n", now=LATER, confirmed=True)
    assert people(database)["a@example.org"].confirmed_at == NOW
    assert len(consents(database)) == 1


def test_known_people_can_be_left_alone(database: Engine, run: Import) -> None:
    run("email,name\na@example.org,A\n")
    report = run("email,name\na@example.org,X\nb@example.org,B\n", update=False, confirmed=True)
    assert (report.added, report.updated, report.unchanged) == (1, 0, 1)
    assert people(database)["a@example.org"].name == "A"


def test_the_same_file_again_changes_nothing(database: Engine, run: Import) -> None:
    text = "email,name,plan\n" + "".join(f"r{n}@example.org,R{n},pro\n" for n in range(100))
    run(text, confirmed=True)
    tables = Subscriber, Consent, Subscription, Suppression
    before = count(database, *tables)
    report = run(text, confirmed=True, now=LATER)
    assert (report.added, report.updated, report.unchanged) == (0, 0, 100)
    assert count(database, *tables) == before


def test_the_first_of_two_rows_of_an_address_counts(
    database: Engine, run: Import, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.csv"
    report = run(
        "email,name\na@example.org,First\nb@example.org,B\nA@EXAMPLE.ORG,Second\n", rejects=rejects
    )
    assert (report.added, report.duplicates, report.rejected) == (2, 1, 0)
    assert people(database)["a@example.org"].name == "First"
    rows = rows_of(rejects)
    assert rows[1:] == [
        [
            "4",
            "the address is on line 2 already, which counts",
            "A@example.org",
            "A@example.org",
            "",
        ]
    ]


# Topics.


def test_topics_of_the_file_are_made_and_labels_are_not(database: Engine, run: Import) -> None:
    add_topic(database, "engineering")
    text = "email,topics,tags\na@example.org,news;tech,VIP|engineering\nb@example.org,,\n"
    report = run(text, create_topics=True)
    assert report.new_topics == ("news", "tech")
    assert topics(database) == {"a@example.org": ["engineering", "news", "tech"]}
    assert people(database)["a@example.org"].attributes == {"tags": ["VIP", "engineering"]}


def test_topics_of_the_operator_go_to_everybody(database: Engine, run: Import) -> None:
    add_topic(database, "news")
    run("email\na@example.org\n")
    report = run("email\na@example.org\nb@example.org\n", topics=("news",))
    assert (report.added, report.updated) == (1, 1)
    assert topics(database) == {"a@example.org": ["news"], "b@example.org": ["news"]}
    assert run("email\na@example.org\n", topics=("news",)).unchanged == 1


def test_a_topic_that_there_is_not_is_the_operators_mistake(database: Engine, run: Import) -> None:
    add_topic(database, "news")
    with pytest.raises(UserError, match="no topic") as caught:
        run("email\na@example.org\n", topics=("nwes",))
    assert "news" in str(caught.value.hint)


# Dry runs, all or nothing, restarts.

MIXED = (
    "email,name,topics,status\n"
    "known@example.org,New name,,\n"
    "same@example.org,Same,,\n"
    "fresh@example.org,F,news,\n"
    "fresh@EXAMPLE.org,F,tech,\n"
    "gone@example.org,G,,\n"
    "minds@example.org,M,,\n"
    "left@example.org,L,,unsubscribed\n"
    "minds@example.org,M,,unsubscribed\n"
    "nonsense,N,,\n"
)


@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_a_dry_run_counts_the_same_and_changes_nothing(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch, *, all_or_nothing: bool
) -> None:
    monkeypatch.setattr(import_run, "_BATCH", 2)  # the rows of one person come in two batches
    run("email,name\nknown@example.org,K\nsame@example.org,Same\n")
    suppress(database, "gone@example.org", SuppressionReason.COMPLAINED)
    text = MIXED.replace("nonsense", "n@example.org")
    tables = Subscriber, Consent, Subscription, Suppression, Topic
    before = count(database, *tables)
    dry = run(text, dry_run=True, all_or_nothing=all_or_nothing, create_topics=True)
    assert not dry.written
    assert count(database, *tables) == before
    wet = run(text, all_or_nothing=all_or_nothing, create_topics=True)
    assert wet.written
    fields = ("read", "added", "updated", "unchanged", "left", "refused", "duplicates", "mailed")
    assert [getattr(dry, name) for name in fields] == [getattr(wet, name) for name in fields]
    assert [getattr(wet, name) for name in fields] == [
        10 - 1,
        2,
        1,
        1,
        {"unsubscribed": 2},
        {"complained": 1},
        2,
        0,
    ]
    assert wet.new_topics == dry.new_topics == ("news",)


def test_all_or_nothing_writes_nothing_when_a_row_is_rejected(
    database: Engine, run: Import
) -> None:
    report = run(MIXED, all_or_nothing=True, create_topics=True)
    assert (report.written, report.rejected) == (False, 1)
    assert count(database, Subscriber, Suppression, Topic, Consent) == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_an_import_that_breaks_off_is_whole_after_another_run(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch, *, all_or_nothing: bool
) -> None:
    monkeypatch.setattr(import_run, "_BATCH", 100)
    text = "email,name\n" + "".join(f"r{n}@example.org,R{n}\n" for n in range(1000))

    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0 and breaking.is_set():
                raise OSError("the disk is gone")
            return super().read(min(size or -1, 4096) if size and size > 0 else -1)

    breaking = threading.Event()
    rows = 0

    def progress(read: int, part: float) -> None:
        nonlocal rows
        rows = read
        assert 0 <= part <= 1
        if read >= 400:
            breaking.set()

    with pytest.raises(OSError, match="disk"):
        import_people(
            database,
            Breaks(text.encode()),
            address_key=KEY,
            now=NOW,
            name="test",
            options=ImportOptions(confirmed=True, all_or_nothing=all_or_nothing),
            progress=progress,
        )
    assert rows >= 400
    (there,) = count(database, Subscriber)
    assert (there == 0) if all_or_nothing else (0 < there < 1000 and there % 100 == 0)
    report = run(text, confirmed=True)
    assert (report.added, report.unchanged) == (1000 - there, there)
    assert count(database, Subscriber, Consent) == [1000, 1000]


@pytest.mark.slow
def test_many_batches_come_out_as_one(
    database: Engine, run: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_run, "_BATCH", 7)
    monkeypatch.setattr(import_run, "_SLICE", 3)
    text = "email,name,n\n" + "".join(f"r{n % 90}@example.org,R{n},{n}\n" for n in range(100))
    report = run(text)
    assert (report.added, report.duplicates) == (90, 10)
    assert [person.attributes["n"] for person in people(database).values()] == [
        str(n) for n in range(90)
    ]
    report = run(text.replace(",R", ",S"))
    assert (report.updated, report.duplicates) == (90, 10)


@pytest.mark.slow
def test_a_table_that_was_emptied_is_not_taken_for_empty_while_it_fills(
    database: Engine, run: Import
) -> None:
    """Two batches: without figures, each row of the second would have all of the first read."""
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite plans without them")
    empty = "UPDATE pg_class SET relpages = 50, reltuples = 0 WHERE relname = 'subscriber'"
    known = "SELECT reltuples FROM pg_class WHERE relname = 'subscriber'"
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE subscriber SET (autovacuum_enabled = off)"))
        connection.execute(text(empty))
    try:
        people = "".join(f"r{n}@example.org\n" for n in range(20_100))
        assert run("email\n" + people).added == 20_100
        with database.connect() as connection:
            assert connection.scalar(text(known)) > 10_000
    finally:
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE subscriber RESET (autovacuum_enabled)"))


@pytest.mark.slow
def test_writers_do_not_wait_long_while_an_import_runs(database: Engine, run: Import) -> None:
    text = "email,name\n" + "".join(f"r{n}@example.org,R{n}\n" for n in range(60_000))
    done = threading.Event()
    waits: list[float] = []

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            began = time.perf_counter()
            with transaction(database) as session:
                session.add(Topic(slug=f"t{number}", name="t"))
            waits.append(time.perf_counter() - began)
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert run(text).added == 60_000
    finally:
        done.set()
        writer.join()
    assert max(waits) < 5


def test_a_pipe_is_read_like_a_file(database: Engine) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    report = import_people(
        database, Pipe(b"email\na@example.org\n"), address_key=KEY, now=NOW, name="stdin"
    )
    assert report.added == 1


def test_an_import_leaves_nothing_behind_in_the_database(database: Engine, run: Import) -> None:
    run("email\na@example.org\n")
    run("email\na@example.org\n")
    with reading(database) as session:
        from sqlalchemy import inspect

        names = inspect(session.connection()).get_table_names()
    # The one table of that name keeps what the console was given.
    assert [name for name in names if name.startswith("import_")] == ["import_job"]


def test_files_that_cannot_be_opened_are_explained(
    database: Engine, run: Import, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the file cannot be read"):
        run(tmp_path / "none.csv")
    with pytest.raises(UserError, match="the reject file cannot be written"):
        run("email\na@example.org\n", rejects=tmp_path / "no" / "rejects.csv")
