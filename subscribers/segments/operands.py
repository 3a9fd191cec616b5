"""The operands of comparisons and functions in a segment rule: fields and literals."""

import ast
import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from newsletter.errors import SegmentError
from subscribers.segments.attributes import AttributeField
from subscribers.segments.fields import FIELDS, Field, Value
from subscribers.segments.source import Source

#: Larger integers become floating-point numbers in many JSON readers.
_MAX_NUMBER = 2**53
_MAX_DAYS = 36500
_DURATION = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
ALLOWED = (
    "Allowed are and, or, not, ==, !=, <, <=, >, >=, in, texts, numbers, lists, "
    "fields, attributes and functions; see docs/reference/segment-language.md."
)
#: Each function, with the example that errors show.
USAGE = {
    "topic": 'topic("engineering")',
    "opened_within": 'opened_within("30d")',
    "clicked_within": 'clicked_within("2w")',
    "signed_up_within": 'signed_up_within("12h")',
    "has": 'has("plan")',
    "contains": 'contains(name, "x")',
    "startswith": 'startswith(language, "de")',
    "endswith": 'endswith(domain, ".org")',
    "sample": 'sample(10, seed="ab")',
    "received": 'received("spring-2026")',
    "opened": 'opened("spring-2026")',
    "clicked": 'clicked("spring-2026", url="https://example.com/page")',
    "date": 'date("2026-01-31")',
    "days_ago": "days_ago(30)",
    "attribute": 'attribute("plan")',
}


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal value in the rule."""

    value: Value


@dataclass(frozen=True, slots=True)
class ListOperand:
    """A list of values, each with its syntax node."""

    items: Sequence[tuple[ast.expr, Value]]


Operand = Field | Literal | ListOperand


@dataclass
class Operands:
    """Reads the operands of one rule, and makes errors that point at them."""

    source: Source
    now: datetime
    known: Collection[str] | None = None
    #: Attributes that the rule uses by their bare names.
    used: set[str] = field(default_factory=set)
    #: Built-in fields that the rule uses.
    fields: set[str] = field(default_factory=set)

    def read(self, node: ast.expr) -> Operand:
        """The field, attribute, value or list at this node."""
        match node:
            case ast.Name(id=name):
                return self.built_in(name) or self._attribute(node, name)
            case ast.Attribute(value=ast.Name(id="attributes"), attr=key):
                return AttributeField(key)
            case ast.List() | ast.Tuple():
                return ListOperand([(item, self.value(item)) for item in node.elts])
            case ast.Call(func=ast.Name(id="attribute")):
                (argument,) = self.arguments(node, 1)
                return AttributeField(self.text(node, argument))
        return Literal(self.value(node))

    def built_in(self, name: str) -> Field | None:
        """The built-in field of this name, recorded as used; None if there is none."""
        found = FIELDS.get(name)
        if found is not None:
            self.fields.add(name)
        return found

    def named(self, call: ast.Call, argument: ast.expr) -> Field:
        """The field or attribute of a function's argument, bare or as a quoted name."""
        if isinstance(argument, ast.Constant):
            name = self.text(call, argument)
            return self.built_in(name) or AttributeField(name)
        found = self.read(argument)
        if not isinstance(found, Field):
            raise self.usage(call, argument, "this argument must be a field or an attribute")
        return found

    def value(self, node: ast.expr) -> Value:
        """The literal value at this node."""
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None as value):
                return self._sound(node, value)
            case ast.UnaryOp(
                op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as n)
            ) if not isinstance(n, bool):
                return self._sound(node, -n if isinstance(sign, ast.USub) else n)
            case ast.Call(func=ast.Name(id="date")):
                return self._date(node)
            case ast.Call(func=ast.Name(id="days_ago")):
                return self._days_ago(node)
            case ast.Call(func=ast.Name(id=name)) if name in USAGE:
                raise self.error(node, f"{name}(…) is not a value, so it cannot be used here")
            case ast.Call(func=ast.Name(id=name)):
                raise self.unknown(node, f"there is no function “{name}”", name, USAGE, ALLOWED)
            case ast.Constant(value=bytes()):
                raise self.error(node, "a text cannot have a letter before its quote")
            case ast.Name() | ast.Attribute(value=ast.Name(id="attributes")):
                raise self.error(node, "this must be a value, not a field", "Put texts in quotes.")
        raise self.error(node, "segments do not support this", ALLOWED)

    def arguments(self, call: ast.Call, count: int, *keywords: str) -> list[ast.expr]:
        """The call's arguments; an error for another number of them or other keywords."""
        given = [keyword.arg for keyword in call.keywords]
        if len(call.args) != count or any(name not in keywords for name in given):
            raise self.usage(call, call, "the function has wrong arguments")
        return call.args

    def text(self, call: ast.Call, argument: ast.expr) -> str:
        """The text argument of a function."""
        value = self.value(argument)
        if not isinstance(value, str):
            raise self.usage(call, argument, "this argument must be a text")
        return value

    def percent(self, call: ast.Call, argument: ast.expr) -> float:
        """The percentage argument of a function."""
        value = self.value(argument)
        if type(value) not in (int, float) or not 0 <= value <= 100:  # type: ignore[operator]
            raise self.usage(call, argument, "this argument must be a percentage from 0 to 100")
        return float(value)  # type: ignore[arg-type]

    def duration(self, call: ast.Call, argument: ast.expr) -> timedelta:
        """The duration argument of a function."""
        match = _DURATION.fullmatch(self.text(call, argument))
        length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
        if length is None or length > timedelta(days=_MAX_DAYS):
            raise self.usage(
                call, argument, "a duration is a number and h, d or w (hours, days, weeks)"
            )
        return length

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> SegmentError:
        """An error at this node."""
        return self.source.error(node, message, hint)

    def usage(self, call: ast.Call, node: ast.AST, message: str) -> SegmentError:
        """An error at this node, with an example call of the function."""
        assert isinstance(call.func, ast.Name), "only functions called by name are known"
        return self.error(node, message, f"Write for example: {USAGE[call.func.id]}")

    def unknown(
        self, node: ast.AST, message: str, name: str, names: Collection[str], hint: str | None
    ) -> SegmentError:
        """An error at this node that suggests the most similar name."""
        near = difflib.get_close_matches(name, names, n=1)
        hints = [f"Did you mean “{near[0]}”?"] if near else []
        return self.error(node, message, " ".join([*hints, *([hint] if hint else [])]) or None)

    def _attribute(self, node: ast.expr, name: str) -> AttributeField:
        if self.known is not None and name not in self.known:
            raise self.unknown(
                node,
                f"no subscriber has an attribute “{name}”",
                name,
                [*FIELDS, *self.known, "True", "False", "None"],
                f'Put texts in quotes. To use this attribute anyway: attribute("{name}").',
            )
        self.used.add(name)
        return AttributeField(name)

    def _sound(self, node: ast.expr, value: Value) -> Value:
        """The literal, checked to be storable in both databases."""
        if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            raise self.error(node, "this text has characters that subscriber data cannot have")
        if isinstance(value, int | float) and not abs(value) <= _MAX_NUMBER:
            raise self.error(
                node,
                "the number is too large",
                "Store long identifiers as texts, and compare them as texts.",
            )
        return value

    def _date(self, call: ast.Call) -> date:
        (argument,) = self.arguments(call, 1)
        text = self.text(call, argument)
        try:
            day = date.fromisoformat(text) if len(text) == 10 and text[4] == "-" else None
        except ValueError:
            day = None
        if day is None or not 1900 <= day.year < 3000:
            raise self.usage(call, argument, "this must be a date from 1900 to 2999")
        return day

    def _days_ago(self, call: ast.Call) -> date:
        (argument,) = self.arguments(call, 1)
        days = self.value(argument)
        if type(days) is not int or not 0 <= days <= _MAX_DAYS:
            raise self.usage(call, argument, f"this must be a number of days, 0 to {_MAX_DAYS}")
        return self.now.date() - timedelta(days=days)
