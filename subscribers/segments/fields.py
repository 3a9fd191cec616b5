"""The built-in fields of a segment rule as SQL with the same meaning on both databases.

Each condition here is TRUE for the subscribers it describes, and FALSE or NULL for all others;
negate it with ``negation`` only. It never raises while the query runs, whatever JSON the
attributes hold: a value is compared only together with its JSON type, and nothing is cast.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Exists,
    and_,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import Boolean, Text, TypeEngine

from newsletter.db.orm import table_of
from subscribers.models import Subscriber, Subscription, Topic

Value = str | int | float | bool | date | None

person = table_of(Subscriber).c
_subscription = table_of(Subscription).c
_topic = table_of(Topic).c

ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DAY = timedelta(days=1)


class Either(FunctionElement[Any]):
    """An expression in two spellings: SQLite's, then PostgreSQL's."""

    name = "either"
    inherit_cache = True

    def __init__(
        self, sqlite: ColumnElement[Any], postgresql: ColumnElement[Any], kind: TypeEngine[Any]
    ) -> None:
        super().__init__(sqlite, postgresql)
        self.type = kind

    def self_group(self, against: OperatorType | None = None) -> Self:  # noqa: ARG002
        # It has its own parentheses. SQLAlchemy would write “(…) = 1” for a boolean function on
        # SQLite, which no index supports.
        return self


@compiles(Either)
def _compile_either(element: Either, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (the compiler's own)
    sqlite, postgresql = element.clauses
    chosen = sqlite if compiler.dialect.name == "sqlite" else postgresql
    return f"({compiler.process(chosen, **options)})"


def either(sqlite: ColumnElement[bool], postgresql: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition with a spelling for each database."""
    return Either(sqlite, postgresql, Boolean())


def negation(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """TRUE for exactly the subscribers for whom ``condition`` is not TRUE, NULL included."""
    if isinstance(condition, Exists):
        return ~condition  # never NULL; both planners know NOT EXISTS as an anti-join
    return condition.is_not(true())


class Field(ABC):
    """A field of a subscriber that rules compare with literals.

    ``kind`` names its type in errors; ``accepts`` are the literal types that it can be compared
    with, ``sorts`` the ones that also have an order.
    """

    kind: str
    accepts: tuple[type, ...]
    sorts: tuple[type, ...]

    @abstractmethod
    def equals(self, value: Value) -> ColumnElement[bool]:
        """Is equal to this value."""

    @abstractmethod
    def ordered(self, sign: str, value: Value) -> ColumnElement[bool]:
        """Compares in order; ``sign`` is one of ``< <= > >=``."""

    def part(self, where: str, text: str) -> ColumnElement[bool]:
        """Contains this text, or starts or ends with it; only for texts."""
        raise TypeError(f"{self.kind} has no {where} {text}")

    @abstractmethod
    def indexed(self) -> ColumnElement[Any]:
        """The expression that an index needs to support ``equals``."""

    def among(self, values: Sequence[Value]) -> ColumnElement[bool]:
        return or_(false(), *(self.equals(value) for value in values))


@dataclass(frozen=True)
class TextField(Field):
    """A text column; with ``fold``, comparisons ignore the case of ASCII letters."""

    column: ColumnElement[Any]
    fold: bool = False
    kind = "a text"
    accepts = (str, type(None))
    sorts = (str,)

    def equals(self, value: Value) -> ColumnElement[bool]:
        if value is None:
            return self.column.is_(None)
        return self.column == self._folded(value)

    def ordered(self, sign: str, value: Value) -> ColumnElement[bool]:
        return text_order(self.column, self.column, sign, self._folded(value))

    def part(self, where: str, text: str) -> ColumnElement[bool]:
        return text_part(self.column, self.column, where, self._folded(text))

    def among(self, values: Sequence[Value]) -> ColumnElement[bool]:
        texts = [self._folded(value) for value in values if value is not None]
        found = self.column.in_(texts) if texts else false()
        return or_(found, self.equals(None)) if None in values else found

    def indexed(self) -> ColumnElement[Any]:
        return self.column

    def _folded(self, value: Value) -> str:
        assert isinstance(value, str)
        # Like SQLite's lower(): ASCII only. Addresses contain nothing else.
        return value.translate(_ASCII_LOWER) if self.fold else value


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True)
class MomentField(Field):
    """A time column, compared with whole days in UTC: ``==`` means on that day."""

    column: ColumnElement[Any]
    kind = "a date"
    accepts = (date, type(None))
    sorts = (date,)

    def equals(self, value: Value) -> ColumnElement[bool]:
        if value is None:
            return self.column.is_(None)
        start = _midnight(value)
        return and_(self.column >= start, self.column < start + _DAY)

    def ordered(self, sign: str, value: Value) -> ColumnElement[bool]:
        start = _midnight(value)
        # "After the day" and "until the day" compare with its end, the other two with its start.
        edge, sign = {
            "<": (start, "<"),
            ">=": (start, ">="),
            "<=": (start + _DAY, "<"),
            ">": (start + _DAY, ">="),
        }[sign]
        return compared(sign, self.column, edge)

    def since(self, moment: datetime) -> ColumnElement[bool]:
        return self.column >= moment

    def indexed(self) -> ColumnElement[Any]:
        return self.column


def compared(
    sign: str, left: ColumnElement[Any], right: Value | datetime | ColumnElement[Any]
) -> ColumnElement[bool]:
    result: ColumnElement[bool] = left == right if sign == "==" else ORDER[sign](left, right)
    return result


def _midnight(value: Value) -> datetime:
    assert isinstance(value, date)
    return datetime.combine(value, time(), UTC)


def text_order(
    sqlite: ColumnElement[Any], postgresql: ColumnElement[Any], sign: str, text: str
) -> ColumnElement[bool]:
    # "C" sorts by code points, like SQLite and Python.
    return either(compared(sign, sqlite, text), compared(sign, postgresql.collate("C"), text))


def text_part(
    sqlite: ColumnElement[Any], postgresql: ColumnElement[Any], where: str, text: str
) -> ColumnElement[bool]:
    # LIKE would need escaping, and ignores case on SQLite.
    if where == "contains":
        return either(func.instr(sqlite, text) > 0, func.strpos(postgresql, text) > 0)
    if where == "startswith":
        return either(
            func.substr(sqlite, 1, len(text)) == text, func.substr(postgresql, 1, len(text)) == text
        )
    return either(_ending(sqlite, text) == text, _ending(postgresql, text) == text)


def _ending(column: ColumnElement[Any], text: str) -> ColumnElement[str]:
    return func.substr(column, func.length(column) - (len(text) - 1))


def subscribed(slug: str) -> ColumnElement[bool]:
    """The subscriber chose the topic with this slug."""
    topic = select(_topic.id).where(_topic.slug == slug).scalar_subquery()
    return exists(
        select(1)
        .where(_subscription.subscriber_id == person.id, _subscription.topic_id == topic)
        .correlate(table_of(Subscriber))
    )


#: A Mersenne prime: the product of two residues plus a third stays below 2**63. Beyond that,
#: SQLite would continue in floating point, and PostgreSQL would raise an error.
_PRIME = 2**31 - 1


def sampled(percent: float, seed: str) -> ColumnElement[bool]:
    """A share of all subscribers: the same ones each time, independent for each seed.

    It uses a cubic polynomial of the id modulo a prime, with coefficients from the seed: any four
    subscribers are selected independently of each other. A larger share with the same seed
    contains the smaller one.
    """
    cubic, *others = sample_coefficients(seed)
    value: ColumnElement[int] = literal(cubic)
    for factor in others:
        value = (value * (person.id % _PRIME) + factor) % _PRIME
    return value < round(percent * _PRIME / 100)


def sample_coefficients(seed: str) -> tuple[int, ...]:
    """The coefficients of a seed's polynomial, highest power first."""
    digest = sha256(seed.encode()).digest()
    cubic, *others = (int.from_bytes(digest[i : i + 8]) for i in range(0, 32, 8))
    return (cubic % (_PRIME - 1) + 1, *(other % _PRIME for other in others))


def _domain() -> ColumnElement[str]:
    at = Either(
        func.instr(person.email, literal_column("'@'")),
        func.strpos(person.email, literal_column("'@'")),
        person.id.type,
    )
    return func.lower(func.substr(person.email, at + literal_column("1")), type_=Text())


#: The built-in fields, by their names in rules.
FIELDS: dict[str, TextField | MomentField] = {
    "email": TextField(func.lower(person.email, type_=Text()), fold=True),
    "domain": TextField(_domain(), fold=True),
    "name": TextField(person.name),
    "language": TextField(person.language),
    "timezone": TextField(person.timezone),
    "source": TextField(person.source),
    "created_at": MomentField(person.created_at),
    "signed_up_at": MomentField(person.created_at),
    "confirmed_at": MomentField(person.confirmed_at),
    "last_open_at": MomentField(person.last_open_at),
    "last_click_at": MomentField(person.last_click_at),
}
