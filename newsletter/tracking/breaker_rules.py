"""The rules of the circuit breaker: what a rule says, and how the file of rules is read.

A rule judges counts and knows no database. The circuit breaker and its backtest give it the counts
of a send, each under the name of its counter; for a mail domain, the key is ``counter@domain``.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from newsletter import durations
from newsletter.errors import AddressError, SettingsError
from newsletter.provider.events import EventKind
from newsletter.settings.kinds import Line
from newsletter.tracking.stats.counters import RECIPIENTS, UNSUBSCRIBED_BY
from newsletter.tracking.stats.rates import FINAL_EVENTS
from subscribers import email_address

#: The kinds that a rule can count, and how its reason continues after "5 % of 4,000 emails". The
#: other kinds are good news, or (deferrals) come many times for one email and make no share.
_PHRASES: Final[Mapping[EventKind, str]] = {
    EventKind.BOUNCE: "bounced",
    EventKind.BLOCKED: "were blocked",
    EventKind.DROPPED: "were dropped",
    EventKind.SPAM_REPORT: "were marked as spam",
    EventKind.UNSUBSCRIBE: "led to an unsubscribe",
    EventKind.GROUP_UNSUBSCRIBE: "led to an unsubscribe at the provider",
}
#: The counter of the recipients whom the provider accepted.
ACCEPTED: Final = "accepted"
#: Not a counter: above 0, the counts of the send or the mail domain begin at the last resume.
AGAIN: Final = "again"
#: The provider posts events within minutes. Later than that, emails are not waited for any more
#: (newsletter.tracking.event_silence).
_SHORTEST_SILENCE, _LONGEST_SILENCE = timedelta(minutes=10), timedelta(days=2)


def at_domain(what: str, domain: str) -> str:
    """The key of a counter of a mail domain; of the whole send where ``domain`` is empty."""
    return f"{what}@{domain}" if domain else what


def _kind(name: object) -> EventKind:
    if name not in list(_PHRASES):
        raise ValueError(f"{name!r} is no kind of event that a rule can count")
    return EventKind(str(name))


def _share(number: object) -> Decimal:
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError("a share is a number")  # noqa: TRY004 (pydantic takes no TypeError)
    return Decimal(number)


def _domain(name: object) -> str:
    wrong = ValueError(f"{name!r} is no mail domain")
    if not isinstance(name, str) or "@" in name:
        raise wrong
    try:
        return email_address.parse(f"a@{name}").domain
    except AddressError:
        raise wrong from None


def _silence(text: object) -> timedelta:
    length = durations.parse(text)
    if not _SHORTEST_SILENCE <= length <= _LONGEST_SILENCE:
        shortest, longest = map(durations.written, (_SHORTEST_SILENCE, _LONGEST_SILENCE))
        raise ValueError(f"a silence is not shorter than {shortest} and not longer than {longest}")
    return length


class _Rule(BaseModel, extra="forbid", frozen=True, strict=True):
    """A field's description is the hint when its value is wrong."""

    name: Line = Field(min_length=1, max_length=100, description="A few words in quotes.")
    #: At most 500, so that the whole reason fits into the 1000 characters of Send.reason.
    say: Line = Field(min_length=1, max_length=500, description="One line, without a full stop.")
    action: Literal["pause", "tell"] = Field(
        default="pause",
        description='"pause": the send is paused. "tell": the operators get one message.',
    )


class SilenceRule(_Rule):
    """What the breaker does to a send while the event webhook is silent."""

    silence: Annotated[timedelta, BeforeValidator(_silence)] = Field(
        description='A length of time, such as "2h": emails left so long ago, and no event came.'
    )

    @property
    def limit(self) -> str:
        """The limit, for a table of rules."""
        return f"no event for {durations.written(self.silence)}"


class CountRule(_Rule):
    """What the breaker does to a send with too many events of some kinds."""

    counts: list[Annotated[EventKind, BeforeValidator(_kind)]] = Field(
        min_length=1, description=f"A list of some of: {', '.join(_PHRASES)}."
    )
    of: Literal["accepted", "sent"] = Field(
        description='"accepted": recipients whom the provider accepted. "sent", with by = "domain":'
        " emails with a final event (delivered, bounce, blocked, dropped)."
    )
    #: A share of ``of``. Decimal, because 29 of 100 is above the binary fraction 0.29.
    above: Annotated[Decimal, BeforeValidator(_share)] = Field(
        gt=0, le=1, description="A share, more than 0 and not more than 1: 0.05 is 5 %."
    )
    at_least: int = Field(ge=1, description="A whole number of recipients, 1 or more.")
    after: int = Field(ge=1, description="A whole number of recipients, 1 or more.")
    by: Literal["domain"] | None = Field(
        default=None, description='"domain": each mail domain of a send is judged on its own.'
    )
    domains: list[Annotated[str, BeforeValidator(_domain)]] | None = Field(
        default=None,
        min_length=1,
        description='With by = "domain", a list of mail domains, such as ["gmail.com"].',
    )

    @property
    def limit(self) -> str:
        """The limit, for a table of rules."""
        return f"{100 * self.above:.2f} %"

    @property
    def counters(self) -> frozenset[str]:
        """The counters of recipients that the rule adds up."""
        return counters_of(frozenset(self.counts))

    def affected(self, counts: Counter[str], domain: str = "") -> int:
        """The recipients whom an event happened to that the rule counts."""
        return sum(counts[at_domain(what, domain)] for what in self.counters)

    def whole(self, counts: Counter[str], domain: str = "") -> int:
        """The recipients of whom the rule takes the share."""
        if self.by is None:
            return counts[self.of]
        return sum(counts[at_domain(kind, domain)] for kind in FINAL_EVENTS)

    def concerns(self, domain: str) -> bool:
        """Whether the rule judges this mail domain; an empty one stands for the whole send."""
        if self.by is None:
            return not domain
        return bool(domain) and (self.domains is None or domain in self.domains)

    def matches(self, counts: Counter[str], domain: str = "") -> bool:
        """Whether these counts are above the limit of the rule.

        A send without any delivered email is not judged by domain: either the provider is not set
        to report deliveries, and each share would be 100 %, or rules for the whole send match.
        """
        if not self.concerns(domain) or (domain and not counts[EventKind.DELIVERED]):
            return False
        whole, affected = self.whole(counts, domain), self.affected(counts, domain)
        enough = whole >= self.after and affected >= self.at_least
        return enough and affected > self.above * whole

    def matching(self, counts: Counter[str], domains: Collection[str]) -> list[str]:
        """Those of these mail domains (or of ``[""]``, the send) that match, the worst first."""
        found = [domain for domain in domains if self.matches(counts, domain)]
        return sorted(found, key=lambda domain: (-self.affected(counts, domain), domain))

    def reason(self, since: Counter[str], domains: Collection[str] = ("",)) -> str | None:
        """Why the rule matches these counts, as the operator reads it; None when it does not."""
        matching = self.matching(since, domains)
        if not matching:
            return None
        domain, *others = matching
        whole, affected = self.whole(since, domain), self.affected(since, domain)
        # Rounded up, so that 5.001 % never reads "5 %, above 5 %".
        share = (100 * Decimal(affected) / whole).quantize(Decimal("0.01"), ROUND_CEILING)
        happened = " or ".join(phrase for kind, phrase in _PHRASES.items() if kind in self.counts)
        emails = f"emails to {domain}" if domain else "emails"
        since_when = " since the circuit breaker opened" if since[at_domain(AGAIN, domain)] else ""
        more = f" (and {len(others)} more mail domain{'s' * (len(others) > 1)})" if others else ""
        return (
            f"{_plain(share)} % of {whole:,} {emails}{since_when} "
            f"{happened} ({affected:,}), above {_plain(100 * self.above)} %{more}: {self.say}"
        )


Rule = CountRule | SilenceRule


@cache
def counters_of(kinds: frozenset[EventKind]) -> frozenset[str]:
    """The counters that say how many recipients these kinds happened to.

    A recipient who unsubscribed by our link and by the provider's counts once where a rule
    counts both kinds.
    """
    both = UNSUBSCRIBED_BY.keys() <= kinds
    return frozenset(
        RECIPIENTS[kind] if both else UNSUBSCRIBED_BY.get(kind, RECIPIENTS[kind]) for kind in kinds
    )


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file, in its order. SettingsError names line, rule, field and a remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(error, str(path)) from None
    return _parse(text, name=path.name, unreadable=str(path))


def parse_rules(text: str, *, name: str) -> tuple[Rule, ...]:
    """The rules of a text, as ``load_rules``; ``name`` is its name in errors."""
    return _parse(text, name=name, unreadable=name)


class _Problem(NamedTuple):
    """What is wrong with a file of rules."""

    message: str
    hint: str | None
    #: The index of the rule, and its field; None for the file, or for the whole rule.
    rule: int | None = None
    field: str | None = None


def _parse(text: str, *, name: str, unreadable: str) -> tuple[Rule, ...]:
    try:
        content = tomllib.loads(text, parse_float=Decimal)
    except ValueError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.rstrip().count("\n") + 1
        raise _unreadable(error, f"{unreadable}:{line}") from None
    rules: list[Rule] = []
    problem = _of_file(content)
    if problem is None:
        for number, table in enumerate(content["rule"]):
            one = _rule(table, number)
            if isinstance(one, _Problem):
                problem = one
                break
            rules.append(one)
        else:
            problem = _repeated([rule.name for rule in rules])
    if problem is not None:
        raise _settings_error(problem, content, text, name)
    return tuple(rules)


def _of_file(content: Mapping[str, Any]) -> _Problem | None:
    if unknown := next((key for key in content if key != "rule"), None):
        return _Problem("there is no such key", "Known here: rule.", None, unknown)
    hint = "Rules begin with [[rule]]; `rule = []` means none."
    if "rule" not in content:
        return _Problem("it is missing", hint, None, "rule")
    if not isinstance(content["rule"], list):
        return _Problem("it should be a valid list", hint, None, "rule")
    for number, table in enumerate(content["rule"]):
        if not isinstance(table, dict):
            return _Problem("it should be a table", hint, number)
    return None


def _rule(table: Mapping[str, Any], number: int) -> Rule | _Problem:
    model = SilenceRule if "silence" in table else CountRule
    try:
        rule: Rule = model.model_validate(table)
    except ValidationError as error:
        return _of_rule(error, model, number)
    if isinstance(rule, SilenceRule):
        return rule
    hint = CountRule.model_fields["of"].description
    if rule.by is None and rule.of == "sent":
        return _Problem('"sent" is for rules with by = "domain"', hint, number, "of")
    if rule.by is not None and rule.of == "accepted":
        message = 'of a mail domain, only "sent" is known: no counter has the accepted emails'
        return _Problem(message, hint, number, "of")
    if rule.by is None and rule.domains is not None:
        message = 'it is for rules with by = "domain"'
        return _Problem(message, 'Add by = "domain".', number, "domains")
    return rule


def _of_rule(error: ValidationError, model: type[Rule], number: int) -> _Problem:
    """The first problem. An unknown key comes first: it may be a missing one, mistyped."""
    problems = error.errors(include_url=False, include_input=False)
    first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        other = "" if model is SilenceRule else " Or silence, with name, say and action."
        # The fields that all rules have in common come last, but for the name.
        names = sorted(model.model_fields, key=["say", "action"].__contains__)
        known = f"Known here: {', '.join(names)}.{other}"
        return _Problem("there is no such key", known, number, field)
    message = "it is missing" if first["type"] == "missing" else first["msg"]
    message = message.removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return _Problem(message, model.model_fields[field].description, number, field)


def _repeated(names: list[str]) -> _Problem | None:
    for number, name in enumerate(names):
        if (first := names.index(name)) < number:
            message = f"rule {first + 1} has the same name"
            return _Problem(message, "Give each rule a name of its own.", number, "name")
    return None


def _settings_error(
    problem: _Problem, content: Mapping[str, Any], text: str, file: str
) -> SettingsError:
    place = f"{file}:{_line(text, problem)}: "
    if problem.rule is None:
        place += str(problem.field)
    else:
        table = content["rule"][problem.rule]
        name = table.get("name") if isinstance(table, dict) else None
        place += f"rule {problem.rule + 1}" + (f" ({name})" if name else "")
        place += f": {problem.field}" if problem.field else ""
    return SettingsError(problem.message, place=place, hint=problem.hint)


def _line(text: str, problem: _Problem) -> int:
    """The line of the field; else that of the rule's [[rule]], or of ``rule = […]``; else 1."""
    head = None
    lines = text.split("\n")
    tables = list(_starts(lines, r"\s*\[\[\s*(['\"]?)rule\1\s*\]\]"))
    end = len(lines)
    if problem.rule is not None and problem.rule < len(tables):
        head = tables[problem.rule]
        end = next((number for number in tables if number > head), end)
    elif problem.rule is not None:
        return next(iter(_starts(lines, r"\s*(['\"]?)rule\1\s*=")), 0) + 1
    if problem.field is not None:
        key = rf"\s*\[*\s*(['\"]?){re.escape(problem.field)}\1\s*[=.\]]"
        for number in _starts(lines, key):
            if (head or 0) <= number < end:
                return number + 1
    return (head or 0) + 1


def _starts(lines: list[str], pattern: str) -> Iterable[int]:
    """The lines that begin with this, from 0; not those in a text or list of several lines.

    A line is in none if the lines before it are TOML on their own.
    """
    for number, line in enumerate(lines):
        if re.match(pattern, line):
            try:
                tomllib.loads("\n".join(lines[:number]))
            except ValueError:
                continue
            yield number


def _unreadable(error: Exception, place: str) -> SettingsError:
    hint = "It has to be TOML like config/alerts.toml."
    return SettingsError(f"cannot be read: {error}", place=place, hint=hint)


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
