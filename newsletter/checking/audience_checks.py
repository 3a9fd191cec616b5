"""Whether the right people get it, whether it speaks to each of them, how long and for how much."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.manuscript import line_of
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError, UserError
from newsletter.issues.models import Issue
from newsletter.sending.models import Send
from newsletter.sending.planning.audience import HAD_IT
from newsletter.sending.planning.planner import forecast
from newsletter.sending.states import SendState
from subscribers.consent import topics

_send, _issue = table_of(Send), table_of(Issue)
_SENT = (SendState.SENDING, SendState.PAUSED, SendState.SENT)
#: A smaller send says nothing of the pace: it is over before all workers have begun.
_TELLING = 1000


def placeholders(case: CheckContext) -> Iterator[CheckFinding]:
    """A placeholder without a default leaves a gap for who lacks the value."""
    people, told = case.people, set()
    for used in case.manuscript.placeholders:
        name = used.placeholder.name
        if name not in case.values_without_default or used.placeholder.default or name in told:
            continue
        told.add(name)
        lacking = people.lacking[name] if people else None
        if lacking == 0:
            continue
        who = f"{lacking:,} of {people.number:,} people" if people else "whoever has none"
        yield CheckFinding(
            f"{{{{ {name} }}}} has no default, and {who} would read a gap",
            f'Write {{{{ {name} | default("reader") }}}}, or a sentence that does without.',
            used.line,
        )


def audience(case: CheckContext) -> Iterator[CheckFinding]:
    """As many people as last time, give or take: else a segment or an import is wrong."""
    if (people := case.people) is None or case.plan is None:
        return
    try:
        topics.require(case.plan.session, case.draft.topics)
    except UserError as error:
        yield CheckFinding(error.message, error.hint or "", line_of(case.draft, "topics"))
    if not people.number:
        why = ", ".join(f"{number:,} {reason}" for reason, number in people.excluded_counts.items())
        yield CheckFinding("nobody would get this issue", f"Left out: {why}." if why else "")
        return
    last = case.plan.session.execute(
        select(_send.c.id, _send.c.planned)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(
            _issue.c.series == case.draft.series,
            _issue.c.slug != case.draft.slug,
            _send.c.state.in_(_SENT),
            _send.c.planned > 0,
        )
        .order_by(_send.c.started_at.desc(), _send.c.id.desc())
        .limit(1)
    ).one_or_none()
    rules = case.rules.audience
    if last and not rules.shrunk <= people.number / last.planned <= rules.grown:
        yield CheckFinding(
            f"{people.number:,} people would get it; the last of the series {case.draft.series} "
            f"(send {last.id}) went to {last.planned:,}",
            "Look at the segments: newsletter segment list; and at what was imported lately.",
        )


def had_it(case: CheckContext) -> Iterator[CheckFinding]:
    """Nobody gets an issue twice, so who had it is left out, which may not be what is meant."""
    people = case.people
    if people and (number := people.excluded_counts.get(HAD_IT, 0)):
        yield CheckFinding(
            f"{number:,} people of the segments have this issue already, and do not get it again",
            "If it is another issue, give it a slug of its own.",
            line_of(case.draft, "slug"),
        )


def duration(case: CheckContext) -> Iterator[CheckFinding]:
    """When the last one leaves, by the timetable and by the pace of sends before."""
    if (people := case.people) is None or case.plan is None or not people.number:
        return
    plan, rules = case.plan, case.rules.duration
    try:
        last_at = forecast(
            plan.session,
            people.counted,
            plan.timetable,
            start=case.now,
            batch_size=plan.batch_size,
            warm_up=plan.warm_up,
        )
    except SendError as error:
        yield CheckFinding(error.message, error.hint or "")
        return
    pace = _pace(plan.session)
    mails = pace.mails if pace else rules.per_second
    takes = max(last_at - case.now, timedelta(seconds=people.number / mails))
    where = f"as send {pace.send_id} did" if pace else "which nobody has measured yet"
    said = (
        f"{people.number:,} people get it within {_told(takes)}, at up to {mails:,.0f} mails a "
        f"second, {where}"
    )
    if takes > rules.longest:
        hint = "Raise the limits of its pace, or begin earlier."
        yield CheckFinding(f"{said}: longer than {_told(rules.longest)}", hint)
    else:
        yield CheckFinding(said, is_note=True)


def cost(case: CheckContext) -> Iterator[CheckFinding]:
    """What the provider asks for so many mails, by the table of prices."""
    people, rules = case.people, case.rules.cost
    prices = sorted(rules.prices, key=lambda price: price.from_)
    fitting = [price for price in prices if people and price.from_ <= people.number]
    if not people or not people.number or not fitting:
        return
    amount = fitting[-1].per_thousand * people.number / 1000
    said = f"it costs about {amount:,.2f} {rules.currency}"
    if rules.most and amount > rules.most:
        hint = "Send to fewer people, or raise cost.most."
        yield CheckFinding(f"{said}, more than {rules.most:,} {rules.currency}", hint)
    else:
        yield CheckFinding(said, is_note=True)


@dataclass(frozen=True, slots=True)
class _Pace:
    send_id: int
    mails: float


def _pace(session: Session) -> _Pace | None:
    """Mails a second of the latest send that nothing but its workers slowed down."""
    rows = session.execute(
        select(_send.c.id, _send.c.planned, _send.c.started_at, _send.c.finished_at)
        .where(
            _send.c.state == SendState.SENT,
            _send.c.planned >= _TELLING,
            _send.c.finished_at.is_not(None),
            _send.c.timetable == {},
            _send.c.test == {},
        )
        .order_by(_send.c.id.desc())
        .limit(1)
    ).one_or_none()
    if rows is None:
        return None
    seconds = (rows.finished_at - rows.started_at).total_seconds()
    return _Pace(rows.id, rows.planned / max(seconds, 1.0))


def _told(length: timedelta) -> str:
    """``3 seconds``, ``12 minutes``, ``7.5 hours``: rounded up to what a person would say."""
    seconds = max(1, round(length.total_seconds()))
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return "a second" if seconds == 1 else f"{seconds} seconds"
