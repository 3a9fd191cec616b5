"""Segment expressions, rule by rule: types, missing values, days, samples, indexes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select

from newsletter.db.orm import table_of
from newsletter.errors import SegmentError
from subscribers.models import Subscriber
from subscribers.segments import parser as segment_parser
from subscribers.segments.attributes import index_ddl, index_name
from subscribers.segments.fields import FIELDS
from subscribers.segments.operands import USAGE

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
PEOPLE = table_of(Subscriber)


ODD_KEYS = ['kö"y', "it's", "a.b c", "$", "back\\slash", "x\n", "😀", "%(a)s", ":b", "[0]", "email"]


def people_of(connection: Connection, *attributes: dict[str, Any]) -> None:
    """People 1, 2, … with these attributes and nothing else."""
    for number, entry in enumerate(attributes, 1):
        connection.execute(
            insert(PEOPLE),
            {
                "id": number, "email": f"p{number}@example.org", "name": "", "source": "",
                "address_hash": number.to_bytes(16), "attributes": entry, "created_at": NOW,
            },
        )  # fmt: skip


def found(connection: Connection, text: str) -> list[int]:
    chosen = (
        select(PEOPLE.c.id).where(segment_parser.condition(text, now=NOW)).order_by(PEOPLE.c.id)
    )
    return list(connection.scalars(chosen))


def test_an_empty_expression_is_everybody(database: Engine) -> None:
    with database.connect() as connection:
        people_of(connection, {}, {"plan": "pro"})
        assert found(connection, "") == found(connection, " \n\t") == [1, 2]


def test_someone_without_the_attribute_is_different_from_every_value(database: Engine) -> None:
    with database.connect() as connection:
        people_of(connection, {"plan": "pro"}, {"plan": None}, {}, {"plan": ["pro"]}, {"plan": 5})
        assert found(connection, 'plan == "pro"') == [1]
        assert found(connection, 'plan != "pro"') == [2, 3, 4, 5]
        assert found(connection, 'not plan == "pro"') == [2, 3, 4, 5]
        assert found(connection, 'plan not in ["pro", 5]') == [2, 3, 4]
        assert found(connection, "plan is None") == found(connection, "not has(plan)") == [2, 3]
        assert found(connection, 'plan is not None and has("plan")') == [1, 4, 5]
        assert found(connection, "plan > 4") == [5]


def test_types_are_kept_apart(database: Engine) -> None:
    stored = [1, True, "1", 1.0, [1], "[1]", {"a": 1}, '{"a":1}', "true", '["x","y"]', ["x", "y"]]
    with database.connect() as connection:
        people_of(connection, *({"v": value} for value in stored))
        assert found(connection, "v == 1") == [1, 4]
        assert found(connection, "v == True") == found(connection, "v") == [2]
        assert found(connection, 'v == "1"') == [3]
        assert found(connection, 'v == "[1]"') == [6]
        assert found(connection, """v == '{"a":1}'""") == [8]
        assert found(connection, 'v == "true"') == [9]
        assert found(connection, """v in ['["x","y"]', "1", True]""") == [2, 3, 10]
        assert found(connection, "1 in v") == [1, 4, 5]
        assert found(connection, '"y" in v') == [11]
        assert found(connection, 'contains(v, "x")') == [10, 11]


def test_hostile_keys_and_texts_are_only_data(database: Engine) -> None:
    keys = [*ODD_KEYS, "'; DROP TABLE subscriber; --", '"]', "$.plan", "ä", "日本", "{}", "%s", "?"]
    with database.connect() as connection:
        people_of(connection, *({key: f"it's {key}"} for key in keys))
        for number, key in enumerate(keys, 1):
            value = f"it's {key}"
            assert found(connection, f"attribute({key!r}) == {value!r}") == [number]
            assert found(connection, f"{value!r} in attribute({key!r})") == [number]


def test_whole_days_in_utc_are_compared_with_moments(database: Engine) -> None:
    with database.connect() as connection:
        people_of(connection, {}, {})
        noon = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
        connection.execute(PEOPLE.update().where(PEOPLE.c.id == 1).values(created_at=noon))
        assert found(connection, 'created_at == date("2026-01-31")') == [1]
        assert found(connection, 'created_at <= date("2026-01-31")') == [1]
        assert found(connection, 'created_at > date("2026-01-31")') == [2]
        assert found(connection, 'date("2026-01-01") <= signed_up_at < date("2026-02-01")') == [1]
        assert found(connection, "created_at >= days_ago(1)") == [2]


@pytest.mark.slow
def test_samples_are_even_stable_nested_and_independent(database: Engine) -> None:
    people = 20_000
    with database.connect() as connection:
        connection.execute(
            insert(PEOPLE),
            [
                {
                    "id": number, "email": f"p{number}@example.org", "name": "", "source": "",
                    "address_hash": number.to_bytes(16), "attributes": {}, "created_at": NOW,
                }
                for number in range(1, people + 1)
            ],
        )  # fmt: skip
        tenths = [set(found(connection, f'sample(10, seed="{seed}")')) for seed in "abcdefgh"]
        again = set(found(connection, 'sample(10, seed="a")'))
        fifth = set(found(connection, 'sample(20, seed="a")'))
        rare = found(connection, 'sample(0.5, seed="a")')
    assert again == tenths[0] < fifth
    # Within five standard deviations of a fair draw.
    assert all(abs(len(tenth) - 2000) < 5 * 42.5 for tenth in tenths)
    assert abs(len(rare) - 100) < 50
    for first in range(len(tenths)):
        for second in range(first):
            assert abs(len(tenths[first] & tenths[second]) - 200) < 5 * 14.1
    # Neither neighbours nor every n-th person hang together.
    for step in (1, 2, 3, 10, 64, 1000):
        pairs = sum(person + step in tenths[0] for person in tenths[0])
        assert abs(pairs - (people - step) / 100) < 5 * 14.1
    blocks = [sum(person // 1000 == block for person in tenths[0]) for block in range(20)]
    assert all(abs(block - 100) < 50 for block in blocks)


def test_an_index_answers_comparisons(database: Engine) -> None:
    cases = {
        "country": ['country == "DE"', 'country in ["DE", "AT"] and plan == "pro"', "country == 5"],
        "shoe size": ['attribute("shoe size") > 40'],
        "domain": ['domain == "example.org"'],
        "created_at": ['signed_up_within("3d")'],
    }
    for name, rules in cases.items():
        with database.connect() as connection:
            if database.dialect.name == "postgresql":
                connection.exec_driver_sql("SET enable_seqscan = off")
            for _ in range(2):  # making it again is no error
                connection.exec_driver_sql(index_ddl(name, database.dialect))
            for rule in rules:
                assert index_name(name) in plan(connection, rule)


def plan(connection: Connection, rule: str) -> str:
    """How the database finds the people."""
    query = select(PEOPLE.c.id).where(segment_parser.condition(rule, now=NOW))
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"

    def prefix(
        _c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _many: Any
    ) -> tuple[str, Any]:
        return f"{explain} {statement}", parameters

    event.listen(connection, "before_cursor_execute", prefix, retval=True)
    result = connection.execute(query)
    event.remove(connection, "before_cursor_execute", prefix)
    assert result.cursor is not None
    return str(result.cursor.fetchall())


def test_names_are_those_that_data_must_know() -> None:
    text = 'plan == "a" and topic("news") and has("x") and attributes.y and attribute("z") == name'
    with pytest.raises(SegmentError):
        segment_parser.names(text)
    names = segment_parser.names(text.removesuffix(" == name"))
    assert names == segment_parser.Names(frozenset({"plan"}), frozenset({"news"}))


def test_the_operators_page_names_everything_and_its_examples_are_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "segment-language.md").read_text()
    for name in [*FIELDS, *USAGE]:
        assert f"`{name}`" in page or f"`{name}(" in page, name
    blocks = page.split("```")[1::2]
    examples = blocks[1].strip().splitlines()
    assert len(examples) > 5
    for text in [*examples, *USAGE.values()]:
        if text not in (USAGE["date"], USAGE["days_ago"]):
            segment_parser.names(text)
    with pytest.raises(SegmentError) as caught:
        segment_parser.condition(
            'plan == "pro" and contry == "DE"', now=NOW, known=["plan", "country"]
        )
    assert str(caught.value) == blocks[2].strip()
