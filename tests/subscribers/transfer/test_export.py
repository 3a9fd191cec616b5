"""Exports: what leaves by one comes back by an import, whatever it is made of."""

import csv
import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, select, true

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import UserError
from subscribers.email_address import hash_address, parse
from subscribers.list_files.csv_safety import plain, safe
from subscribers.list_files.export_format import COLUMNS
from subscribers.list_files.status_words import is_status_word, sense_of
from subscribers.models import Consent, Subscriber, Subscription, Suppression, Topic
from subscribers.transfer.export import Form, export_people
from subscribers.transfer.import_run import ImportOptions, ImportReport, import_people

KEY = b"an address key of a test, 32 octs"
NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
FORMS: tuple[Form, ...] = ("csv", "jsonl")
TABLES = (Subscriber, Topic, Subscription, Consent, Suppression)

# PostgreSQL keeps no NUL, and no encoding keeps half a surrogate pair.
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
one_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
risky = st.sampled_from(
    ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "'", "''=x", "＝x", '"', ","]
)
moments = st.integers(-(10**15), 4 * 10**15).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | anything | risky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=6,
)
slugs = st.text("abc-,;|\"' =[", min_size=1, max_size=8).filter(lambda text: text.strip() == text)
acts = st.fixed_dictionaries(
    {
        "at": moments,
        "act": st.sampled_from(["requested", "confirmed", "imported", "withdrawn"]),
        "source": anything,
        "wording": anything,
        "ip": st.none() | st.just("192.0.2.1"),
        "user_agent": st.none() | anything.filter(bool),
    }
)
persons = st.fixed_dictionaries(
    {
        "local": st.text("abcXYZ0123=+-'", min_size=1, max_size=8),
        "name": one_line | risky.filter(str.isprintable),
        "attributes": st.dictionaries(anything | risky, values, max_size=4),
        "language": st.none() | st.just("de-AT"),
        "timezone": st.none() | st.just("Europe/Berlin"),
        "source": (anything | risky).filter(bool),
        "created_at": moments,
        "confirmed_at": st.none() | moments,
        "paused_until": st.none() | moments,
        "last_open_at": st.none() | moments,
        "last_click_at": st.none() | moments,
        "topics": st.sets(slugs, max_size=3),
        "consents": st.lists(acts, max_size=3),
        "barred": st.none()
        | st.tuples(
            st.sampled_from(["unsubscribed", "bounced", "complained", "manual", "erased"]),
            moments,
            anything,
        ),
    }
)


def on_a_database(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        # Tracing every line for an explanation takes minutes here.
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def store(engine: Engine, people: list[dict[str, Any]]) -> None:
    """Straight into the tables: the oracle knows nothing of imports."""
    with transaction(engine) as session:
        connection = session.connection()
        for slug in sorted({slug for person in people for slug in person["topics"]}):
            connection.execute(insert(table_of(Topic)).values(slug=slug, name=slug, description=""))
        topics = {row.slug: row.id for row in connection.execute(select(table_of(Topic)))}
        for person in people:
            address = parse(f"{person['local']}@example.org")
            fields = {k: v for k, v in person.items() if k in table_of(Subscriber).c}
            key = connection.execute(
                insert(table_of(Subscriber))
                .values(email=address.email, address_hash=hash_address(KEY, address), **fields)
                .returning(table_of(Subscriber).c.id)
            ).scalar_one()
            for slug in person["topics"]:
                connection.execute(
                    insert(table_of(Subscription)).values(
                        subscriber_id=key, topic_id=topics[slug], since=NOW
                    )
                )
            for act in person["consents"]:
                connection.execute(insert(table_of(Consent)).values(subscriber_id=key, **act))
            if person["barred"]:
                reason, at, evidence = person["barred"]
                connection.execute(
                    insert(table_of(Suppression)).values(
                        address_hash=hash_address(KEY, address),
                        reason=reason,
                        at=at,
                        evidence=evidence,
                    )
                )


def state(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is stored, without the numbers that each database gives anew."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with transaction(engine) as session:
        for model in TABLES:
            table = table_of(model)
            person = table_of(Subscriber)
            shown = [c for c in table.c if c.name not in {"id", "subscriber_id", "topic_id"}]
            statement = select(*shown)
            if "subscriber_id" in table.c:
                statement = select(person.c.email, *shown).join_from(table, person)
            if "topic_id" in table.c:
                topic = table_of(Topic)
                statement = statement.add_columns(topic.c.slug).join(
                    topic, topic.c.id == table.c.topic_id
                )
            rows = [
                tuple(
                    orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
                    if isinstance(value, dict)
                    else value
                    for value in row
                )
                for row in session.execute(statement)
            ]
            found[table.name] = sorted(rows, key=repr)
    return found


def clear(engine: Engine) -> None:
    with transaction(engine) as session:
        for model in (Subscription, Consent, Suppression, Subscriber, Topic):
            session.execute(delete(table_of(model)))


def exported(engine: Engine, form: Form = "csv") -> bytes:
    file = io.BytesIO()
    with reading(engine) as session:
        export_people(session, true(), file, form=form)
    return file.getvalue()


def imported(engine: Engine, data: bytes, **options: Any) -> ImportReport:
    return import_people(
        engine,
        io.BytesIO(data),
        address_key=KEY,
        now=NOW,
        name="again",
        options=ImportOptions(**options),
    )


def distinct(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({person["local"].lower(): person for person in people}.values())


def valid(person: dict[str, Any]) -> bool:
    try:
        parse(f"{person['local']}@example.org")
    except UserError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@on_a_database(15)
@given(people=st.lists(persons.filter(valid), min_size=1, max_size=12).map(distinct))
def test_an_export_imports_back_to_the_same_state(
    database: Engine, form: Form, people: list[dict[str, Any]]
) -> None:
    clear(database)
    store(database, people)
    before = state(database)
    file = exported(database, form)
    clear(database)
    report = imported(database, file)
    assert report.rejected == 0, report.examples
    assert state(database) == before
    again = imported(database, file)
    assert (again.added, again.updated) == (0, 0)
    assert state(database) == before


def is_neutral(value: object) -> bool:
    """Whether no text in it is a status, such as "spam", which an import takes at its word."""
    if isinstance(value, dict):
        return all(map(is_neutral, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(is_neutral, value))
    return not isinstance(value, str) or not (is_status_word(value) or sense_of(value))


@on_a_database(25)
@given(
    name=one_line,
    note=(anything | risky).filter(is_neutral),
    document=st.dictionaries(anything, values, max_size=3).filter(is_neutral),
    form=st.sampled_from(FORMS),
)
def test_any_text_comes_back_unchanged_through_import_and_export(
    database: Engine, name: str, note: str, document: dict[str, Any], form: Form
) -> None:
    clear(database)
    foreign = io.StringIO(newline="")
    writer = csv.writer(foreign)
    writer.writerow(["email", "name", "attributes", "note"])
    writer.writerow(["a@example.org", name, orjson.dumps(document).decode(), note])
    report = imported(database, foreign.getvalue().encode())
    assert report.added == 1, report.examples
    file = exported(database, form)
    if form == "csv":
        (person,) = csv.DictReader(io.StringIO(file.decode(), newline=""))
        got_name = plain(person["name"])
        got = orjson.loads(plain(person["attributes"]))
    else:
        found = orjson.loads(file)
        got_name, got = found["name"], found["attributes"]
    assert got_name == name
    assert got == document | ({"note": note} if note else {})


@given(text=anything | risky)
def test_a_cell_is_safe_and_its_text_comes_back(text: str) -> None:
    cell = safe(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert plain(cell) == text


def person(local: str, **values: Any) -> dict[str, Any]:
    return {
        "local": local,
        "name": "",
        "attributes": {},
        "source": "test",
        "created_at": NOW,
        "confirmed_at": NOW,
        "topics": set(),
        "consents": [],
        "barred": None,
        **values,
    }


def test_no_cell_of_an_export_is_a_formula(database: Engine) -> None:
    store(
        database,
        [
            person("=cmd", name="=HYPERLINK(1)", source="@x"),
            person("+tag", name="-1", attributes={"x": "=1"}),
        ],
    )
    rows = list(csv.reader(io.StringIO(exported(database).decode(), newline="")))
    assert rows[0] == list(COLUMNS)
    assert [row[:2] for row in rows[1:]] == [
        ["'=cmd@example.org", "'=HYPERLINK(1)"],
        ["'+tag@example.org", "'-1"],
    ]
    assert not any(cell.startswith(tuple("=+-@\t\r\n")) for row in rows for cell in row)


def test_the_status_tells_who_may_be_mailed(database: Engine) -> None:
    store(
        database,
        [
            person("a"),
            person("b", confirmed_at=None),
            person("c", barred=("complained", NOW, "event: spamreport")),
        ],
    )
    found = [orjson.loads(line) for line in exported(database, "jsonl").splitlines()]
    assert [row["status"] for row in found] == ["subscribed", "unconfirmed", "complained"]
    assert found[2]["status_evidence"] == "event: spamreport"


def test_only_the_people_asked_for_are_exported(database: Engine, tmp_path: Path) -> None:
    store(database, [person("a"), person("b"), person("c")])
    path = tmp_path / "out.csv"
    seen: list[tuple[int, float]] = []
    with reading(database) as session:
        count = export_people(
            session,
            table_of(Subscriber).c.email != "b@example.org",
            path,
            progress=lambda n, part: seen.append((n, part)),
        )
    assert count == 2
    rows = path.read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["email", "a@example.org", "c@example.org"]
    assert seen == [(2, 1.0)]


def test_a_column_added_in_a_spreadsheet_becomes_an_attribute(database: Engine) -> None:
    store(database, [person("a", attributes={"plan": "pro"})])
    header, row = exported(database).decode().splitlines()
    imported(database, f"{header},Customer No.\n{row},'0042\n".encode())
    with reading(database) as session:
        (attributes,) = session.scalars(select(table_of(Subscriber).c.attributes))
    assert attributes == {"plan": "pro", "customer_no": "0042"}


def test_people_who_left_come_back_as_people_who_left(database: Engine) -> None:
    store(database, [person("a", barred=("unsubscribed", NOW, "page"))])
    file = exported(database)
    clear(database)
    report = imported(database, file, confirmed=True)
    assert (report.left, report.added) == ({"unsubscribed": 1}, 0)
    assert exported(database) == file


def test_an_export_never_lifts_a_suppression(database: Engine) -> None:
    store(database, [person("a")])
    file = exported(database)
    with transaction(database) as session:
        (hashed,) = session.scalars(select(table_of(Subscriber).c.address_hash))
        session.execute(
            insert(table_of(Suppression)).values(
                address_hash=hashed, reason="unsubscribed", at=NOW, evidence="page"
            )
        )
    assert imported(database, file, confirmed=True).refused == {"unsubscribed": 1}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_memory_does_not_grow_with_the_list(database: Engine, form: Form, tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        yield "email,name\n"
        for n in range(8_000):
            yield f"reader{n}@example.org,Reader {n}\n"

    imported(database, "".join(lines()).encode())
    tracemalloc.start()
    try:
        with reading(database) as session:
            assert export_people(session, true(), tmp_path / "out", form=form) == 8_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000


def test_a_file_that_cannot_be_written_is_explained(database: Engine, tmp_path: Path) -> None:
    with (
        reading(database) as session,
        pytest.raises(UserError, match="the file cannot be written"),
    ):
        export_people(session, true(), tmp_path / "no" / "out.csv")


def test_moments_keep_their_microseconds(database: Engine) -> None:
    moment = NOW + timedelta(microseconds=123)
    store(database, [person("a", created_at=moment, confirmed_at=moment)])
    before = state(database)
    file = exported(database)
    clear(database)
    imported(database, file)
    after = state(database)
    assert after["subscriber"] == before["subscriber"]
