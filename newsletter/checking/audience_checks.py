"""Checks the audience of a planned send, missing values, duration and cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from newsletter import durations
from newsletter.checking.context import CheckContext
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import line_of
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
#: Smaller sends do not show the pace: they end before all workers have begun.
_LEAST_MEASURED = 1000


def placeholders(case: CheckContext) -> Iterator[CheckFinding]:
    """Report placeholders without a default that leave a gap for some recipients."""
    people, reported = case.people, set()
    for used in case.body.placeholders:
        name = used.placeholder.name
        if name not in case.values_without_default or used.placeholder.default or name in reported:
            continue
        reported.add(name)
        lacking = people.lacking[name] if people else None
        if lacking == 0:
            continue
        who = f"{lacking:,} of {people.number:,} recipients" if people else "some recipients"
        yield CheckFinding(
            f"{{{{ {name} }}}} has no default, and {who} would see a gap",
            f'Write {{{{ {name} | default("reader") }}}}, or a sentence without the placeholder.',
            used.line,
        )


def audience(case: CheckContext) -> Iterator[CheckFinding]:
    """Report an audience that is empty or much larger or smaller than the last one."""
    if (people := case.people) is None or case.plan is None:
        return
    try:
        topics.require(case.plan.session, case.draft.topics)
    except UserError as error:
        yield CheckFinding(error.message, error.hint or "", line_of(case.draft, "topics"))
    if not people.number:
        why = ", ".join(f"{number:,} {reason}" for reason, number in people.excluded_counts.items())
        yield CheckFinding("nobody would get this issue", f"Excluded: {why}." if why else "")
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
            f"{people.number:,} subscribers would get it; the last issue of the series "
            f"{case.draft.series} (send {last.id}) went to {last.planned:,}",
            "Check the segments and recent imports.",
        )


def had_it(case: CheckContext) -> Iterator[CheckFinding]:
    """Report subscribers who got this issue before: they are excluded, perhaps unintentionally."""
    people = case.people
    if people and (number := people.excluded_counts.get(HAD_IT, 0)):
        yield CheckFinding(
            f"{number:,} subscribers of the segments got this issue already and are excluded",
            "If it is another issue, give it another slug.",
            line_of(case.draft, "slug"),
        )


def duration(case: CheckContext) -> Iterator[CheckFinding]:
    """Report how long the send takes, by its timetable and the measured pace of earlier sends."""
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
    takes = max(last_at - case.now, timedelta(seconds=max(1.0, people.number / mails)))
    source = f"as send {pace.send_id} did" if pace else "which was not measured yet"
    message = (
        f"{people.number:,} subscribers get it within {durations.in_words(takes)}, "
        f"at up to {mails:,.0f} emails a second, {source}"
    )
    if takes > rules.longest:
        hint = "Raise the limits of its pace, or begin earlier."
        yield CheckFinding(f"{message}: longer than {durations.in_words(rules.longest)}", hint)
    else:
        yield CheckFinding(message, is_note=True)


def cost(case: CheckContext) -> Iterator[CheckFinding]:
    """Report the cost of the send, by the table of prices."""
    people, rules = case.people, case.rules.cost
    prices = sorted(rules.prices, key=lambda price: price.from_)
    fitting = [price for price in prices if people and price.from_ <= people.number]
    if not people or not people.number or not fitting:
        return
    amount = fitting[-1].per_thousand * people.number / 1000
    message = f"it costs about {amount:,.2f} {rules.currency}"
    if rules.most and amount > rules.most:
        hint = "Send to fewer subscribers, or raise cost.most."
        yield CheckFinding(f"{message}, more than {rules.most:,} {rules.currency}", hint)
    else:
        yield CheckFinding(message, is_note=True)


@dataclass(frozen=True, slots=True)
class _Pace:
    send_id: int
    mails: float


def _pace(session: Session) -> _Pace | None:
    """Emails per second of the latest send without a timetable or A/B test."""
    rows = session.execute(
        select(_send.c.id, _send.c.planned, _send.c.started_at, _send.c.finished_at)
        .where(
            _send.c.state == SendState.SENT,
            _send.c.planned >= _LEAST_MEASURED,
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
