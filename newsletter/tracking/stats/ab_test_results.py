"""What a test of variants found, and the choice of its winner.

Only the sample is counted, by people: whoever opened ten times opened once. The winner is
the variant with the highest share at the set time, whether or not chance explains its lead:
the rest of the audience has to get something. The report says whether it may be chance.
The time runs from when the last of the sample has left: a pause, a rate or a doubt takes
nothing from what its readers have to open it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.exc import OperationalError

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError, UserError
from newsletter.issues.parsing.tracking_flags import EVERYTHING, Tracked
from newsletter.provider.events import EventKind
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.ledger import sends
from newsletter.sending.ledger.reschedule import choose_winner
from newsletter.sending.models import Batch, Delivery, Part, Send, Variant
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import UNSETTLED, BatchState, DeliveryState, SendState
from newsletter.tracking.event_horizon import final
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats.significance import fisher_exact, ratio_interval, wilson_interval

_log = logging.getLogger(__name__)
_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)
_delivery, _event = table_of(Delivery), table_of(EventRow)

#: How often a difference is claimed where there is none: once in twenty tests.
_ALPHA = 0.05
_NOT_HANDED_OVER = (DeliveryState.PLANNED, DeliveryState.SKIPPED, DeliveryState.REJECTED)
#: Many mail clients block pictures, and with them the open; who clicks has surely read.
_OPENED = (EventKind.OPEN, EventKind.CLICK)
_LEFT = (EventKind.UNSUBSCRIBE, EventKind.GROUP_UNSUBSCRIBE)
_DONE = {Measure.OPENS: "opened", Measure.CLICKS: "clicked"}


@dataclass(frozen=True, slots=True)
class Share:
    """A share of people, from 0 to 1, and its 95 % interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantResult:
    """A variant in the sample; figures are people, machines' opens and clicks left out."""

    label: str
    subject: str
    #: To whom it was handed over.
    people: int
    opened: int
    clicked: int
    unsubscribed: int

    def count(self, measure: Measure) -> int:
        """How many people did what is measured; opens unless it is clicks."""
        return self.clicked if measure is Measure.CLICKS else self.opened

    def rate(self, measure: Measure) -> float:
        """Their share, from 0 to 1; 0 while nobody has got the variant."""
        return self.count(measure) / self.people if self.people else 0.0

    def share(self, measure: Measure) -> Share | None:
        """With its interval; None without people."""
        if not self.people:
            return None
        low, high = wilson_interval(self.count(measure), self.people, 1 - _ALPHA)
        return Share(self.rate(measure), low, high)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best variant against another one.

    The same figures told which is best, so any two might have been compared: p and interval
    are corrected for all pairs of variants (Bonferroni: simple, and valid for intervals, too).
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
        """Whether the figures do not show that the two differ."""
        return self.p is None or self.p >= _ALPHA

    @property
    def sentence(self) -> str:
        """The finding in plain words, without a full stop."""
        best, other, done = self.best, self.other, _DONE[self.measure]
        count = best.count(self.measure)
        if unsent := [arm.label for arm in (best, other) if not arm.people]:
            return f"nobody has got {' or '.join(unsent)} yet"
        if not count:
            return f"nobody has {done} {best.label} or {other.label}"
        chance = "; the difference may be chance" if self.may_be_chance else ""
        if self.ratio is None:
            return f"{best.label} was {done} by {count:,} people, {other.label} by nobody{chance}"
        pairs = ", all pairs together" if self.pairs > 1 else ""
        return (
            f"{best.label} was {done} {self.ratio:.2f} times as often as {other.label} "
            f"(95 %{pairs}: {self.low:.2f} to {self.high:.2f}){chance}"
        )


@dataclass(frozen=True, slots=True)
class ABTestReport:
    """A send's test as it stands, its arms by label."""

    send_id: int
    test: ABTest
    arms: tuple[VariantResult, ...]
    #: By the test's measure; by opens and by clicks where the operator chooses.
    comparisons: tuple[Comparison, ...]
    #: The label that the rest gets; None before it is chosen.
    winner: str | None
    #: When it is chosen; None until the sample has left, and where the operator chooses.
    decides_at: datetime | None
    #: People of the sample who have not got it yet, or of whom that is not known.
    waiting: int = 0
    tracked: Tracked = EVERYTHING

    def measures(self, measure: Measure) -> bool:
        """Whether what is chosen by is measured in this send; an operator's choice always is."""
        return {Measure.OPENS: self.tracked.opens, Measure.CLICKS: self.tracked.clicks}.get(
            measure, True
        )


def report(session: Session, send_id: int) -> ABTestReport:
    """What the test of a send has found so far; SendError without a test, or without its events."""
    wanted = select(
        *(_send.c.issue_id, _send.c.test, _send.c.winner),
        *(_send.c.track_clicks, _send.c.track_opens),
    )
    row = session.execute(wanted.where(_send.c.id == send_id)).one_or_none()
    test = ABTest.from_json(row.test) if row else None
    if row is None or test is None:
        raise SendError("there is no test of variants", place=f"send {send_id}")
    if final(session, [send_id]):
        won = f"{row.winner} won." if row.winner else "It had no winner."
        raise SendError("its events are not kept any more", place=f"send {send_id}", hint=won)
    arms, by_hand = _arms(session, send_id, row.issue_id), test.by is Measure.OPERATOR
    pairs = len(arms) * (len(arms) - 1) // 2
    tracked = Tracked(clicks=row.track_clicks, opens=row.track_opens)
    found = ABTestReport(send_id, test, arms, (), row.winner, None, tracked=tracked)
    comparisons = [
        _compare(best, other, measure, pairs)
        for measure in (_DONE if by_hand else [test.by])
        if found.measures(measure)
        for best, *others in [_ranked(arms, measure)]
        for other in others
    ]
    decides_at, waiting = decision(session, send_id)
    return replace(found, comparisons=tuple(comparisons), decides_at=decides_at, waiting=waiting)


def decision(session: Session, send_id: int) -> tuple[datetime | None, int]:
    """Report's decides_at and waiting, without the figures, which cost more."""
    wanted = select(_send.c.test, _send.c.started_at).where(_send.c.id == send_id)
    stored, started_at = session.execute(wanted).one()
    test = ABTest.from_json(stored)
    waiting, left_at = _sample(session, send_id)
    began = left_at or started_at
    if test is None or test.by is Measure.OPERATOR or waiting or began is None:
        return None, waiting
    return began + test.wait, 0


def winner_of(report: ABTestReport) -> tuple[str, str]:
    """The label with the highest share, the first of several, and why; SendError by hand."""
    by, place = report.test.by, f"send {report.send_id}"
    if by is Measure.OPERATOR:
        raise SendError("you choose the winner", place=place, hint="See newsletter sends winner.")
    if not report.measures(by):
        raise SendError(f"{by} are not measured in this send", place=place)
    done, arms = _DONE[by], _ranked(report.arms, by)
    first = arms[0].label
    if not arms[0].count(by):
        return first, f"nobody has {done} any variant, so it is {first}, the first"
    shares = [f"{arm.label} {100 * arm.rate(by):.1f} % of {arm.people:,}" for arm in arms]
    why = f"{done}: {', '.join(shares)}"
    level = [arm.label for arm in arms if arm.rate(by) == arms[0].rate(by)]
    if len(level) > 1:
        return first, f"{why}; {' and '.join(level)} are level, so it is {first}, the first of them"
    doubtful = " and ".join(c.other.label for c in report.comparisons if c.may_be_chance)
    return first, f"{why}; the lead over {doubtful} may be chance" if doubtful else why


def decide_due(
    session: Session, *, now: datetime, warm_up: WarmUp | None = None
) -> list[tuple[int, str, str]]:
    """Choose each winner whose time has come: (send, label, why). One query if there is none."""
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
                choose_winner(session, row.id, label, now=now, warm_up=warm_up)
            decided.append((row.id, label, why))
        except OperationalError:
            raise  # the database is away, which says nothing of this send
        except Exception as error:  # noqa: BLE001 (whatever it is, the other sends are waiting)
            _set_aside(session, row.id, error, now)
    return decided


def _set_aside(session: Session, send_id: int, error: Exception, now: datetime) -> None:
    """Pause a send whose winner cannot be chosen: asked every second it would say so for ever."""
    if session.scalar(select(_send.c.winner).where(_send.c.id == send_id)):
        return  # an operator chose a moment ago
    said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    why = f"the winner of its test cannot be chosen: {' '.join(said.split())[:600]}"
    only = [SendState.SENDING]
    if sends.pause(session, send_id, PauseCause.WINNER, reason=why, now=now, only_from=only):
        _log.error("send %s paused itself: %s", send_id, why)


def _sample(session: Session, send_id: int) -> tuple[int, datetime | None]:
    """How many people's batches are open, and when the last of the others left."""
    row = session.execute(
        select(
            func.sum(_batch.c.size).filter(_batch.c.state.in_(UNSETTLED)),
            func.max(_batch.c.departed_at).filter(_batch.c.state == BatchState.ACCEPTED),
        ).where(_batch.c.send_id == send_id, _batch.c.part == Part.SAMPLE)
    ).one()
    return int(row[0] or 0), row[1]


def _arms(session: Session, send_id: int, issue_id: int) -> tuple[VariantResult, ...]:
    in_batch = (_batch.c.send_id == _delivery.c.send_id) & (_batch.c.number == _delivery.c.batch)
    got = select(_batch.c.variant_id).select_from(_batch.join(_delivery, in_batch))
    got = got.where(_batch.c.part == Part.SAMPLE, _delivery.c.state.not_in(_NOT_HANDED_OVER))
    people = got.add_columns(func.count()).where(_batch.c.send_id == send_id)
    size = {row[0]: row[1] for row in session.execute(people.group_by(_batch.c.variant_id))}
    flags = [
        func.max(case((deed, 1), else_=0)).label(name)
        for name, deed in (
            ("opened", _event.c.kind.in_(_OPENED) & _event.c.by_machine.is_(False)),
            ("clicked", (_event.c.kind == EventKind.CLICK) & _event.c.by_machine.is_(False)),
            ("unsubscribed", _event.c.kind.in_(_LEFT)),
        )
    ]
    ours = (_event.c.send_id == send_id, _event.c.kind.in_(_OPENED + _LEFT))
    who = _event.c.subscriber_id
    did = select(who, *flags).where(*ours).group_by(who).subquery()
    # The delivery tells who got which variant: our own page for leaving knows no batch. Looked
    # up by key: PostgreSQL joins events of which it has no statistics yet in quadratic time.
    key = (_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == did.c.subscriber_id)
    variant_id = got.where(*key).correlate(did).scalar_subquery().label("variant_id")
    per = select(variant_id, did).subquery()
    counts = [func.sum(per.c[flag.name]) for flag in flags]
    deeds = session.execute(select(per.c.variant_id, *counts).group_by(per.c.variant_id))
    done = {row[0]: row[1:] for row in deeds}
    variants = select(_variant.c.id, _variant.c.label, _variant.c.subject)
    rows = session.execute(variants.where(_variant.c.send_id == send_id).order_by("label"))
    none = (0, 0, 0)
    return tuple(
        VariantResult(v.label, v.subject, size.get(v.id, 0), *done.get(v.id, none)) for v in rows
    )


def _ranked(arms: Sequence[VariantResult], measure: Measure) -> list[VariantResult]:
    """The highest share first; equal fractions are equal floats, and stay in order of label."""
    return sorted(arms, key=lambda arm: -arm.rate(measure))


def _compare(best: VariantResult, other: VariantResult, measure: Measure, pairs: int) -> Comparison:
    compared = Comparison(measure, best, other, pairs)
    if not (best.people and other.people):
        return compared
    first, second = best.count(measure), other.count(measure)
    figures = (first, best.people, second, other.people)
    compared = replace(compared, p=min(1.0, fisher_exact(*figures) * pairs))
    if not second:  # nothing to divide by
        return compared
    ratio = best.rate(measure) / other.rate(measure)
    low, high = ratio_interval(*figures, 1 - _ALPHA / pairs)
    return replace(compared, ratio=ratio, low=low, high=high)
