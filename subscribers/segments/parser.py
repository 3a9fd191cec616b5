"""The parser of segment rules: expressions over subscribers, compiled to SQL conditions.

The language is a subset of Python's expressions. Python's own parser reads it, and then only
syntax listed here is translated: nothing is ever evaluated, and anything else is an error that
points at its place. docs/reference/segment-language.md describes the language for operators.
"""

import ast
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import ColumnElement, and_, false, or_, true

from newsletter.errors import SegmentError
from subscribers.segments.attributes import AttributeField
from subscribers.segments.fields import Field, MomentField, negation, sampled, subscribed
from subscribers.segments.operands import ALLOWED, USAGE, ListOperand, Literal, Operand, Operands
from subscribers.segments.past_issues import PastIssue, PastIssues
from subscribers.segments.source import Source

_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "==",
    ast.IsNot: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE = {"!=": "==", "not in": "in"}
_KINDS = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "True or False",
    date: "a date",
    type(None): "None",
}


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a rule uses: attributes by their bare names, and topics."""

    attributes: frozenset[str]
    topics: frozenset[str]
    #: Built-in fields, also those that a function uses: ``clicked_within`` uses
    #: ``last_click_at``.
    fields: frozenset[str] = frozenset()
    #: Slugs of issues, and links: (slug, address).
    issues: frozenset[str] = frozenset()
    links: frozenset[tuple[str, str]] = frozenset()


def condition(
    text: str,
    *,
    now: datetime,
    known: Collection[str] | None = None,
    topics: Collection[str] | None = None,
    issues: PastIssues | None = None,
) -> ColumnElement[bool]:
    """The condition of being in a segment, for a WHERE over ``subscriber``.

    It is TRUE for the subscribers of the segment and FALSE or NULL for others; an empty text
    selects everybody. With ``known`` (names of attributes) and ``topics`` (slugs), any other name
    is an error; without them, every name is accepted. ``issues`` are the past issues that the rule
    names (``segments.past_issues``); any other one is an error, so a rule that names issues cannot
    be read without them. Raises SegmentError, which points at the place in the text.
    """
    found, used = _read(text, now, known, topics, issues)
    if used.issues and issues is None:
        raise TypeError("this rule names issues, so they must be read first: segments.past_issues")
    return found


def names(text: str) -> Names:
    """The names that the rule uses."""
    return _read(text, datetime.now(UTC), None, None, None)[1]


def covered_topics(text: str) -> frozenset[str] | None:
    """The topics (slugs) of a rule that selects exactly the subscribers of these topics.

    Empty for a rule that selects everybody, None for any other rule.
    """
    if not text.strip():
        return frozenset()
    try:
        return _covered(Source(text).tree)
    except SegmentError:
        return None


def _covered(node: ast.expr) -> frozenset[str] | None:
    match node:
        case ast.Constant(value=True):
            return frozenset()
        case ast.Call(func=ast.Name(id="topic"), args=[ast.Constant(value=str(slug))], keywords=[]):
            return frozenset({slug})
        case ast.BoolOp(op=ast.Or()):
            parts = [_covered(one) for one in node.values]
            if frozenset() in parts:
                return frozenset()
            known = [part for part in parts if part is not None]
            return frozenset().union(*known) if len(known) == len(parts) else None
    return None


def _read(
    text: str,
    now: datetime,
    known: Collection[str] | None,
    topics: Collection[str] | None,
    issues: PastIssues | None,
) -> tuple[ColumnElement[bool], Names]:
    if not text.strip():
        return true(), Names(frozenset(), frozenset())
    source = Source(text)
    reader = _Reader(Operands(source, now.astimezone(UTC), known), topics, issues)
    found = reader.truth(source.tree, wanted=True)
    return found, Names(
        frozenset(reader.operands.used),
        frozenset(reader.topics_used),
        frozenset(reader.operands.fields),
        frozenset(reader.issues_used),
        frozenset(reader.links_used),
    )


class _Reader:
    """Translates the syntax tree, from the conditions down to their operands."""

    def __init__(
        self, operands: Operands, topics: Collection[str] | None, issues: PastIssues | None
    ) -> None:
        self.operands = operands
        self.topics = topics
        self.issues = issues
        self.topics_used: set[str] = set()
        self.issues_used: set[str] = set()
        self.links_used: set[tuple[str, str]] = set()

    def truth(self, node: ast.expr, *, wanted: bool) -> ColumnElement[bool]:
        """The condition that ``node`` is true or, without ``wanted``, that it is not.

        Negation is pushed down to the single comparisons, where ``negation`` handles it. SQL's NOT
        would lose the subscribers for whom a comparison is NULL.
        """
        match node:
            case ast.BoolOp():
                join = and_ if isinstance(node.op, ast.And) == wanted else or_
                return join(*(self.truth(value, wanted=wanted) for value in node.values))
            case ast.UnaryOp(op=ast.Not()):
                return self.truth(node.operand, wanted=not wanted)
            case ast.Compare():
                join = and_ if wanted else or_
                operands = [node.left, *node.comparators]
                steps = zip(operands, node.ops, operands[1:], strict=False)
                return join(*(self._step(*step, wanted=wanted) for step in steps))
        plain = self._plain_truth(node)
        return plain if wanted else negation(plain)

    def _plain_truth(self, node: ast.expr) -> ColumnElement[bool]:
        match node:
            case ast.Constant(value=bool()):
                return true() if node.value else ~true()
            case ast.Call(func=ast.Name(id=name)) if name in _CONDITIONS:
                return _CONDITIONS[name](self, node)
        operand = self.operands.read(node)
        if isinstance(operand, AttributeField):
            return operand.equals(value=True)
        raise self.operands.error(
            node, "this is not a condition", 'Compare it, as in: plan == "pro"'
        )

    # Comparisons.

    def _step(
        self, left: ast.expr, op: ast.cmpop, right: ast.expr, *, wanted: bool
    ) -> ColumnElement[bool]:
        first, second = self.operands.read(left), self.operands.read(right)
        if isinstance(op, ast.Is | ast.IsNot) and second != Literal(None):
            raise self.operands.error(right, "“is” works with None only", "Compare with ==.")
        sign = _SIGNS[type(op)]
        if sign in _OPPOSITE:
            sign, wanted = _OPPOSITE[sign], not wanted
        if sign == "in":
            found = self._membership(left, first, right, second)
        elif isinstance(first, Literal) and isinstance(second, Field):
            found = self._comparison(right, second, _FLIPPED.get(sign, sign), left, first)
        else:
            found = self._comparison(left, first, sign, right, second)
        return found if wanted else negation(found)

    def _comparison(
        self, left: ast.expr, first: Operand, sign: str, right: ast.expr, second: Operand
    ) -> ColumnElement[bool]:
        if isinstance(first, ListOperand) or isinstance(second, ListOperand):
            place = left if isinstance(first, ListOperand) else right
            raise self.operands.error(place, "a list is allowed only after “in”", ALLOWED)
        if not isinstance(first, Field):
            raise self.operands.error(left, "one side of a comparison must be a field", ALLOWED)
        if not isinstance(second, Literal):
            raise self.operands.error(
                right, "a field can only be compared with a value", "Put texts in quotes."
            )
        self._check(first, sign, right, second)
        if sign == "==":
            return first.equals(second.value)
        return first.ordered(sign, second.value)

    def _membership(
        self, left: ast.expr, first: Operand, right: ast.expr, second: Operand
    ) -> ColumnElement[bool]:
        if isinstance(first, Field) and isinstance(second, ListOperand):
            for node, value in second.items:
                self._check(first, "==", node, Literal(value))
            return first.among([value for _, value in second.items])
        if isinstance(first, Literal) and isinstance(second, AttributeField):
            if first.value is None or isinstance(first.value, date):
                raise self.operands.error(
                    left, "only texts, numbers, True and False can be searched in lists"
                )
            return second.holds(first.value)
        if isinstance(first, Literal) and isinstance(second, Field):
            raise self.operands.error(
                right, f"this is {second.kind}, not a list", f"For parts: {USAGE['contains']}"
            )
        raise self.operands.error(
            right,
            "“in” needs a field and a list, or a value and an attribute",
            'Write: country in ["DE", "AT"], or: "vip" in tags',
        )

    def _check(self, of: Field, sign: str, node: ast.expr, literal: Literal) -> None:
        kind = type(literal.value)
        if kind in (of.accepts if sign == "==" else of.sorts):
            return
        if kind in of.accepts:
            message = f"{_KINDS[kind]} has no order, so “{sign}” is not possible"
            raise self.operands.error(node, message, "Use == or !=.")
        dates = f"Write for example: {USAGE['date']} or {USAGE['days_ago']}"
        raise self.operands.error(
            node,
            f"{of.kind} cannot be compared with {_KINDS[kind]}",
            dates if date in of.accepts else None,
        )

    # Functions that are conditions.

    def topic(self, call: ast.Call) -> ColumnElement[bool]:
        (argument,) = self.operands.arguments(call, 1)
        slug = self.operands.text(call, argument)
        if self.topics is not None and slug not in self.topics:
            raise self._unknown_topic(argument, slug, self.topics)
        self.topics_used.add(slug)
        return subscribed(slug)

    def within(self, call: ast.Call, name: str) -> ColumnElement[bool]:
        (argument,) = self.operands.arguments(call, 1)
        moment = self.operands.built_in(name)
        assert isinstance(moment, MomentField)
        return moment.since(self.operands.now - self.operands.duration(call, argument))

    def has(self, call: ast.Call) -> ColumnElement[bool]:
        (argument,) = self.operands.arguments(call, 1)
        return negation(self.operands.named(call, argument).equals(None))

    def part(self, call: ast.Call, where: str) -> ColumnElement[bool]:
        first, second = self.operands.arguments(call, 2)
        field = self.operands.read(first)
        if not isinstance(field, Field) or isinstance(field, MomentField):
            raise self.operands.usage(call, first, "this must be a text field or an attribute")
        return field.part(where, self.operands.text(call, second))

    def sample(self, call: ast.Call) -> ColumnElement[bool]:
        (argument,) = self.operands.arguments(call, 1, "seed")
        seeds = [self.operands.text(call, keyword.value) for keyword in call.keywords]
        return sampled(self.operands.percent(call, argument), seeds[0] if seeds else "")

    def received(self, call: ast.Call) -> ColumnElement[bool]:
        issue = self._issue(call, *self.operands.arguments(call, 1))
        return issue.received() if issue else false()

    def opened(self, call: ast.Call) -> ColumnElement[bool]:
        issue = self._issue(call, *self.operands.arguments(call, 1))
        return issue.did("opened") if issue else false()

    def clicked(self, call: ast.Call) -> ColumnElement[bool]:
        (argument,) = self.operands.arguments(call, 1, "url")
        urls = [keyword.value for keyword in call.keywords]
        issue = self._issue(call, argument)
        if not urls:
            return issue.did("clicked") if issue else false()
        url = self.operands.text(call, urls[0])
        self.links_used.add((self.operands.text(call, argument), url))
        if issue is None:
            return false()
        if url not in issue.links:
            raise self.operands.unknown(
                urls[0],
                "the issue does not have this link",
                url,
                issue.clicked_links,
                "Write the whole address as in the issue.",
            )
        return issue.did("clicked", url)

    def _issue(self, call: ast.Call, argument: ast.expr) -> PastIssue | None:
        """The issue that an argument names; None while only the names of a rule are read."""
        assert isinstance(call.func, ast.Name), "only functions called by name are known"
        slug = self.operands.text(call, argument)
        self.issues_used.add(slug)
        if self.issues is None:
            return None
        issue = self.issues.by_slug.get(slug)
        if issue is None:
            raise self.operands.unknown(
                argument,
                f"there is no issue “{slug}”",
                slug,
                self.issues.suggestions,
                "Write the slug of an issue.",
            )
        if (refusal := issue.refusals.get(call.func.id)) is not None:
            raise self.operands.error(argument, refusal.message, refusal.hint)
        return issue

    def _unknown_topic(self, node: ast.expr, slug: str, topics: Collection[str]) -> SegmentError:
        hint = f"There are: {', '.join(sorted(topics)[:20])}." if topics else None
        return self.operands.unknown(node, f"there is no topic “{slug}”", slug, topics, hint)


_CONDITIONS: dict[str, Callable[[_Reader, ast.Call], ColumnElement[bool]]] = {
    "topic": _Reader.topic,
    "opened_within": lambda reader, call: reader.within(call, "last_open_at"),
    "clicked_within": lambda reader, call: reader.within(call, "last_click_at"),
    "signed_up_within": lambda reader, call: reader.within(call, "created_at"),
    "has": _Reader.has,
    "contains": lambda reader, call: reader.part(call, "contains"),
    "startswith": lambda reader, call: reader.part(call, "startswith"),
    "endswith": lambda reader, call: reader.part(call, "endswith"),
    "sample": _Reader.sample,
    "received": _Reader.received,
    "opened": _Reader.opened,
    "clicked": _Reader.clicked,
}
