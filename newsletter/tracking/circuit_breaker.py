"""The circuit breaker: a send whose mails bounce, are refused or called spam pauses itself.

The rules are data (config/alerts.toml). They compare what came back with what was handed
to the provider, over figures of people that are kept as events arrive: a look costs two queries,
whatever the number of sends and of people.
"""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from sqlalchemy import Row, func, literal, select, union_all, update

from newsletter.db.orm import Session, table_of
from newsletter.errors import SettingsError
from newsletter.provider.events import EventKind
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Send
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, SendState
from newsletter.settings.kinds import Line
from newsletter.tracking.models import SendCounter
from newsletter.tracking.stats.counters import LEFT_BY, PEOPLE

_send, _batch, _count = table_of(Send), table_of(Batch), table_of(SendCounter)

#: The kinds that a rule can count, and what they say of "5 % of 4,000 mails". The others are
#: no bad news, or (a deferral) come many times for one mail and so make no share of mails.
_SAID: Final[Mapping[EventKind, str]] = {
    EventKind.BOUNCE: "bounced",
    EventKind.BLOCKED: "were blocked",
    EventKind.DROPPED: "were dropped",
    EventKind.SPAM_REPORT: "were called spam",
    EventKind.UNSUBSCRIBE: "made their readers leave",
    EventKind.GROUP_UNSUBSCRIBE: "made their readers leave at the provider",
}
#: Key of Send.breaker_baseline beside the counts of people.
_ACCEPTED = "accepted"


def _kind(word: object) -> EventKind:
    if word not in list(_SAID):
        raise ValueError(f"{word!r} is no kind of event that a rule can count")
    return EventKind(str(word))


def _share(number: object) -> Decimal:
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError("a share is a number")  # noqa: TRY004 (pydantic takes no TypeError)
    return Decimal(number)


class BreakerRule(BaseModel, extra="forbid", frozen=True, strict=True):
    """When a send pauses itself. A field's description is the hint when its value is wrong."""

    name: Line = Field(min_length=1, max_length=100, description="A few words in quotes.")
    counts: list[Annotated[EventKind, BeforeValidator(_kind)]] = Field(
        min_length=1, description=f"A list of some of: {', '.join(_SAID)}."
    )
    of: Literal["accepted"] = Field(description='"accepted": people handed to the provider so far.')
    #: A share of ``of``. Decimal, because 29 of 100 is above the binary fraction 0.29.
    above: Annotated[Decimal, BeforeValidator(_share)] = Field(
        gt=0, le=1, description="A share, more than 0 and not more than 1: 0.05 is 5 %."
    )
    at_least: int = Field(ge=1, description="A whole number of people, 1 or more.")
    after: int = Field(ge=1, description="A whole number of people, 1 or more.")
    #: With all that is put around it, it fits into the 1000 characters of Send.reason.
    say: Line = Field(min_length=1, max_length=500, description="One line, without a full stop.")

    def reason(self, since: Counter[str], *, again: bool) -> str | None:
        """Why these figures pause the send, in the operator's words; None when they do not."""
        people = since[self.of]
        met = sum(since[what] for what in _figures_of(self.counts))
        if people < self.after or met < self.at_least or met <= self.above * people:
            return None
        # Rounded up, so that 5.001 % never reads "5 %, above 5 %".
        share = (100 * Decimal(met) / people).quantize(Decimal("0.01"), ROUND_CEILING)
        happened = " or ".join(said for kind, said in _SAID.items() if kind in self.counts)
        return (
            f"{_plain(share)} % of {people:,} emails {'since the last pause ' if again else ''}"
            f"{happened} ({met:,}), above {_plain(100 * self.above)} %: {self.say}"
        )


def _figures_of(kinds: Collection[EventKind]) -> frozenset[str]:
    """The figures of people that say how many these kinds happened to.

    Whoever left by our link and by the provider's is one, where a rule counts both.
    """
    both = LEFT_BY.keys() <= set(kinds)
    return frozenset(PEOPLE[kind] if both else LEFT_BY.get(kind, PEOPLE[kind]) for kind in kinds)


class _File(BaseModel, extra="forbid", strict=True):
    rule: list[BreakerRule] = Field(
        description="Rules begin with [[rule]]; `rule = []` means none."
    )


def load_rules(path: Path) -> tuple[BreakerRule, ...]:
    """The rules of a file, in its order; SettingsError names the rule, the field and a remedy."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        hint = "It has to be a TOML file like config/alerts.toml."
        raise SettingsError(f"cannot be read: {error}", place=str(path), hint=hint) from None
    try:
        rules = tuple(_File.model_validate(given).rule)
    except ValidationError as error:
        raise _explained(error, given, path.name) from None
    names = [rule.name for rule in rules]
    for number, name in enumerate(names, start=1):
        if (first := names.index(name) + 1) < number:
            raise SettingsError(
                f"rule {first} has this name, too",
                place=f"{path.name}: rule {number} ({name}): name",
                hint="Give each rule a name of its own.",
            )
    return rules


def watch(
    session: Session, rules: Collection[BreakerRule], *, now: datetime
) -> list[tuple[int, str]]:
    """Pause each send under way for which a rule trips, the first of them; returns (send, why).

    While the breaker keeps a send paused, Send.breaker_baseline follows its counts: bounces
    of emails that had left go on arriving, and after the resume only later ones count.
    """
    rows = session.execute(
        select(_send.c.id, _send.c.state, _send.c.breaker_baseline)
        .where(
            # A send that something else paused keeps the baseline that it had.
            (_send.c.state == SendState.SENDING)
            | (
                (_send.c.state == SendState.PAUSED)
                & (_send.c.paused_by == PauseCause.CIRCUIT_BREAKER)
            )
        )
        .order_by(_send.c.id)
    )
    watched = rows.all()
    if not watched:
        return []
    figures, paused = _figures(session, [row.id for row in watched]), []
    for row in watched:
        counts = figures[row.id]
        if row.state == SendState.PAUSED:
            _keep(session, row, counts)
            continue
        since = Counter(counts)
        since.subtract(row.breaker_baseline)
        reasons = (rule.reason(since, again=bool(row.breaker_baseline)) for rule in rules)
        why = next(filter(None, reasons), None)
        if why is not None and sends.pause(
            session,
            row.id,
            PauseCause.CIRCUIT_BREAKER,
            reason=why,
            now=now,
            only_from=[SendState.SENDING],
            breaker_baseline=counts,
        ):
            paused.append((row.id, why))
    return paused


def _figures(session: Session, send_ids: Collection[int]) -> Mapping[int, dict[str, int]]:
    """Send → what → how many people: those whom something happened to, and those handed over.

    People and not events: one who is told of ten times must not stop a send.
    """
    seen = select(_count.c.send_id, _count.c.what, _count.c.count).where(
        _count.c.send_id.in_(send_ids),
        _count.c.what.in_(sorted({*PEOPLE.values(), *LEFT_BY.values()})),
    )
    handed = (
        select(_batch.c.send_id, literal(_ACCEPTED), func.sum(_batch.c.size))
        .where(_batch.c.send_id.in_(send_ids), _batch.c.state == BatchState.ACCEPTED)
        .group_by(_batch.c.send_id)
    )
    figures: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for send_id, what, number in session.execute(union_all(seen, handed)):
        figures[send_id][what] = int(number)
    return figures


def _keep(session: Session, row: Row[Any], counts: Mapping[str, int]) -> None:
    """Write the baseline if it changed, unless the send was moved meanwhile."""
    if counts != row.breaker_baseline:
        still = (_send.c.id == row.id) & (_send.c.state == row.state)
        session.execute(update(_send).where(still).values(breaker_baseline=counts))


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _explained(error: ValidationError, given: Mapping[str, Any], file: str) -> SettingsError:
    """The first complaint, in the operator's words; a mistyped key before the one it leaves out."""
    found = error.errors(include_url=False, include_input=False)
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    key, *inside = first["loc"]
    place, fields = f"{file}: {key}", _File.model_fields
    if inside:
        table = given["rule"][inside[0]]
        name = table.get("name") if isinstance(table, dict) else None
        place = f"{file}: rule {int(inside[0]) + 1}" + (f" ({name})" if name else "")
    if inside[1:]:
        key, fields = inside[1], BreakerRule.model_fields
        place += f": {key}"
    if first["type"] == "extra_forbidden":
        known = f"Known here: {', '.join(fields)}."
        return SettingsError("there is no such key", place=place, hint=known)
    said = "it is missing" if first["type"] == "missing" else first["msg"]
    said = said.removeprefix("Value error, ")
    return SettingsError(said[0].lower() + said[1:], place=place, hint=fields[str(key)].description)
