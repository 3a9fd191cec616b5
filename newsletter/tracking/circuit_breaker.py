"""The circuit breaker: pauses a send with too many bounces, blocks, drops or complaints.

A rule with ``action = "tell"`` pauses nothing and writes a message to the operators instead.

The rules are data (config/alerts.toml). A rule compares two counts of recipients: those whom an
event happened to, and those whom the provider accepted. Both are kept up to date as events
arrive, so a check costs two queries, whatever the number of sends and of recipients.
"""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from sqlalchemy import Row, func, literal, select, union_all, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.orm import Session, table_of
from newsletter.errors import SettingsError
from newsletter.provider.events import EventKind
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Send
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, SendState
from newsletter.settings.kinds import Line
from newsletter.tracking.models import SendCounter
from newsletter.tracking.stats.counters import RECIPIENTS, UNSUBSCRIBED_BY

_send, _batch, _count = table_of(Send), table_of(Batch), table_of(SendCounter)

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
#: Nothing can be paused in a send that has ended, but most complaints come after its end. For so
#: long, rules that tell and rules about complaints are applied to it.
_AFTER_END = timedelta(days=7)
#: Key of Send.breaker_baseline beside the counts of recipients.
ACCEPTED: Final = "accepted"


def _kind(name: object) -> EventKind:
    if name not in list(_PHRASES):
        raise ValueError(f"{name!r} is no kind of event that a rule can count")
    return EventKind(str(name))


def _share(number: object) -> Decimal:
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError("a share is a number")  # noqa: TRY004 (pydantic takes no TypeError)
    return Decimal(number)


class BreakerRule(BaseModel, extra="forbid", frozen=True, strict=True):
    """What the breaker does to a send, and when. A field's description is the hint when its value
    is wrong."""

    name: Line = Field(min_length=1, max_length=100, description="A few words in quotes.")
    counts: list[Annotated[EventKind, BeforeValidator(_kind)]] = Field(
        min_length=1, description=f"A list of some of: {', '.join(_PHRASES)}."
    )
    of: Literal["accepted"] = Field(
        description='"accepted": recipients whom the provider accepted.'
    )
    #: A share of ``of``. Decimal, because 29 of 100 is above the binary fraction 0.29.
    above: Annotated[Decimal, BeforeValidator(_share)] = Field(
        gt=0, le=1, description="A share, more than 0 and not more than 1: 0.05 is 5 %."
    )
    at_least: int = Field(ge=1, description="A whole number of recipients, 1 or more.")
    after: int = Field(ge=1, description="A whole number of recipients, 1 or more.")
    #: At most 500, so that the whole reason fits into the 1000 characters of Send.reason.
    say: Line = Field(min_length=1, max_length=500, description="One line, without a full stop.")
    action: Literal["pause", "tell"] = Field(
        default="pause",
        description='"pause": the send is paused. "tell": the operators get one message.',
    )

    def affected(self, counts: Counter[str]) -> int:
        """The recipients whom an event happened to that the rule counts."""
        return sum(counts[what] for what in counters_of(frozenset(self.counts)))

    def matches(self, counts: Counter[str]) -> bool:
        """Whether these counts are above the limit of the rule."""
        accepted, affected = counts[self.of], self.affected(counts)
        enough = accepted >= self.after and affected >= self.at_least
        return enough and affected > self.above * accepted

    def reason(self, since: Counter[str], *, again: bool) -> str | None:
        """Why the rule matches these counts, as the operator reads it; None when it does not."""
        if not self.matches(since):
            return None
        accepted, matching = since[self.of], self.affected(since)
        # Rounded up, so that 5.001 % never reads "5 %, above 5 %".
        share = (100 * Decimal(matching) / accepted).quantize(Decimal("0.01"), ROUND_CEILING)
        happened = " or ".join(phrase for kind, phrase in _PHRASES.items() if kind in self.counts)
        since_when = "since the circuit breaker opened " if again else ""
        return (
            f"{_plain(share)} % of {accepted:,} emails {since_when}"
            f"{happened} ({matching:,}), above {_plain(100 * self.above)} %: {self.say}"
        )


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


class _File(BaseModel, extra="forbid", strict=True):
    rule: list[BreakerRule] = Field(
        description="Rules begin with [[rule]]; `rule = []` means none."
    )


def load_rules(path: Path) -> tuple[BreakerRule, ...]:
    """The rules of a file, in its order. SettingsError names the rule, the field and a remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(error, str(path)) from None
    return _rules(_toml(text, str(path)), path.name)


def parse_rules(text: str, *, name: str) -> tuple[BreakerRule, ...]:
    """The rules of a text, as ``load_rules``; ``name`` is its name in errors."""
    return _rules(_toml(text, name), name)


def _toml(text: str, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise _unreadable(error, place) from None


def _rules(content: dict[str, Any], name: str) -> tuple[BreakerRule, ...]:
    try:
        rules = tuple(_File.model_validate(content).rule)
    except ValidationError as error:
        raise _settings_error(error, content, name) from None
    names = [rule.name for rule in rules]
    for number, of_rule in enumerate(names, start=1):
        if (first := names.index(of_rule) + 1) < number:
            raise SettingsError(
                f"rule {first} has the same name",
                place=f"{name}: rule {number} ({of_rule}): name",
                hint="Give each rule a name of its own.",
            )
    return rules


def check_sends(
    session: Session, rules: Collection[BreakerRule], *, now: datetime
) -> list[tuple[int, str]]:
    """Pause each running send for which a rule opens the breaker; returns (send, reason).

    The first such rule gives the reason. A rule that tells writes one message for each send. While
    the breaker has paused a send, Send.breaker_baseline follows the counts: bounces of emails that
    left before the pause go on arriving. After the resume only what came since then counts.
    """
    rows = session.execute(
        select(_send.c.id, _send.c.state, _send.c.breaker_baseline)
        .where(
            # A send that anything else paused keeps its baseline.
            (_send.c.state == SendState.SENDING)
            | (
                (_send.c.state == SendState.PAUSED)
                & (_send.c.paused_by == PauseCause.CIRCUIT_BREAKER)
            )
        )
        .order_by(_send.c.id)
    ).all()
    if not rows:
        return []
    counts, paused = _recipient_counts(session, [row.id for row in rows]), []
    pausing = [rule for rule in rules if rule.action == "pause"]
    telling = [rule for rule in rules if rule.action == "tell"]
    to_tell: list[Occasion] = []
    for row in rows:
        if row.state == SendState.PAUSED:
            _save_baseline(session, row, counts[row.id])
            continue
        to_tell += _matches(telling, row, counts[row.id])
        reason = next((one.detail for one in _matches(pausing, row, counts[row.id])), None)
        if reason is not None and sends.pause(
            session,
            row.id,
            PauseCause.CIRCUIT_BREAKER,
            reason=reason,
            now=now,
            only_from=[SendState.SENDING],
            breaker_baseline=counts[row.id],
        ):
            paused.append((row.id, reason))
    operator_messages.post_all(session, operator_messages.not_posted(session, to_tell), now=now)
    return paused


def occasions(session: Session, rules: Collection[BreakerRule], *, now: datetime) -> list[Occasion]:
    """The messages about sends that have ended: rules that tell, and rules about complaints."""
    applied = [
        rule for rule in rules if rule.action == "tell" or EventKind.SPAM_REPORT in rule.counts
    ]
    if not applied:
        return []
    rows = session.execute(
        select(_send.c.id, _send.c.breaker_baseline).where(
            _send.c.state == SendState.SENT, _send.c.finished_at > now - _AFTER_END
        )
    ).all()
    counts = _recipient_counts(session, [row.id for row in rows]) if rows else {}
    return [one for row in rows for one in _matches(applied, row, counts[row.id])]


def _matches(
    rules: Collection[BreakerRule], row: Row[Any], counts: Mapping[str, int]
) -> Iterator[Occasion]:
    """The rules that match a send, each with its reason. Counts since the last resume."""
    since = Counter(counts)
    since.subtract(row.breaker_baseline)
    for rule in rules:
        reason = rule.reason(since, again=bool(row.breaker_baseline))
        if reason is not None:
            yield Occasion(MessageKind.RATE_HIGH, row.id, rule.name, reason)


def _recipient_counts(session: Session, send_ids: Collection[int]) -> Mapping[int, dict[str, int]]:
    """Send → counter → recipients: those whom an event happened to, and those accepted.

    Counts recipients and not events: ten events of one recipient must not pause a send.
    """
    affected = select(_count.c.send_id, _count.c.what, _count.c.count).where(
        _count.c.send_id.in_(send_ids),
        _count.c.what.in_(sorted({*RECIPIENTS.values(), *UNSUBSCRIBED_BY.values()})),
    )
    accepted = (
        select(_batch.c.send_id, literal(ACCEPTED), func.sum(_batch.c.size))
        .where(_batch.c.send_id.in_(send_ids), _batch.c.state == BatchState.ACCEPTED)
        .group_by(_batch.c.send_id)
    )
    counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for send_id, what, number in session.execute(union_all(affected, accepted)):
        counts[send_id][what] = int(number)
    return counts


def _save_baseline(session: Session, row: Row[Any], baseline: Mapping[str, int]) -> None:
    """Write the counts if they changed, unless the send has another state by now."""
    if baseline != row.breaker_baseline:
        unmoved = (_send.c.id == row.id) & (_send.c.state == row.state)
        session.execute(update(_send).where(unmoved).values(breaker_baseline=baseline))


def _unreadable(error: Exception, place: str) -> SettingsError:
    hint = "It has to be TOML like config/alerts.toml."
    return SettingsError(f"cannot be read: {error}", place=place, hint=hint)


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _settings_error(error: ValidationError, content: Mapping[str, Any], file: str) -> SettingsError:
    """The first problem. An unknown key comes first: it may be a missing one, mistyped."""
    problems = error.errors(include_url=False, include_input=False)
    first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    key, *inside = first["loc"]
    place, fields = f"{file}: {key}", _File.model_fields
    if inside:
        table = content["rule"][inside[0]]
        name = table.get("name") if isinstance(table, dict) else None
        place = f"{file}: rule {int(inside[0]) + 1}" + (f" ({name})" if name else "")
    if inside[1:]:
        key, fields = inside[1], BreakerRule.model_fields
        place += f": {key}"
    if first["type"] == "extra_forbidden":
        known = f"Known here: {', '.join(fields)}."
        return SettingsError("there is no such key", place=place, hint=known)
    problem = "it is missing" if first["type"] == "missing" else first["msg"]
    problem = problem.removeprefix("Value error, ")
    hint = fields[str(key)].description
    return SettingsError(problem[0].lower() + problem[1:], place=place, hint=hint)
