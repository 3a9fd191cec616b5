"""Planning: exactly those who should get the issue, each once, or nobody."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from newsletter.errors import NothingToDoError, SegmentError, SendError
from newsletter.provider.gateway import Refused
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.planner import plan
from newsletter.sending.queries import send_status
from subscribers.consent import suppression
from subscribers.models import Subscription, SuppressionReason
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_plan,
    make_send,
    make_topic,
    states,
)


def test_everybody_reachable_gets_one_delivery_in_batches_of_the_size(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    assert make_plan(database, send, batch_size=2) == 5
    assert states(database, send) == dict.fromkeys(five, ("planned", None))
    assert [(b.number, b.size, b.state) for b in batches(database, send)] == [
        (1, 2, "pending"),
        (2, 2, "pending"),
        (3, 1, "pending"),
    ]


def test_whoever_may_not_be_mailed_is_left_out_and_counted_by_reason(
    database: Engine, five: list[int]
) -> None:
    with transaction(database) as session:
        suppression.add(session, five[:1], SuppressionReason.BOUNCED, at=NOW, evidence="x")
        suppression.add(session, five[1:2], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
        add_person(session, "new@example.org", confirmed_at=None)
        add_person(session, "away@example.org", paused_until=NOW + timedelta(days=1))
        back = add_person(session, "back@example.org", paused_until=NOW - timedelta(days=1))
    send = make_send(database)
    assert make_plan(database, send) == 4
    assert set(states(database, send)) == {*five[2:], back}
    with reading(database) as session:
        assert send_status.find(session, send).excluded_counts == {
            "bounced": 1,
            "paused": 1,
            "unconfirmed": 1,
            "unsubscribed": 1,
        }


def test_an_issue_on_a_topic_goes_to_those_who_chose_it(database: Engine, five: list[int]) -> None:
    topic = make_topic(database, "engineering")
    with transaction(database) as session:
        session.add(Subscription(subscriber_id=five[3], topic_id=topic, since=NOW))
    send = make_send(database, topics="engineering")
    assert make_plan(database, send) == 1
    assert set(states(database, send)) == {five[3]}


def test_somebody_in_two_segments_gets_one_mail(database: Engine, five: list[int]) -> None:
    with transaction(database) as session:
        segment_store.save(session, "all", "", now=NOW)
        segment_store.save(session, "alike", 'email != ""', now=NOW)
    send = make_send(database, "all", "alike")
    assert make_plan(database, send) == 5


def test_a_second_send_of_the_same_issue_reaches_only_those_who_have_not_had_it(
    database: Engine, five: list[int]
) -> None:
    make_plan(database, make_send(database))
    with pytest.raises(NothingToDoError) as caught:
        make_send(database)
    assert "5 had this issue" in str(caught.value.hint)
    with transaction(database) as session:
        late = add_person(session, "late@example.org")
    again = make_send(database)
    assert make_plan(database, again) == 1
    assert set(states(database, again)) == {late}
    with reading(database) as session:
        assert send_status.find(session, again).excluded_counts == {"had this issue": 5}


def test_a_send_is_planned_while_another_of_the_same_issue_goes_out(
    database: Engine, five: list[int]
) -> None:
    first = make_send(database)
    make_plan(database, first, batch_size=1)
    with transaction(database) as session:
        add_person(session, "late@example.org")
    again = make_send(database)
    # SQLite has one writer: there it goes out before.
    on_sqlite = database.dialect.name == "sqlite"
    if on_sqlite:
        assert dispatcher(database, FakeGateway()).send_next()
    with transaction(database, snapshot=True) as session:
        send_status.find(session, again)  # it sees what was before
        if not on_sqlite:
            assert dispatcher(database, FakeGateway()).send_next()
        assert plan(session, again, now=NOW, batch_size=2) == 1
    assert [b.state for b in batches(database, first)] == ["accepted", *["pending"] * 4]
    assert [b.size for b in batches(database, first)] == [1] * 5


def test_the_sums_of_a_send_follow_whom_another_took_over(
    database: Engine, five: list[int]
) -> None:
    first = make_send(database)
    make_plan(database, first)
    refused = Refused(400, "bad", recipient=0)
    drain(database, FakeGateway(refused))
    again = make_send(database)
    assert make_plan(database, again) == 1
    with reading(database) as session:
        one = send_status.find(session, first)
        assert (one.planned, one.transferred) == (5, 1)
    assert sum(b.size for b in batches(database, first)) == 4


def test_another_issue_reaches_everybody(database: Engine, five: list[int]) -> None:
    make_plan(database, make_send(database, slug="first"))
    assert make_plan(database, make_send(database, slug="second")) == 5


def test_the_audience_is_frozen_when_it_is_planned(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send)
    with transaction(database) as session:
        add_person(session, "late@example.org")
    assert len(states(database, send)) == 5


def test_a_send_is_planned_once(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send)
    with pytest.raises(SendError, match="not scheduled"):
        make_plan(database, send)


def test_a_crash_while_planning_leaves_nothing_half_written(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    from newsletter.sending.planning.planner import plan

    with pytest.raises(ZeroDivisionError), transaction(database) as session:
        plan(session, send, now=NOW, batch_size=2)
        _ = 1 / 0
    assert states(database, send) == {}
    with reading(database) as session:
        assert send_status.find(session, send).state == "scheduled"
    assert make_plan(database, send) == 5


def test_a_rate_spreads_the_batches(database: Engine, five: list[int]) -> None:
    send = make_send(database, timetable=Timetable(per_second=4))
    make_plan(database, send, batch_size=2)
    assert [b.not_before - NOW for b in batches(database, send)] == [
        timedelta(seconds=s) for s in (0, 0.5, 1)
    ]


def test_an_unknown_segment_is_named_with_those_that_exist(database: Engine, five) -> None:
    with transaction(database) as session:
        segment_store.save(session, "readers", "", now=NOW)
    with pytest.raises(SegmentError, match="no segment of this name") as caught:
        make_send(database, "raeders")
    assert "readers" in str(caught.value.hint)


def test_an_empty_segment_sends_nothing_and_says_so(database: Engine) -> None:
    with pytest.raises(NothingToDoError, match="nobody would get this issue"):
        make_send(database)
    with reading(database) as session:
        assert send_status.listed(session) == []


def test_a_send_whose_people_have_all_left_by_its_time_is_finished_at_once(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    with transaction(database) as session:
        suppression.add(session, five, SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    assert make_plan(database, send) == 0
    with reading(database) as session:
        assert send_status.find(session, send).state == "sent"
