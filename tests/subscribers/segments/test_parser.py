"""Segment expressions: the same people as a plain Python evaluation, and errors that point."""

import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, select

from newsletter.db.orm import table_of
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.segments import parser as segment_parser

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
PEOPLE = table_of(Subscriber)
PRIME = 2**31 - 1


# A plain Python evaluation: Python's own eval over objects that know the rules.


def kind(value: object) -> type:
    return float if type(value) is int else type(value)


class Compared:
    """What a person has: ``pair`` makes it comparable with a literal, or does not."""

    value: Any
    __hash__ = None  # type: ignore[assignment]

    def pair(self, other: Any) -> tuple[Any, Any] | None:
        raise NotImplementedError

    def compare(self, other: object, sign: Callable[[Any, Any], bool]) -> bool:
        pair = self.pair(other)
        return pair is not None and sign(*pair)

    def __eq__(self, other: object) -> bool:
        return self.value is None if other is None else self.compare(other, operator.eq)

    def __lt__(self, other: object) -> bool:
        return self.compare(other, operator.lt)

    def __le__(self, other: object) -> bool:
        return self.compare(other, operator.le)

    def __gt__(self, other: object) -> bool:
        return self.compare(other, operator.gt)

    def __ge__(self, other: object) -> bool:
        return self.compare(other, operator.ge)


@dataclass(eq=False)
class Value(Compared):
    """An attribute, or a text; ``fold`` for those blind to letter case."""

    value: Any
    fold: bool = False

    def pair(self, other: Any) -> tuple[Any, Any] | None:
        mine = self.value
        if isinstance(other, date):
            if isinstance(mine, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", mine[:10], re.ASCII):
                return (mine[:10], other.isoformat()) if mine[10:11] in ("", "T", " ") else None
            return None
        if kind(mine) is not kind(other) or isinstance(mine, list | dict):
            return None
        return (lower(mine), lower(other)) if self.fold else (mine, other)

    def __contains__(self, other: object) -> bool:
        values = self.value if isinstance(self.value, list) else [self.value]
        return any(Value(value) == other for value in values)

    def __bool__(self) -> bool:
        return self.value is True


@dataclass(eq=False)
class Moment(Compared):
    """A moment of a person's life, compared with days."""

    value: datetime | None

    def pair(self, other: Any) -> tuple[Any, Any] | None:
        return self.value and (self.value.astimezone(UTC).date(), other)


class Attributes:
    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getattr__(self, key: str) -> Value:
        return Value(self._values.get(key))


def lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def length(text: str) -> timedelta:
    return int(text[:-1]) * {
        "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1),
    }[text[-1]]  # fmt: skip


def drawn(person: int, percent: float, seed: str) -> bool:
    digest = sha256(seed.encode()).digest()
    numbers = [int.from_bytes(digest[i : i + 8]) for i in range(0, 32, 8)]
    factors = [numbers[0] % (PRIME - 1) + 1, *(number % PRIME for number in numbers[1:])]
    x = person % PRIME
    powers = sum(factor * x ** (3 - i) for i, factor in enumerate(factors))
    return powers % PRIME < round(percent * PRIME / 100)


def plainly(text: str, person: dict[str, Any], topics: Iterable[str]) -> bool:
    """What Python makes of the expression for this person."""
    attributes = person["attributes"]
    fields: dict[str, Any] = {
        "email": Value(person["email"].lower(), fold=True),
        "domain": Value(person["email"].rpartition("@")[2].lower(), fold=True),
        **{name: Value(person[name]) for name in ("name", "language", "timezone", "source")},
        **{
            name: Moment(person[name])
            for name in ("created_at", "confirmed_at", "last_open_at", "last_click_at")
        },
        "signed_up_at": Moment(person["created_at"]),
    }

    def since(name: str) -> Callable[[str], bool]:
        moment = person[name]
        return lambda text: moment is not None and moment >= NOW - length(text)

    def textual(test: Callable[[str, str], bool]) -> Callable[[Value, str], bool]:
        return lambda of, text: (
            isinstance(of.value, str) and test(of.value, lower(text) if of.fold else text)
        )

    inside = textual(lambda whole, text: text in whole)
    names = {
        **{key: Value(value) for key, value in attributes.items()},
        **{key: Value(None) for key in KEYS if key not in attributes},
        **fields,
        "attributes": Attributes(attributes),
        "attribute": lambda key: Value(attributes.get(key)),
        "date": date.fromisoformat,
        "days_ago": lambda days: NOW.date() - timedelta(days=days),
        "topic": lambda slug: slug in topics,
        "opened_within": since("last_open_at"),
        "clicked_within": since("last_click_at"),
        "signed_up_within": since("created_at"),
        "has": lambda name: fields.get(name, Value(attributes.get(name))) != None,  # noqa: E711
        "contains": lambda of, text: (
            inside(of, text) or (isinstance(of.value, list) and text in of)
        ),
        "startswith": textual(str.startswith),
        "endswith": textual(str.endswith),
        "sample": lambda percent, seed="": drawn(person["id"], percent, seed),
    }
    return bool(eval(text, {"__builtins__": {}}, names))


# Random people, and random expressions about them.

KEYS = ["plan", "age", "tags", "vip", "due"]
ODD_KEYS = ['kö"y', "it's", "a.b c", "$", "back\\slash", "x\n", "😀", "%(a)s", ":b", "[0]", "email"]
SLUGS = ["news", "jobs"]
WORDS = [
    "pro",
    "free",
    "",
    "é",
    "É",
    "5",
    "true",
    "null",
    '"pro"',
    "a%",
    "a_",
    "[1]",
    '["pro"]',
    "{}",
]
DAYS = ["2026-01-31", "2026-02-01", "2026-03-27"]
WHENS = [
    *DAYS,
    "2026-01-31T23:59:59Z",
    "2026-02-01 00:00",
    "2026-01-311",
    "2026-1-31",
    "2026-02-3x",
]

texts = st.sampled_from(WORDS) | st.sampled_from(WHENS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5
)  # fmt: skip
numbers = (
    st.sampled_from([0, 1, -1, 5, 5.0, 0.1, 2**53, -(2**53)])
    | st.integers(-(2**53), 2**53)
    | st.integers(-(10**6), 10**6).map(lambda n: n / 100)
)
scalars = texts | numbers | st.booleans()
values = (
    scalars
    | st.none()
    | st.lists(scalars | st.none(), max_size=3)
    | st.sampled_from([{}, {"pro": "pro"}, [["pro"]], 2**63 - 1, 1e300])
)
moments = st.sampled_from(
    [NOW, NOW - timedelta(days=7), NOW - timedelta(hours=5)]
    + [
        datetime.combine(date.fromisoformat(day), time(), UTC) + timedelta(microseconds=shift)
        for day in DAYS
        for shift in (-1, 0, 1)
    ]
)
person = st.fixed_dictionaries(
    {
        "email": st.sampled_from(["Ann@x.example", "bob@mail.x.example", "C.d+e@Y.example"]),
        "name": texts,
        "language": st.none() | st.sampled_from(["de", "de-AT", "en"]),
        "timezone": st.none() | st.just("Europe/Berlin"),
        "source": st.sampled_from(["api", "form:home", ""]),
        "attributes": st.dictionaries(st.sampled_from([*KEYS, *ODD_KEYS]), values, max_size=8),
        "created_at": moments,
        **dict.fromkeys(["confirmed_at", "last_open_at", "last_click_at"], st.none() | moments),
        "topics": st.sets(st.sampled_from(SLUGS)),
    }
)

attribute = (
    st.sampled_from(KEYS)
    | st.sampled_from(["attributes.plan", "attributes.name"])
    | st.sampled_from(ODD_KEYS).map(lambda key: f"attribute({key!r})")
)
text_field = st.sampled_from(["email", "domain", "name", "language", "timezone", "source"])
moment_field = st.sampled_from(
    ["created_at", "signed_up_at", "confirmed_at", "last_open_at", "last_click_at"]
)
day = st.sampled_from(DAYS).map(lambda day: f'date("{day}")') | st.sampled_from(
    ["days_ago(0)", "days_ago(7)"]
)
text = (texts | st.sampled_from(["X.example", "ANN@x.example", "de", ".example", "form:"])).map(
    repr
)
either = st.sampled_from
equality = either(["==", "!="])
order = either(["<", "<=", ">", ">="])


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    made = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(*made).map(" ".join)


def listed(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(of, max_size=4).map(lambda items: f"[{', '.join(items)}]")


simple = scalars.map(repr)
ordinal = (texts | numbers).map(repr) | day
membership = either(["in", "not in"])
comparison = (
    joined(attribute, equality, simple | st.just("None") | day)
    | joined(attribute, order, ordinal)
    | joined(ordinal, order, attribute)
    | joined(ordinal, order, attribute, order, ordinal)
    | joined(attribute, membership, listed(simple | st.just("None") | day))
    | joined(simple, membership, attribute)
    | joined(text_field, equality | order, text)
    | joined(text_field, equality, "None")
    | joined(text_field, membership, listed(text | st.just("None")))
    | joined(moment_field, equality | order, day)
    | joined(day, order, moment_field, order, day)
    | joined(moment_field, equality, "None")
    | joined(moment_field, membership, listed(day))
)
span = either(["'5h'", "'7d'", "'2w'", "'100w'", "'0d'"])
call = (
    joined(either(["opened_within", "clicked_within", "signed_up_within"]), "(", span, ")")
    | joined("topic (", either(["'news'", "'jobs'", "'none'"]), ")")
    | joined("has (", (either([*KEYS, *ODD_KEYS]) | text_field | moment_field).map(repr), ")")
    | joined(
        either(["contains", "startswith", "endswith"]), "(", attribute | text_field, ",", text, ")"
    )
    | joined("sample (", either(["0", "10", "50.5", "100"]), ", seed =", text, ")")
)
condition = st.recursive(
    comparison | call | attribute | either(["True", "False"]),
    lambda inner: (
        joined("not (", inner, ")")
        | joined("(", inner, ") and (", inner, ")")
        | joined("(", inner, ") or (", inner, ")")
        | joined(inner, "and not", inner, "or", inner)
    ),
    max_leaves=6,
)


def settle(connection: Connection, people: list[dict[str, Any]]) -> None:
    """Write these people and what they subscribed to."""
    connection.execute(
        insert(table_of(Topic)), [{"slug": slug, "name": slug, "description": ""} for slug in SLUGS]
    )
    ids = {row.slug: row.id for row in connection.execute(select(table_of(Topic)))}
    for number, entry in enumerate(people, 1):
        # Spread, to meet the arithmetic of samples at its edges.
        entry["id"] = number if number % 2 else number * (2**61)
        entry["address_hash"] = number.to_bytes(16)
        row = {key: value for key, value in entry.items() if key != "topics"}
        connection.execute(insert(PEOPLE), row)
        for slug in entry["topics"]:
            connection.execute(
                insert(table_of(Subscription)),
                {"subscriber_id": entry["id"], "topic_id": ids[slug], "since": NOW},
            )


def found(connection: Connection, text: str) -> list[int]:
    chosen = (
        select(PEOPLE.c.id).where(segment_parser.condition(text, now=NOW)).order_by(PEOPLE.c.id)
    )
    return list(connection.scalars(chosen))


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("EXAMPLES", "250")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    people=st.lists(person, min_size=1, max_size=3),
    rules=st.lists(condition, min_size=1, max_size=6),
)
def test_an_expression_finds_the_people_that_python_finds(
    database: Engine, people: list[dict[str, Any]], rules: list[str]
) -> None:
    with database.connect() as connection, connection.begin() as transaction:
        settle(connection, people)
        for rule in rules:
            expected = sorted(p["id"] for p in people if plainly(rule, p, p["topics"]))
            assert found(connection, rule) == expected, rule
            others = sorted(p["id"] for p in people if p["id"] not in expected)
            assert found(connection, f"not ({rule})") == others, rule
        transaction.rollback()
