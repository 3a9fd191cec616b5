"""Results of an A/B test, and the choice of its winner.

Only the sample counts, and each of its recipients once, however often they opened. The winner is
the variant with the highest rate at the set time, whether or not chance explains its lead,
because the rest of the audience has to get one of them. The report says whether it may be chance.
The time runs from when the last batch of the sample left, so that a pause, a slow pace or an
uncertain batch does not shorten the time that recipients have to open the email.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.exc import OperationalError

from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError, UserError
from newsletter.issues.parsing.tracking_flags import TRACK_EVERYTHING, Tracked
from newsletter.provider.events import EventKind
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Delivery, Part, Send, Variant
from newsletter.sending.operations.lifecycle import choose_winner
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import NOT_ACCEPTED, UNSETTLED, BatchState, SendState
from newsletter.tracking.event_horizon import final_sends
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.significance import fisher_exact, ratio_interval, wilson_interval

_log = logging.getLogger(__name__)
#: Who the audit log names where no operator chooses the winner.
_BY_TEST = Actor(None, "A/B test")
_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)
_delivery, _event = table_of(Delivery), table_of(EventRow)

#: The significance level: one test in twenty shows a difference where there is none.
_ALPHA = 0.05
#: A click counts as an open: many email clients block the images by which an open is noticed.
_OPENED = (EventKind.OPEN, EventKind.CLICK)
_UNSUBSCRIBED = (EventKind.UNSUBSCRIBE, EventKind.GROUP_UNSUBSCRIBE)
_VERBS = {Measure.OPENS: "opened", Measure.CLICKS: "clicked"}


@dataclass(frozen=True, slots=True)
class Share:
    """A share of recipients, from 0 to 1, and its 95 % interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantResult:
    """A variant in the sample, in recipients. Opens and clicks by bots do not count."""

    label: str
    subject: str
    #: Recipients whom the provider accepted.
    recipients: int
    opened: int
    clicked: int
    unsubscribed: int

    def count(self, measure: Measure) -> int:
        """How many recipients clicked, or for any other measure opened."""
        return self.clicked if measure is Measure.CLICKS else self.opened

    def rate(self, measure: Measure) -> float:
        """Their share, from 0 to 1; 0 while the variant has no recipients."""
        return self.count(measure) / self.recipients if self.recipients else 0.0

    def share(self, measure: Measure) -> Share | None:
        """The rate with its interval; None without recipients."""
        if not self.recipients:
            return None
        low, high = wilson_interval(self.count(measure), self.recipients, 1 - _ALPHA)
        return Share(self.rate(measure), low, high)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best variant compared with another one.

    The same data also picked the best variant, so any pair might have been compared. Therefore p
    and the interval are corrected for all pairs (Bonferroni, which is simple and valid for
    intervals, too).
    """

    measure: Measure
    best: VariantResult
    other: VariantResult
    #: Pairs among the variants.
    pairs: int
    #: Best share / other share, with its 95 % interval; None where the other's share is 0.
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    #: How often chance makes such a difference, 0 to 1 (Fisher's exact test, two-sided).
    p: float | None = None

    @property
    def may_be_chance(self) -> bool:
        """Whether the data does not show that the two differ."""
        return self.p is None or self.p >= _ALPHA

    @property
    def sentence(self) -> str:
        """The result in one sentence, without a full stop."""
        best, other, verb = self.best, self.other, _VERBS[self.measure]
        count = best.count(self.measure)
        if unsent := [variant.label for variant in (best, other) if not variant.recipients]:
            return f"nobody has received {' or '.join(unsent)} yet"
        if not count:
            return f"nobody has {verb} {best.label} or {other.label}"
        chance = "; the difference may be chance" if self.may_be_chance else ""
        if self.ratio is None:
            return f"{best.label} was {verb} by {count:,} recipients, {other.label} by none{chance}"
        pairs = ", corrected for all pairs" if self.pairs > 1 else ""
        return (
            f"{best.label} was {verb} {self.ratio:.2f} times as often as {other.label} "
            f"(95 %{pairs}: {self.low:.2f} to {self.high:.2f}){chance}"
        )


@dataclass(frozen=True, slots=True)
class ABTestReport:
    """The results of a send's A/B test so far."""

    send_id: int
    test: ABTest
    #: In order of label.
    variants: tuple[VariantResult, ...]
    #: By the test's measure; by opens and by clicks where the operator chooses.
    comparisons: tuple[Comparison, ...]
    #: The label of the variant that the rest gets; None before it is chosen.
    winner: str | None
    #: When it is chosen; None until the sample has left, and where the operator chooses.
    decides_at: datetime | None
    #: Recipients of the sample in batches that have not left, or are uncertain.
    waiting: int = 0
    tracked: Tracked = TRACK_EVERYTHING

    def measures(self, measure: Measure) -> bool:
        """Whether this send tracks what ``measure`` needs. An operator's choice needs nothing."""
        return {Measure.OPENS: self.tracked.opens, Measure.CLICKS: self.tracked.clicks}.get(
            measure, True
        )


def report(session: Session, send_id: int) -> ABTestReport:
    """The results of a send's test; SendError if it has no test, or its events are deleted."""
    columns = select(
        *(_send.c.issue_id, _send.c.test, _send.c.winner),
        *(_send.c.track_clicks, _send.c.track_opens),
    )
    row = session.execute(columns.where(_send.c.id == send_id)).one_or_none()
    test = ABTest.from_json(row.test) if row else None
    if row is None or test is None:
        raise SendError("this send has no A/B test", place=f"send {send_id}")
    if final_sends(session, [send_id]):
        won = f"{row.winner} won." if row.winner else "It had no winner."
        raise SendError("its events are deleted", place=f"send {send_id}", hint=won)
    variants = _variant_results(session, send_id, row.issue_id)
    pairs = len(variants) * (len(variants) - 1) // 2
    tracked = Tracked(clicks=row.track_clicks, opens=row.track_opens)
    so_far = ABTestReport(send_id, test, variants, (), row.winner, None, tracked=tracked)
    comparisons = [
        _compare(best, other, measure, pairs)
        for measure in (_VERBS if test.by is Measure.OPERATOR else [test.by])
        if so_far.measures(measure)
        for best, *others in [_ranked(variants, measure)]
        for other in others
    ]
    decides_at, waiting = decision(session, send_id)
    return replace(so_far, comparisons=tuple(comparisons), decides_at=decides_at, waiting=waiting)


def decision(session: Session, send_id: int) -> tuple[datetime | None, int]:
    """``decides_at`` and ``waiting`` of the report, without its results, which cost more."""
    columns = select(_send.c.test, _send.c.started_at).where(_send.c.id == send_id)
    stored, started_at = session.execute(columns).one()
    test = ABTest.from_json(stored)
    waiting, left_at = _sample(session, send_id)
    begin = left_at or started_at
    if test is None or test.by is Measure.OPERATOR or waiting or begin is None:
        return None, waiting
    return begin + test.wait, 0


def winner_of(report: ABTestReport) -> tuple[str, str]:
    """The label of the winner, and why. Of equal rates the first label wins.

    Raises SendError when the operator chooses, or when the send does not track the measure.
    """
    by, place = report.test.by, f"send {report.send_id}"
    if by is Measure.OPERATOR:
        raise SendError("you choose the winner", place=place, hint="Choose one of its variants.")
    if not report.measures(by):
        raise SendError(f"{by} are not measured in this send", place=place)
    verb, ranked = _VERBS[by], _ranked(report.variants, by)
    first = ranked[0].label
    if not ranked[0].count(by):
        return first, f"nobody has {verb} any variant, so it is {first}, the first"
    rates = [f"{one.label} {100 * one.rate(by):.1f} % of {one.recipients:,}" for one in ranked]
    why = f"{verb}: {', '.join(rates)}"
    equal = [one.label for one in ranked if one.rate(by) == ranked[0].rate(by)]
    if len(equal) > 1:
        return first, f"{why}; {' and '.join(equal)} are equal, so it is {first}, the first of them"
    close = " and ".join(c.other.label for c in report.comparisons if c.may_be_chance)
    return first, f"{why}; the lead over {close} may be chance" if close else why


def decide_due(
    session: Session, *, now: datetime, warm_up: WarmUp | None = None
) -> list[tuple[int, str, str]]:
    """Choose each winner that is due; returns (send, label, why). One query if there is none."""
    sends = select(_send.c.id, _send.c.test, _send.c.started_at).order_by(_send.c.id)
    waiting = sends.where(_send.c.state == SendState.SENDING, _send.c.winner.is_(None))
    decided = []
    for row in session.execute(waiting).all():
        try:
            test = ABTest.from_json(row.test)
            if test is None or test.by is Measure.OPERATOR or row.started_at + test.wait > now:
                continue
            with session.begin_nested():
                decides_at, _ = decision(session, row.id)
                if decides_at is None or decides_at > now:
                    continue
                label, why = winner_of(report(session, row.id))
                choose_winner(session, row.id, label, by=_BY_TEST, now=now, warm_up=warm_up)
            decided.append((row.id, label, why))
        except OperationalError:
            raise  # the database is unreachable, which is no fault of this send
        except Exception as error:  # noqa: BLE001 (one send's fault must not stop the others)
            _pause(session, row.id, error, now)
    return decided


def _pause(session: Session, send_id: int, error: Exception, now: datetime) -> None:
    """Pause a send whose winner cannot be chosen, or each next second would fail the same way."""
    if session.scalar(select(_send.c.winner).where(_send.c.id == send_id)):
        return  # an operator chose a moment ago
    problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    why = f"the winner of its test cannot be chosen: {' '.join(problem.split())[:600]}"
    only = [SendState.SENDING]
    if sends.pause(session, send_id, PauseCause.WINNER, reason=why, now=now, only_from=only):
        _log.error("send %s paused itself: %s", send_id, why, extra={"send": send_id})


def _sample(session: Session, send_id: int) -> tuple[int, datetime | None]:
    """Recipients of the sample in unsettled batches, and when its last accepted batch left."""
    row = session.execute(
        select(
            func.sum(_batch.c.size).filter(_batch.c.state.in_(UNSETTLED)),
            func.max(_batch.c.departed_at).filter(_batch.c.state == BatchState.ACCEPTED),
        ).where(_batch.c.send_id == send_id, _batch.c.part == Part.SAMPLE)
    ).one()
    return int(row[0] or 0), row[1]


def _variant_results(session: Session, send_id: int, issue_id: int) -> tuple[VariantResult, ...]:
    in_batch = (_batch.c.send_id == _delivery.c.send_id) & (_batch.c.number == _delivery.c.batch)
    accepted = select(_batch.c.variant_id).select_from(_batch.join(_delivery, in_batch))
    accepted = accepted.where(_batch.c.part == Part.SAMPLE, _delivery.c.state.not_in(NOT_ACCEPTED))
    sizes = accepted.add_columns(func.count()).where(_batch.c.send_id == send_id)
    size = {row[0]: row[1] for row in session.execute(sizes.group_by(_batch.c.variant_id))}
    flags = [
        func.max(case((condition, 1), else_=0)).label(name)
        for name, condition in (
            ("opened", _event.c.kind.in_(_OPENED) & _event.c.by_machine.is_(False)),
            ("clicked", (_event.c.kind == EventKind.CLICK) & _event.c.by_machine.is_(False)),
            ("unsubscribed", _event.c.kind.in_(_UNSUBSCRIBED)),
        )
    ]
    of_send = (_event.c.send_id == send_id, _event.c.kind.in_(_OPENED + _UNSUBSCRIBED))
    recipient = _event.c.subscriber_id
    actions = select(recipient, *flags).where(*of_send).group_by(recipient).subquery()
    # The delivery names the variant, because an event of our own unsubscribe page names no batch.
    # It is looked up by key, because PostgreSQL joins events of which it has no statistics yet in
    # quadratic time.
    key = (_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == actions.c.subscriber_id)
    variant_id = accepted.where(*key).correlate(actions).scalar_subquery().label("variant_id")
    by_variant = select(variant_id, actions).subquery()
    sums = [func.sum(by_variant.c[flag.name]) for flag in flags]
    totals = session.execute(
        select(by_variant.c.variant_id, *sums).group_by(by_variant.c.variant_id)
    )
    counts = {row[0]: row[1:] for row in totals}
    variants = select(_variant.c.id, _variant.c.label, _variant.c.subject)
    rows = session.execute(variants.where(_variant.c.send_id == send_id).order_by("label"))
    none = (0, 0, 0)
    return tuple(
        VariantResult(v.label, v.subject, size.get(v.id, 0), *counts.get(v.id, none)) for v in rows
    )


def _ranked(variants: Sequence[VariantResult], measure: Measure) -> list[VariantResult]:
    """The highest rate first. Equal fractions are equal floats, and stay in order of label."""
    return sorted(variants, key=lambda one: -one.rate(measure))


def _compare(best: VariantResult, other: VariantResult, measure: Measure, pairs: int) -> Comparison:
    compared = Comparison(measure, best, other, pairs)
    if not (best.recipients and other.recipients):
        return compared
    first, second = best.count(measure), other.count(measure)
    table = (first, best.recipients, second, other.recipients)
    compared = replace(compared, p=min(1.0, fisher_exact(*table) * pairs))
    if not second:  # nothing to divide by
        return compared
    ratio = best.rate(measure) / other.rate(measure)
    low, high = ratio_interval(*table, 1 - _ALPHA / pairs)
    return replace(compared, ratio=ratio, low=low, high=high)
