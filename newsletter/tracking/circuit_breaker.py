"""The circuit breaker: pauses a send with too many bounces, blocks, drops or complaints.

A rule with ``action = "tell"`` pauses nothing and writes a message to the operators instead.

The rules are data (config/alerts.toml). A rule compares two counts of recipients: those whom an
event happened to, and those whom the provider accepted. Both are kept up to date as events
arrive, so a check costs two queries, whatever the number of sends and of recipients. Rules by mail
domain add one, while a send has enough events; a rule about silence adds a few.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, case, func, literal, select, union_all, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Send
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, SendState
from newsletter.tracking import event_silence
from newsletter.tracking.breaker_rules import (
    ACCEPTED,
    AGAIN,
    CountRule,
    Rule,
    SilenceRule,
    at_domain,
)
from newsletter.tracking.models import SendCounter, VariantCounter
from newsletter.tracking.stats.counters import RECIPIENTS, UNSUBSCRIBED_BY
from newsletter.tracking.stats.rates import FINAL_EVENTS

_send, _batch = table_of(Send), table_of(Batch)
_count, _part = table_of(SendCounter), table_of(VariantCounter)

#: Nothing can be paused in a send that has ended, but most complaints come after its end. For so
#: long, rules that tell and rules about complaints are applied to it.
_AFTER_END = timedelta(days=7)
#: Key of Send.breaker_baseline beside the counts: when the last email before the resume left, in
#: seconds since 1970. Only later emails can show a silence.
_DEPARTED: Final = "departed"


def check_sends(
    session: Session, rules: Collection[Rule], *, now: datetime
) -> list[tuple[int, str]]:
    """Pause each running send for which a rule opens the breaker; returns (send, reason).

    The first such rule gives the reason. A rule that tells writes one message for each send, or
    for each silence. While the breaker has paused a send, Send.breaker_baseline follows the counts:
    bounces of emails that left before the pause go on arriving. After the resume only what came
    since then counts. The baseline of a mail domain is kept once it has the minimum counts of a
    rule, so that a send to many domains does not keep figures of each.
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
    counts, paused = _counts(session, [row.id for row in rows], rules), []
    to_tell: list[Occasion] = []
    for row in rows:
        if row.state == SendState.PAUSED:
            told = {k: n for k, n in row.breaker_baseline.items() if k == event_silence.TOLD}
            _save_baseline(session, row, {**counts[row.id], **told})
            continue
        opened: Occasion | None = None
        for rule in rules:
            if rule.action == "pause" and opened is not None:
                continue
            match = _match(session, rule, row, counts[row.id], now=now)
            if match is not None and rule.action == "tell":
                to_tell.append(match)
            else:
                opened = opened or match
        if opened is None:
            continue
        baseline = dict(counts[row.id])
        if opened.kind == MessageKind.EVENTS_SILENT:
            baseline[event_silence.TOLD] = event_silence.mark(session, now=now)
        if sends.pause(
            session,
            row.id,
            PauseCause.CIRCUIT_BREAKER,
            reason=opened.detail,
            now=now,
            only_from=[SendState.SENDING],
            breaker_baseline=baseline,
        ):
            paused.append((row.id, opened.detail))
    operator_messages.post_all(session, operator_messages.not_posted(session, to_tell), now=now)
    return paused


def occasions(session: Session, rules: Collection[Rule], *, now: datetime) -> list[Occasion]:
    """The messages about sends that have ended: rules that tell, and rules about complaints.

    A silence after the end is the matter of newsletter.tracking.event_silence.
    """
    applied = [
        rule
        for rule in rules
        if isinstance(rule, CountRule)
        and (rule.action == "tell" or EventKind.SPAM_REPORT in rule.counts)
    ]
    if not applied:
        return []
    rows = session.execute(
        select(_send.c.id, _send.c.breaker_baseline).where(
            _send.c.state == SendState.SENT, _send.c.finished_at > now - _AFTER_END
        )
    ).all()
    counts = _counts(session, [row.id for row in rows], applied) if rows else {}
    found = (
        _match(session, rule, row, counts[row.id], now=now) for row in rows for rule in applied
    )
    return [one for one in found if one is not None]


def domains_to_judge(session: Session, send_id: int, rules: Collection[CountRule]) -> set[str]:
    """The mail domains of a send that have the minimum counts of one of these rules."""
    counts = _counts(session, [send_id], rules)[send_id]
    if not counts.get(EventKind.DELIVERED):
        return set()
    return {key.partition("@")[2] for key in counts} - {""}


def _match(
    session: Session, rule: Rule, row: Row[Any], counts: Mapping[str, int], *, now: datetime
) -> Occasion | None:
    """The message that a rule matches a send, with the reason. Counts since the last resume."""
    baseline = row.breaker_baseline
    if isinstance(rule, SilenceRule):
        departed = datetime.fromtimestamp(baseline.get(_DEPARTED, 0), UTC)
        silence = event_silence.of_send(
            session, row.id, limit=rule.silence, now=now, departed_after=departed
        )
        return None if silence is None else silence.occasion(rule.say)
    since = Counter(counts)
    since.subtract(baseline)
    # It only shows whether deliveries are reported at all.
    since[EventKind.DELIVERED] = counts.get(EventKind.DELIVERED, 0)
    for key in baseline:
        since[at_domain(AGAIN, key.partition("@")[2])] = 1
    domains = {key.partition("@")[2] for key in counts}
    reason = rule.reason(since, domains)
    return None if reason is None else Occasion(MessageKind.RATE_HIGH, row.id, rule.name, reason)


def _counts(
    session: Session, send_ids: Collection[int], rules: Collection[Rule]
) -> Mapping[int, dict[str, int]]:
    """Send → counter → recipients: those whom an event happened to, and those accepted.

    Counts recipients and not events: ten events of one recipient must not pause a send.
    """
    affected = select(_count.c.send_id, _count.c.what, _count.c.count).where(
        _count.c.send_id.in_(send_ids),
        _count.c.what.in_(
            sorted({*RECIPIENTS.values(), *UNSUBSCRIBED_BY.values(), EventKind.DELIVERED})
        ),
    )
    accepted = (
        select(_batch.c.send_id, literal(ACCEPTED), func.sum(_batch.c.size))
        .where(_batch.c.send_id.in_(send_ids), _batch.c.state == BatchState.ACCEPTED)
        .group_by(_batch.c.send_id)
    )
    counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for send_id, what, number in session.execute(union_all(affected, accepted)):
        counts[send_id][what] = int(number)
    _add_domains(session, counts, [r for r in rules if isinstance(r, CountRule) and r.by])
    if any(isinstance(rule, SilenceRule) for rule in rules):
        for send_id, departed in event_silence.last_departures(session, send_ids).items():
            # The next second, because a fraction of one is lost.
            counts[send_id][_DEPARTED] = int(departed.timestamp()) + 1
    return counts


def _add_domains(
    session: Session, counts: Mapping[int, dict[str, int]], rules: Collection[CountRule]
) -> None:
    """Add the counts of the mail domains that have the minimum counts of one of these rules.

    The database chooses these few from the tens of thousands of domains of a send. It is not asked
    while the whole send has fewer events than a rule needs of one domain.
    """
    if not rules:
        return
    affected = sorted({what for rule in rules for what in rule.counters})
    least, after = min(rule.at_least for rule in rules), min(rule.after for rule in rules)
    send_ids = [
        send_id
        for send_id, of_send in counts.items()
        if sum(of_send.get(what, 0) for what in affected) >= least
    ]
    if not send_ids:
        return
    of_domain = _part.c.send_id.in_(send_ids) & (_part.c.part == "domain")
    if all(rule.domains for rule in rules):
        domains = {domain for rule in rules for domain in rule.domains or ()}
        of_domain &= _part.c.value.in_(sorted(domains))
    # In two steps, because few domains have enough such events.
    candidates = (
        select(_part.c.value)
        .where(of_domain, _part.c.what.in_(affected))
        .group_by(_part.c.send_id, _part.c.value)
        .having(func.sum(_part.c.count) >= least)
    )
    names = sorted({*affected, *FINAL_EVENTS})
    totals = [func.sum(case((_part.c.what == what, _part.c.count), else_=0)) for what in names]
    sent = func.sum(case((_part.c.what.in_(FINAL_EVENTS), _part.c.count), else_=0))
    for send_id, domain, *numbers in session.execute(
        select(_part.c.send_id, _part.c.value, *totals)
        .where(of_domain, _part.c.value.in_(candidates), _part.c.what.in_(names))
        .group_by(_part.c.send_id, _part.c.value)
        .having(sent >= after)
    ):
        # Events without an address have no domain.
        if domain:
            counts[send_id].update(
                (at_domain(what, domain), int(number))
                for what, number in zip(names, numbers, strict=True)
            )


def _save_baseline(session: Session, row: Row[Any], baseline: Mapping[str, int]) -> None:
    """Write the counts if they changed, unless the send has another state by now."""
    if baseline != row.breaker_baseline:
        unmoved = (_send.c.id == row.id) & (_send.c.state == row.state)
        session.execute(update(_send).where(unmoved).values(breaker_baseline=baseline))
