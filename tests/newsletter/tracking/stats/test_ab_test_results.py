"""Tests of variants: people counted as plain Python counts them, and winners by the stated rule."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import ceil, exp, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, select, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SendError
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.tracking.models import EventRow
from newsletter.tracking.retention import prune
from newsletter.tracking.stats import ab_test_results
from newsletter.tracking.stats.ab_test_results import ABTestReport, Comparison, VariantResult
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take

_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)
_delivery, _event = table_of(Delivery), table_of(EventRow)
WAIT = timedelta(hours=4)


class Trial(NamedTuple):
    """A send under way whose first batches are the samples; subscriber → batch, by variant."""

    send: int
    issue: int
    samples: dict[str, dict[int, int]]
    rest: dict[int, int]

    @property
    def people(self) -> dict[int, int]:
        return {**self.rest, **{p: b for arm in self.samples.values() for p, b in arm.items()}}

    def event(self, person: int, kind: str, *, at: int = 0, **more: Any) -> dict[str, Any]:
        """As the provider posts it."""
        fields = {"nl_issue": str(self.issue), "nl_batch": str(self.people.get(person, 1))}
        return entry(self.send, person, kind, at=1774594800 + at, **{**fields, **more})


def make_people(database: Engine, count: int) -> list[int]:
    with transaction(database) as session:
        return [add_person(session, f"p{n}@example.org") for n in range(1, count + 1)]


def make_trial(
    database: Engine,
    *,
    labels: str = "AB",
    by: Measure = Measure.OPENS,
    slug: str = "first",
    handed_over: bool = True,
) -> Trial:
    """Two batches of two for each variant, and the rest."""
    send = make_send(database, slug=slug)
    make_plan(database, send, batch_size=2)
    with transaction(database) as session:
        first = session.execute(select(_variant).where(_variant.c.send_id == send)).one()._asdict()
        first.pop("id")
        session.connection().execute(
            _variant.insert(),
            [{**first, "label": label, "subject": f"Subject {label}"} for label in labels[1:]],
        )
        ids = dict(
            session.execute(
                select(_variant.c.label, _variant.c.id).where(_variant.c.send_id == send)
            ).all()
        )
        test = ABTest(share=0.5, by=by, wait=WAIT).to_json()
        session.execute(update(_send).where(_send.c.id == send).values(test=test))
        people = session.execute(
            select(_delivery.c.subscriber_id, _delivery.c.batch).where(_delivery.c.send_id == send)
        ).all()
        numbers = sorted({row.batch for row in people})
        label_of = {n: labels[i // 2] for i, n in enumerate(numbers[: 2 * len(labels)])}
        for number in numbers:
            label = label_of.get(number)
            session.execute(
                update(_batch)
                .where(_batch.c.send_id == send, _batch.c.number == number)
                .values(part="sample" if label else "rest", variant_id=ids[label or "A"])
            )
        if handed_over:
            accept(session, send, *label_of)
        return Trial(
            send,
            send_status.find(session, send).issue_id,
            {label: {p: b for p, b in people if label_of.get(b) == label} for label in labels},
            {p: b for p, b in people if b not in label_of},
        )


def accept(session: Any, send: int, *numbers: int) -> None:
    """As if the provider had taken these batches."""
    session.execute(
        update(_batch)
        .where(_batch.c.send_id == send, _batch.c.number.in_(numbers))
        .values(state="accepted", settled_at=NOW)
    )
    session.execute(
        update(_delivery)
        .where(
            _delivery.c.send_id == send,
            _delivery.c.batch.in_(numbers),
            _delivery.c.state == "planned",
        )
        .values(state="accepted")
    )


def walk(database: Engine, send: int, number: int, *states: str, **values: Any) -> None:
    """Let a batch go through these states."""
    with transaction(database) as session:
        for state in states:
            session.execute(
                update(_batch)
                .where(_batch.c.send_id == send, _batch.c.number == number)
                .values(state=state, **values)
            )


def found(database: Engine, send: int) -> ABTestReport:
    with reading(database) as session:
        return ab_test_results.report(session, send)


def counted(report: ABTestReport) -> dict[str, tuple[int, int, int, int]]:
    return {
        arm.label: (arm.recipients, arm.opened, arm.clicked, arm.unsubscribed)
        for arm in report.variants
    }


def decide(database: Engine, after: timedelta = WAIT) -> list[tuple[int, str, str]]:
    with transaction(database) as session:
        return ab_test_results.decide_due(session, now=NOW + after)


def winner(database: Engine, send: int) -> str | None:
    with reading(database) as session:
        return session.scalar(select(_send.c.winner).where(_send.c.id == send))


@contextmanager
def statements(database: Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(database, "before_cursor_execute", note)
    yield seen
    event.remove(database, "before_cursor_execute", note)


def arm(label: str, done: int, people: int) -> VariantResult:
    return VariantResult(label, "", people, opened=done, clicked=done, unsubscribed=0)


def compared(*arms: VariantResult, by: Measure = Measure.OPENS) -> list[Comparison]:
    best, *others = ab_test_results._ranked(arms, by)
    pairs = len(arms) * (len(arms) - 1) // 2
    return [ab_test_results._compare(best, other, by, pairs) for other in others]


def settled(*arms: VariantResult, by: Measure = Measure.OPENS) -> tuple[str, str]:
    test = ABTest(share=0.2, by=by, wait=WAIT)
    return ab_test_results.winner_of(
        ABTestReport(7, test, arms, tuple(compared(*arms, by=by)), None, None)
    )


# Counting


def test_people_are_counted_once_and_machines_not_at_all(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database)
    a, b, rest = list(test.samples["A"]), list(test.samples["B"]), list(test.rest)
    take(
        database,
        *(test.event(a[0], "open", at=n) for n in range(3)),
        test.event(a[1], "click", url="https://x.example"),
        test.event(a[1], "open"),
        test.event(a[2], "open", sg_machine_open=True),
        test.event(b[0], "open"),
        test.event(b[0], "unsubscribe"),
        test.event(b[0], "group_unsubscribe"),
        test.event(rest[0], "open"),
        test.event(rest[0], "click", url="https://x.example"),
    )
    report = found(database, test.send)
    assert counted(report) == {"A": (4, 2, 1, 0), "B": (4, 1, 0, 1)}
    assert report.variants[1].subject == "Subject B"
    assert report.variants[0].share(Measure.CLICKS).rate == 0.25


def test_leaving_by_our_own_page_counts_although_it_knows_no_batch(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database)
    person = next(iter(test.samples["B"]))
    take(database, test.event(person, "unsubscribe", nl_batch=""))
    assert counted(found(database, test.send))["B"] == (4, 0, 0, 1)


def test_only_people_to_whom_it_was_handed_over_are_counted(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database, handed_over=False)
    assert counted(found(database, test.send)) == {"A": (0, 0, 0, 0), "B": (0, 0, 0, 0)}
    skipped = next(iter(test.samples["A"]))
    with transaction(database) as session:
        session.execute(
            update(_delivery).where(_delivery.c.subscriber_id == skipped).values(state="skipped")
        )
        accept(session, test.send, *test.samples["A"].values())
    bounced = list(test.samples["A"])[1]
    take(database, test.event(bounced, "bounce"))
    assert counted(found(database, test.send)) == {"A": (3, 0, 0, 0), "B": (0, 0, 0, 0)}


def test_events_of_another_send_are_none_of_ours(database: Engine) -> None:
    make_people(database, 10)
    ours, other = make_trial(database), make_trial(database, slug="second")
    person = next(iter(ours.samples["A"]))
    take(database, other.event(person, "open"))
    assert counted(found(database, ours.send))["A"] == (4, 0, 0, 0)
    assert counted(found(database, other.send))["A"] == (4, 1, 0, 0)


def test_the_sample_stays_the_sample_when_the_rest_gets_the_winner(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database)
    with transaction(database) as session:
        assert send_lifecycle.choose_winner(
            session, test.send, "B", by=Actor(None, "operator"), now=NOW
        ) == len(test.rest)
        accept(session, test.send, *test.rest.values())
    take(database, *(test.event(person, "open") for person in test.rest))
    report = found(database, test.send)
    assert counted(report) == {"A": (4, 0, 0, 0), "B": (4, 0, 0, 0)}
    assert report.winner == "B"


@pytest.mark.slow
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_counting_equals_plain_counting(
    database: Engine, trials: tuple[Trial, Trial], data: st.DataObject
) -> None:
    ours = trials[0]
    with transaction(database) as session:
        session.execute(delete(_event))
    happening = st.tuples(
        st.sampled_from(trials),
        st.sampled_from([*sorted(ours.people), 10**9]),
        st.sampled_from(["open", "machine open", "click", "unsubscribe", "delivered"]),
        st.integers(0, 2),
    )
    stream = data.draw(st.lists(happening, max_size=40))
    posts = [
        test.event(
            person,
            kind.removeprefix("machine "),
            at=at,
            sg_machine_open=kind == "machine open",
            sg_message_id=f"{test.send}.{person}.{kind}",
        )
        for test, person, kind, at in stream
    ]
    cut = data.draw(st.integers(0, len(posts)))
    take(database, *posts[:cut])
    # Posts come again, wholly or in part.
    take(database, *posts[data.draw(st.integers(0, cut)) :])
    expected = {}
    for label, sample in ours.samples.items():
        did = [(p, kind) for test, p, kind, _ in stream if test is ours and p in sample]
        opened = {p for p, kind in did if kind in {"open", "click"}}
        clicked = {p for p, kind in did if kind == "click"}
        left = {p for p, kind in did if kind == "unsubscribe"}
        expected[label] = (len(sample), len(opened), len(clicked), len(left))
    assert counted(found(database, ours.send)) == expected


@pytest.fixture
def trials(database: Engine) -> tuple[Trial, Trial]:
    """Two sends of different issues to the same people."""
    make_people(database, 12)
    return make_trial(database), make_trial(database, slug="second")


# Statistics


@pytest.mark.parametrize(
    ("done", "people", "low", "high"),
    [
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion,
        # Statistics in Medicine 17 (1998), table I, method 3 (Wilson's score interval).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_textbook(
    done: int, people: int, low: float, high: float
) -> None:
    share = arm("A", done, people).share(Measure.OPENS)
    assert share is not None
    assert share.rate == done / people
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


def test_nobody_has_no_share() -> None:
    assert arm("A", 0, 0).share(Measure.CLICKS) is None


def test_the_ratio_is_that_of_the_textbook() -> None:
    # Heart attacks with placebo and aspirin: A. Agresti, An Introduction to Categorical Data
    # Analysis, 2nd edition (2007), section 2.2: 1.82, from 1.43 to 2.30, as it rounds on its way.
    (comparison,) = compared(arm("A", 104, 11037), arm("B", 189, 11034))
    assert comparison.ratio == pytest.approx(1.82, abs=0.005)
    assert comparison.low == pytest.approx(1.43, abs=0.01)
    assert comparison.high == pytest.approx(2.30, abs=0.01)
    # The same by hand.
    error = sqrt(1 / 189 - 1 / 11034 + 1 / 104 - 1 / 11037)
    ratio = (189 / 11034) / (104 / 11037)
    assert comparison.low == pytest.approx(ratio * exp(-1.959964 * error), rel=1e-6)
    assert comparison.high == pytest.approx(ratio * exp(1.959964 * error), rel=1e-6)
    assert comparison.sentence == "B was opened 1.82 times as often as A (95 %: 1.43 to 2.31)"
    assert not comparison.may_be_chance


def test_p_is_that_of_the_textbook() -> None:
    # The lady who tasted tea, 3 right of 4: Agresti, section 2.6.2, two-sided p = 0.486.
    (comparison,) = compared(arm("A", 1, 4), arm("B", 3, 4))
    assert comparison.p == pytest.approx(0.486, abs=0.0005)
    assert comparison.may_be_chance
    assert comparison.sentence.endswith("; the difference may be chance")


def test_more_variants_make_more_pairs_and_wider_intervals() -> None:
    # One of 20 such tests of two variants would be called clear; of three, none.
    two = compared(arm("A", 200, 1000), arm("B", 240, 1000))
    three = compared(arm("A", 200, 1000), arm("B", 240, 1000), arm("C", 200, 1000))
    assert [c.other.label for c in three] == ["A", "C"]
    assert three[0].p == pytest.approx(3 * two[0].p)
    assert (two[0].may_be_chance, three[0].may_be_chance) == (False, True)
    assert three[0].ratio == two[0].ratio
    assert three[0].low < 1 < two[0].low < two[0].high < three[0].high
    assert "(95 %, corrected for all pairs: 0." in three[0].sentence


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ((0, 0), (0, 0), "nobody has received A or B yet"),
        ((0, 0), (3, 10), "nobody has received A yet"),
        ((0, 10), (0, 10), "nobody has clicked A or B"),
        (
            (0, 10),
            (3, 10),
            "B was clicked by 3 recipients, A by none; the difference may be chance",
        ),
        ((0, 1000), (30, 1000), "B was clicked by 30 recipients, A by none"),
        (
            (10, 10),
            (10, 10),
            (
                "A was clicked 1.00 times as often as B (95 %: 1.00 to 1.00); "
                "the difference may be chance"
            ),
        ),
        (
            (3, 10),
            (10, 10),
            "B was clicked 3.33 times as often as A (95 %: 1.29 to 8.59)",
        ),
    ],
)
def test_nothing_and_everything_are_told_without_a_stumble(
    a: tuple[int, int], b: tuple[int, int], sentence: str
) -> None:
    (comparison,) = compared(arm("A", *a), arm("B", *b), by=Measure.CLICKS)
    assert comparison.sentence == sentence


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=2, max_size=5))
def test_any_figures_make_a_report(figures: list[tuple[int, int]]) -> None:
    arms = [arm("ABCDE"[n], min(pair), max(pair)) for n, pair in enumerate(figures)]
    label, why = settled(*arms)
    best = next(one for one in arms if one.label == label)
    assert why
    for one in arms:
        assert one.opened * best.recipients <= best.opened * one.recipients or not best.recipients
        share = one.share(Measure.OPENS)
        assert share is None or 0 <= share.low <= share.rate <= share.high <= 1
    for comparison in compared(*arms):
        assert comparison.sentence
        assert comparison.p is None or 0 <= comparison.p <= 1
        if comparison.ratio is not None:
            assert 0 < comparison.low <= comparison.ratio <= comparison.high


# The winner


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (
            [(200, 1000), (260, 1000)],
            ("B", "opened: B 26.0 % of 1,000, A 20.0 % of 1,000"),
        ),
        (
            [(4, 10), (5, 10)],
            ("B", "opened: B 50.0 % of 10, A 40.0 % of 10; the lead over A may be chance"),
        ),
        (
            [(1, 10), (2, 10), (4, 20)],
            (
                "B",
                (
                    "opened: B 20.0 % of 10, C 20.0 % of 20, A 10.0 % of 10; "
                    "B and C are equal, so it is B, the first of them"
                ),
            ),
        ),
        ([(0, 10), (0, 20)], ("A", "nobody has opened any variant, so it is A, the first")),
        ([(0, 0), (0, 0)], ("A", "nobody has opened any variant, so it is A, the first")),
    ],
)
def test_the_highest_share_wins_and_the_first_of_several(
    figures: list[tuple[int, int]], expected: tuple[str, str]
) -> None:
    assert settled(*(arm("ABC"[n], *pair) for n, pair in enumerate(figures))) == expected


def test_where_you_choose_nothing_else_does() -> None:
    with pytest.raises(SendError, match="you choose"):
        settled(arm("A", 1, 2), arm("B", 2, 2), by=Measure.OPERATOR)


def test_a_send_without_a_test_has_no_report(database: Engine) -> None:
    make_people(database, 1)
    send = make_send(database)
    for number in (send, 4711):
        with pytest.raises(SendError, match="no A/B test") as caught:
            found(database, number)
        assert caught.value.place == f"send {number}"


def test_the_report_says_when_it_is_decided_and_compares_by_the_measure(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database, by=Measure.CLICKS)
    by_hand = make_trial(database, by=Measure.OPERATOR, slug="second")
    report = found(database, test.send)
    assert (report.winner, report.decides_at) == (None, NOW + WAIT)
    assert [c.measure for c in report.comparisons] == [Measure.CLICKS]
    report = found(database, by_hand.send)
    assert (report.winner, report.decides_at) == (None, None)
    assert [c.measure for c in report.comparisons] == [Measure.OPENS, Measure.CLICKS]


def test_the_winner_is_chosen_at_the_set_time_and_once(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database)
    take(database, *(test.event(person, "open") for person in test.samples["B"]))
    assert decide(database, WAIT - timedelta(seconds=1)) == []
    assert decide(database) == [(test.send, "B", "opened: B 100.0 % of 4, A 0.0 % of 4")]
    assert decide(database) == []
    with reading(database) as session:
        parts = session.execute(
            select(_batch.c.number, _batch.c.part).where(_batch.c.send_id == test.send)
        ).all()
    assert {number for number, part in parts if part == "winner"} == set(test.rest.values())


def test_clicks_decide_where_clicks_are_asked_for(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database, by=Measure.CLICKS)
    take(
        database,
        *(test.event(person, "open") for person in test.samples["A"]),
        test.event(next(iter(test.samples["B"])), "click", url="https://x.example"),
    )
    assert [(send, label) for send, label, _ in decide(database)] == [(test.send, "B")]


def test_what_is_paused_or_yours_to_choose_waits(
    database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_people(database, 10)
    paused, by_hand = make_trial(database), make_trial(database, by=Measure.OPERATOR, slug="b")
    with transaction(database) as session:
        send_lifecycle.pause(
            session, paused.send, by=Actor(None, "operator"), reason="wait", now=NOW
        )
    assert decide(database) == []
    with transaction(database) as session:
        send_lifecycle.resume(session, paused.send, by=Actor(None, "operator"), now=NOW)
    assert [send for send, _, _ in decide(database)] == [paused.send]
    assert winner(database, by_hand.send) is None
    assert caplog.messages == []


@pytest.mark.parametrize("trouble", [SendError("chosen a moment ago"), RuntimeError("broken")])
def test_the_trouble_of_one_send_does_not_stop_another(
    database: Engine, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    make_people(database, 10)
    first, second = make_trial(database), make_trial(database, slug="second")

    def choose_winner(session: Any, send: int, label: str, **how: Any) -> int:
        count = send_lifecycle.choose_winner(session, send, label, **how)
        if send == first.send:
            raise trouble
        return count

    monkeypatch.setattr(ab_test_results, "choose_winner", choose_winner)
    assert [send for send, _, _ in decide(database)] == [second.send]
    # What the failed one had written is taken back.
    assert (winner(database, first.send), winner(database, second.send)) == (None, "A")


def test_a_winner_that_cannot_be_chosen_is_asked_for_once(
    database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    make_people(database, 10)
    first, second = make_trial(database), make_trial(database, slug="second")
    with transaction(database) as session:
        session.execute(
            update(_send).where(_send.c.id == first.send).values(test={"by": "applause"})
        )
    assert [send for send, _, _ in decide(database)] == [second.send]
    assert decide(database) == []
    (said,) = caplog.messages
    assert f"send {first.send} paused itself: the winner of its test cannot be chosen" in said
    assert "Traceback" not in caplog.text
    with transaction(database) as session:
        stands = send_status.find(session, first.send)
        assert (stands.state, stands.reason in said) == ("paused", True)
        # What its reason advises.
        assert send_lifecycle.choose_winner(
            session, first.send, "B", by=Actor(None, "operator"), now=NOW
        ) == len(first.rest)
        send_lifecycle.resume(session, first.send, by=Actor(None, "operator"), now=NOW)
    assert decide(database) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "states", [[], ["claimed", "in_flight"], ["uncertain"]], ids=["waits", "under way", "in doubt"]
)
def test_nothing_is_decided_while_a_part_of_the_sample_is_on_its_way(
    database: Engine, states: list[str]
) -> None:
    """As after a long pause, or while an answer is missing."""
    make_people(database, 10)
    test = make_trial(database, handed_over=False)
    *others, last = sorted({b for arm in test.samples.values() for b in arm.values()})
    with transaction(database) as session:
        accept(session, test.send, *others)
    walk(database, test.send, last, *states)
    assert decide(database, 3 * WAIT) == []
    report = found(database, test.send)
    assert (report.decides_at, report.waiting) == (None, 2)
    left = NOW + 2 * WAIT
    walk(database, test.send, last, "accepted", departed_at=left)
    # Its readers have as long to open it as the test says.
    assert found(database, test.send).decides_at == left + WAIT
    assert decide(database, 3 * WAIT - timedelta(seconds=1)) == []
    assert [send for send, _, _ in decide(database, 3 * WAIT)] == [test.send]


def test_a_sample_of_which_nobody_was_left_does_not_wait(database: Engine) -> None:
    make_people(database, 10)
    test = make_trial(database, handed_over=False)
    for arm in test.samples.values():
        for number in set(arm.values()):
            walk(database, test.send, number, "claimed", "skipped")
    assert [(send, label) for send, label, _ in decide(database)] == [(test.send, "A")]


def test_a_second_with_nothing_to_decide_costs_one_query(database: Engine) -> None:
    make_people(database, 10)
    make_trial(database)
    with statements(database) as seen:
        assert decide(database, timedelta(0)) == []
    assert len([text for text in seen if not text.startswith("BEGIN")]) == 1


# The page


def people_needed(one: float, other: float) -> float:
    """In each variant, for a two-sided 5 % and 80 % power.

    J. L. Fleiss, Statistical Methods for Rates and Proportions, 3rd edition (2003),
    formula 4.14 without the correction for continuity.
    """
    z, mean = NormalDist().inv_cdf, (one + other) / 2
    noise = z(0.975) * sqrt(2 * mean * (1 - mean)) + z(0.8) * sqrt(
        one * (1 - one) + other * (1 - other)
    )
    return (noise / (one - other)) ** 2


def test_the_sizes_on_the_page_are_those_of_the_formula() -> None:
    page = (Path(__file__).parents[4] / "docs" / "guides" / "ab-tests.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) % \| ([\d.]+) % \| ([\d,]+) \|", page, re.MULTILINE)
    assert len(rows) >= 4
    for one, other, people in rows:
        needed = people_needed(float(one) / 100, float(other) / 100)
        assert int(people.replace(",", "")) == ceil(needed / 10) * 10


def test_a_report_without_its_events_says_so_and_who_won(database: Engine) -> None:
    make_people(database, 6)
    one = make_trial(database)
    take(database, one.event(next(iter(one.samples["A"])), "open"))
    with transaction(database) as session:
        ab_test_results.decide_due(session, now=NOW + WAIT)
    prune.prune(database, prune.RetentionPolicy(timedelta(days=90)), now=NOW + timedelta(days=400))
    with pytest.raises(SendError, match="its events are deleted") as caught:
        found(database, one.send)
    assert caught.value.hint == "A won."
