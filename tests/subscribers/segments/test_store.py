"""Segments: saved, counted and listed, with their names checked against the people there are."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import SegmentError
from subscribers.consent import suppression
from subscribers.models import Segment, Subscriber, Subscription, SuppressionReason, Topic
from subscribers.segments import store as segment_store

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)
PEOPLE = table_of(Subscriber)
ALICE, BOB, CHARLIE, DORA = 1, 2, 3, 4


@pytest.fixture
def audience(database: Engine) -> Engine:
    """Alice; Bob, who left; Charlie, who never confirmed; Dora, who pauses."""
    plans = {"alice": "pro", "bob": "pro", "charlie": "free", "dora": "pro"}
    with transaction(database) as session:
        for number, (name, plan) in enumerate(plans.items(), 1):
            session.execute(
                insert(PEOPLE).values(
                    id=number,
                    email=f"{name}@example.org",
                    name=name.capitalize(),
                    source="api",
                    address_hash=number.to_bytes(16),
                    attributes={"plan": plan, "größe": number},
                    created_at=NOW,
                    confirmed_at=None if number == CHARLIE else NOW,
                    paused_until=NOW + timedelta(days=1) if number == DORA else None,
                )
            )
        topic = Topic(slug="news", name="News")
        session.add(topic)
        session.flush()
        session.execute(
            insert(table_of(Subscription)).values(subscriber_id=ALICE, topic_id=topic.id, since=NOW)
        )
        suppression.add(
            session, [BOB], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="one click"
        )
    return database


def names(session: Session) -> list[str]:
    return [entry.segment.name for entry in segment_store.listing(session, now=NOW)]


def test_a_count_tells_people_from_those_who_may_be_mailed(audience: Engine) -> None:
    with reading(audience) as session:
        assert segment_store.count(session, "", now=NOW) == (4, 1)
        assert segment_store.count(session, 'plan == "pro"', now=NOW) == (3, 1)
        assert segment_store.count(session, 'plan != "pro"', now=NOW) == (1, 0)
        assert segment_store.count(session, 'topic("news") and größe == 1', now=NOW) == (1, 1)


def test_people_are_shown_with_what_bars_them(audience: Engine) -> None:
    with reading(audience) as session:
        rows = segment_store.sample(session, "", now=NOW, limit=3)
        assert [tuple(row) for row in rows] == [
            (ALICE, "alice@example.org", "Alice", None),
            (BOB, "bob@example.org", "Bob", "unsubscribed"),
            (CHARLIE, "charlie@example.org", "Charlie", "unconfirmed"),
        ]
        (dora,) = segment_store.sample(session, 'name == "Dora"', now=NOW)
        assert dora.exclusion_reason == "paused"


def test_a_segment_is_saved_found_listed_and_deleted(audience: Engine) -> None:
    with transaction(audience) as session:
        segment_store.save(session, "pros", 'plan == "pro"', now=NOW, description="They pay")
        segment_store.save(session, "all", "", now=NOW)
    with transaction(audience) as session:
        assert segment_store.find(session, "pros").description == "They pay"
        listed = [
            (entry.segment.name, entry.people, entry.mailable)
            for entry in segment_store.listing(session, now=NOW)
        ]
        assert listed == [("all", 4, 1), ("pros", 3, 1)]
        assert segment_store.delete(session, "pros").expression == 'plan == "pro"'
    with reading(audience) as session:
        assert names(session) == ["all"]
        with pytest.raises(SegmentError, match="There are: all") as caught:
            segment_store.delete(session, "pros")
    assert caught.value.place == "pros"


def test_a_name_is_taken_once_and_can_be_read(audience: Engine) -> None:
    with transaction(audience) as session:
        segment_store.save(session, "all", "", now=NOW)
        with pytest.raises(SegmentError, match="exists"):
            segment_store.save(session, "all", "", now=NOW)
        for name in ("", "  ", "a\nb", "x" * 65, "\0"):
            with pytest.raises(SegmentError, match="cannot have this name"):
                segment_store.save(session, name, "", now=NOW)


def test_an_unknown_attribute_is_refused_with_the_likely_one(audience: Engine) -> None:
    with transaction(audience) as session:
        for ask in (segment_store.count, segment_store.sample):
            with pytest.raises(SegmentError, match="Did you mean “plan”"):
                ask(session, 'plann == "pro"', now=NOW)
        with pytest.raises(SegmentError, match="“grösse”") as caught:
            segment_store.save(session, "tall", 'plan == "pro" and\n grösse > 1', now=NOW)
        assert caught.value.place == "segment:2:2"
        assert names(session) == []
        # Named as an attribute outright, it may be one that nobody has yet.
        segment_store.save(session, "later", 'attribute("plann") == "pro" or has("x")', now=NOW)


def test_an_unknown_topic_is_refused(audience: Engine) -> None:
    with reading(audience) as session, pytest.raises(SegmentError, match="There are: news"):
        segment_store.count(session, 'topic("jobs")', now=NOW)


def test_without_people_every_attribute_may_come(database: Engine) -> None:
    with transaction(database) as session:
        segment_store.save(session, "pros", 'plan == "pro"', now=NOW)
        assert segment_store.count(session, 'plan == "pro"', now=NOW) == (0, 0)


def test_a_saved_rule_outlives_the_last_person_it_fits(audience: Engine) -> None:
    with transaction(audience) as session:
        segment_store.save(session, "pros", 'plan == "pro"', now=NOW)
        session.execute(update(PEOPLE).values(attributes={}))
        (listed,) = segment_store.listing(session, now=NOW)
        assert (listed.people, listed.mailable) == (0, 0)
        pros = segment_store.find(session, "pros")
        assert segment_store.count_of(session, pros, now=NOW) == (0, 0)


def test_a_rule_that_cannot_be_read_is_listed_with_its_problem(audience: Engine) -> None:
    with transaction(audience) as session:
        segment_store.save(session, "all", "", now=NOW)
        segment_store.save(session, "broken", "", now=NOW)
        segment_store.find(session, "broken").expression = "plan =="
        session.flush()
        good, broken = segment_store.listing(session, now=NOW)
        assert (good.people, good.problem) == (4, None)
        assert broken.people is None
        assert "ends too early" in str(broken.problem)


def test_several_segments_are_one_audience(audience: Engine) -> None:
    with reading(audience) as session:

        def within(*rules: str) -> list[int]:
            chosen = select(PEOPLE.c.id).select_from(segment_store.PEOPLE)
            condition = segment_store.in_any_segment(session, rules, NOW)
            return list(session.scalars(chosen.where(condition).order_by(PEOPLE.c.id)))

        assert within() == []
        assert within('plan == "free"', 'name == "Bob"') == [BOB, CHARLIE]
        assert within('plan == "free"', "") == [ALICE, BOB, CHARLIE, DORA]


@pytest.mark.parametrize("name", ["plan", "shoe size", "a.b-c", "Plan", "x" * 60, "domain", "name"])
def test_an_index_is_made_and_dropped(audience: Engine, name: str) -> None:
    for _ in range(2):
        with transaction(audience) as session:
            made = segment_store.create_index(session, name)
            assert made == segment_store.create_index(session, name)
            assert len(made) <= 63
        with transaction(audience) as session:
            assert segment_store.count(session, 'plan == "pro"', now=NOW) == (3, 1)
            segment_store.drop_index(session, name)
            segment_store.drop_index(session, name)


def test_an_index_needs_a_name_that_both_databases_read_alike(audience: Engine) -> None:
    with transaction(audience) as session:
        for name in ("größe", 'a"b', "", "a'b", "a\nb"):
            with pytest.raises(SegmentError, match="cannot have an index"):
                segment_store.create_index(session, name)


def test_a_segment_row_is_what_callers_keep(audience: Engine) -> None:
    with transaction(audience) as session:
        saved = segment_store.save(session, "long", "", now=NOW, description="x" * 2000)
        assert isinstance(saved, Segment)
        assert saved.id is not None
        assert len(saved.description) == 1000
