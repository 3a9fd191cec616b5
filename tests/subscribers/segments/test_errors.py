"""Segment expressions that are wrong or hostile: each a clear answer that points."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, select

from newsletter.db.orm import table_of
from newsletter.errors import SegmentError
from subscribers.models import Subscriber
from subscribers.segments import parser as segment_parser

NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
PEOPLE = table_of(Subscriber)


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


ERRORS = {
    'plann == "pro"': ("1:1", "no subscriber has an attribute “plann”", "Did you mean “plan”?"),
    'plan == "pro" and\n  not contry in ["DE"]': ("2:7", "“contry”", "“country”"),
    "plan == pro": ("1:9", "“pro”", "quotes"),
    "plan == country": ("1:9", "compared with a value", "quotes"),
    "vip == true": ("1:8", "“true”", "“True”"),
    "open_within('3d')": ("1:1", "no function “open_within”", "opened_within"),
    'plan = "pro"': ("1:6", "not an expression", "=="),
    "plan ==": ("1:8", "ends too early", None),
    "plan\n and": ("2:5", "ends too early", None),
    '"é" == plan and (': ("1:17", "never closed", None),
    "plan == 'x": ("1:9", "unterminated", None),
    '"ü" in plan and name < 3': ("1:24", "a text cannot be compared with a number", None),
    "name == True": ("1:9", "a text cannot be compared with True or False", None),
    'created_at > "2026-01-01"': ("1:14", "a date cannot be compared with a text", "date("),
    'name == date("2026-01-01")': ("1:9", "a text cannot be compared with a date", None),
    "plan < None": ("1:8", "None has no order", "=="),
    "plan < True": ("1:8", "True or False has no order", "=="),
    "plan is 3": ("1:9", "“is” works with None only", "=="),
    "1 < 2": ("1:1", "must be a field", None),
    "plan == ['a']": ("1:9", "only after “in”", None),
    "plan in 'abc'": ("1:9", "“in” needs", "in ["),
    "'a' in name": ("1:8", "not a list", "contains("),
    "None in tags": ("1:1", "searched in lists", None),
    "name in ['a', 3]": ("1:15", "cannot be compared with a number", None),
    "name": ("1:1", "not a condition", "Compare"),
    "'pro'": ("1:1", "not a condition", "Compare"),
    "opened_within(5)": ("1:15", "must be a text", 'opened_within("30d")'),
    "opened_within('5m')": ("1:15", "h, d or w", None),
    "opened_within('999999w')": ("1:15", "h, d or w", None),
    "opened_within()": ("1:1", "wrong arguments", "opened_within("),
    "opened_within('3d') == True": ("1:1", "is not a value", None),
    "topic('nwes')": ("1:7", "no topic “nwes”", "Did you mean “news”? There are: jobs, news."),
    "topic(plan)": ("1:7", "must be a value", None),
    "topic(*['news'])": ("1:7", "do not support this", None),
    "has(3)": ("1:5", "must be a text", None),
    "contains(created_at, 'x')": ("1:10", "a text field", "contains("),
    "contains('x', name)": ("1:10", "a text field", "contains("),
    "sample(101)": ("1:8", "from 0 to 100", "sample("),
    "sample(True)": ("1:8", "from 0 to 100", None),
    "sample(10, sed='a')": ("1:1", "wrong arguments", "seed="),
    "sample(10, seed=3)": ("1:17", "must be a text", None),
    "sample(10, **{})": ("1:1", "wrong arguments", None),
    "created_at > date('2026-02-30')": ("1:19", "must be a date", "2026-01-31"),
    "created_at > date('20260201')": ("1:19", "must be a date", None),
    "created_at > days_ago('3')": ("1:23", "a number of days", None),
    "created_at > days_ago(10**9)": ("1:23", "do not support this", None),
    "attribute(plan) == 3": ("1:11", "must be a value", None),
    "attributes.a.b == 3": ("1:1", "do not support this", None),
    "age + 1 > 3": ("1:1", "do not support this", "Allowed"),
    "age == 9007199254740993": ("1:8", "too large", "texts"),
    "age < 1e999": ("1:7", "too large", None),
    "plan == b'pro'": ("1:9", "before its quote", None),
    "plan == f'{1}'": ("1:9", "do not support this", None),
    "plan == 'a\\0'": ("1:9", "characters", None),
    "plan == '\\ud800'": ("1:9", "characters", None),
    "lambda: 1": ("1:1", "do not support this", None),
    "().__class__.__bases__[0]": ("1:1", "do not support this", None),
    "__import__('os').system('true')": ("1:1", "do not support this", None),
    "[plan for plan in country]": ("1:1", "do not support this", None),
    "(plan := 3)": ("1:2", "do not support this", None),
    "plan if vip else age": ("1:1", "do not support this", None),
    "{'a': 1}": ("1:1", "do not support this", None),
    "plan == 'a', vip": ("1:1", "do not support this", None),
    "plan) or (vip\n or age > 3": ("1:1", "brackets", None),
    "vip\n)": ("2:2", "not an expression", None),
    "# nothing": ("1:10", "ends too early", None),
    "\n# nothing\n": ("2:10", "ends too early", None),
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_points_at_its_place(text: str) -> None:
    place, message, hint = ERRORS[text]
    with pytest.raises(SegmentError) as caught:
        segment_parser.condition(
            text, now=NOW, known=["plan", "country", "age", "tags", "vip"], topics=["news", "jobs"]
        )
    error = caught.value
    assert error.place == f"segment:{place}"
    assert message in error.message
    assert hint is None or hint in f"{error.message}\n{error.hint}"
    _, excerpt, caret = error.message.rsplit("\n", 2)
    line, column = map(int, place.split(":"))
    assert excerpt == f"  {text.splitlines()[line - 1]}"
    assert caret.index("^") == column + 1


def test_an_error_in_a_long_line_shows_its_surroundings() -> None:
    text = " or ".join(["vip"] * 300) + " or vpi"
    with pytest.raises(SegmentError) as caught:
        segment_parser.condition(text, now=NOW, known=["vip"])
    _, excerpt, caret = caught.value.message.rsplit("\n", 2)
    assert len(excerpt) < 80
    assert excerpt[caret.index("^") :] == "vpi"
    assert caret.strip() == "^^^"


HOSTILE = [
    "plan == 'a" + "a" * 4000 + "'",
    "(" * 1999 + "vip" + ")" * 1999,
    "(" * 150 + "vip" + ")" * 150,
    "not " * 999 + "vip",
    "-" * 3990 + "1",
    "a." * 1999 + "b",
    "[" * 1999,
    "vip\0",
    "\0",
    "vip == '\ud800'",
    "\ud800",
    "\ufeff vip and",
    "vip\f and",
    "0x" + "f" * 3990 + " == vip",
    "1" * 3990 + " == vip",
    "x" * 4000 + "(1)",
    "vip \\\n and",
    "\\",
    "\r",
    "\r\r\n#",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_an_error_or_a_condition(text: str) -> None:
    problem = attempted(text)
    assert problem is None or (problem.startswith("segment:") and len(problem) < 500)


def attempted(text: str) -> str | None:
    """What reading the expression says is wrong."""
    try:
        segment_parser.condition(text, now=NOW)
    except SegmentError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    [
        "vip or " * 570 + "vip",
        "vip and " * 498 + "vip",
        "plan in [" + ",".join(f"'{n:03}'" for n in range(660)) + "]",
        "not (vip and (" * 8 + 'contains(tags, "a")' + "))" * 8,
        "(" * 150 + "vip" + ")" * 150,
        "age < 1 < age or " * 200 + "vip",
        "plan == 'a'\n  # only for now\n  and (vip\r\n or age > 3)\n",
    ],
    ids=range(7),
)
def test_the_largest_expressions_are_answered(database: Engine, text: str) -> None:
    with database.connect() as connection:
        people_of(connection, {"vip": True, "age": 0.5})
        assert isinstance(found(connection, text), list)


LANGUAGE = [
    "plan",
    "age",
    "name",
    "created_at",
    "vip",
    "==",
    "!=",
    "<",
    "in",
    "not",
    "and",
    "or",
    "is",
    "(",
    ")",
    "[",
    "]",
    ",",
    "'a'",
    "3",
    "-1",
    "True",
    "None",
    "date",
    "days_ago",
    "topic",
    "has",
    "contains",
    "sample",
    "attribute",
    "attributes",
    ".",
    "seed",
    "=",
    "0.5",
    "'3d'",
    "opened_within",
    "'2026-01-01'",
    "*",
    "**",
    ":",
    ":=",
    "lambda",
    "if",
    "else",
    "for",
    "#",
    "f''",
    "b''",
    "...",
    "\n",
]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.text(max_size=30)
    | st.lists(
        st.sampled_from(LANGUAGE),
        max_size=12,
    ).map(" ".join)
)
def test_any_text_is_an_error_or_an_answer(database: Engine, text: str) -> None:
    problem = attempted(text)
    if problem:
        assert problem.startswith("segment:")
        return
    with database.connect() as connection:
        assert found(connection, text) == []
