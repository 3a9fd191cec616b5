"""Rules about past issues: who received, opened and clicked; and what is refused, never nobody."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import SegmentError
from newsletter.sending.models import ForgottenSend, Send, Variant
from newsletter.sending.planning.planner import plan
from newsletter.tracking.retention.prune import RetentionPolicy, prune
from subscribers.models import Segment, Subscriber
from subscribers.segments import parser as segment_parser
from subscribers.segments import past_issues
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.sending.conftest import five, make_send, states
from tests.newsletter.tracking.events.test_ingest import sent
from tests.newsletter.tracking.stats.test_counters import A, B, C, told

pytestmark = pytest.mark.both_databases

__all__ = ["five", "sent", "told"]

_send, _segment, _subscriber = table_of(Send), table_of(Segment), table_of(Subscriber)
FIRST = '"first"'


def found(session: Session, rule: str) -> list[int]:
    chosen = select(_subscriber.c.id).where(segment_store.condition(session, rule, now=NOW))
    numbers = list(session.scalars(chosen.order_by(_subscriber.c.id)))
    assert segment_store.count(session, rule, now=NOW)[0] == len(numbers)
    return numbers


def problem(database: Engine, rule: str) -> SegmentError:
    with reading(database) as session, pytest.raises(SegmentError) as raised:
        segment_store.count(session, rule, now=NOW)
    return raised.value


@pytest.mark.usefixtures("told")
def test_rules_find_who_received_opened_and_clicked(database: Engine, five: list[int]) -> None:
    one, two, three, four, last = five
    with reading(database) as session:
        # The bounced email was not received; the one that was marked as spam was.
        assert found(session, 'received("first")') == [one, two, three, four]
        # Neither a machine's open nor a scanner's clicks count.
        assert found(session, 'opened("first")') == [one]
        assert found(session, 'clicked("first")') == [one, three]
        assert found(session, f'clicked("first", url="{A}")') == [one, three]
        assert found(session, f'clicked("first", url="{B}")') == [one]
        # Only the scanner followed this one.
        assert found(session, f'clicked("first", url="{C}")') == []
        assert found(session, 'received("first") and not opened("first")') == [two, three, four]
        assert found(session, 'not received("first") or clicked("first")') == [one, three, last]
        assert found(session, 'name == "P2" or clicked("first")') == [one, two, three]


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("rule", "place", "message", "hint"),
    [
        ('name == "x" and\n  opened("frist")', "2:10", "no issue “frist”", "“first”"),
        ('received("")', "1:10", "no issue “”", "slug"),
        ("opened(5)", "1:8", "must be a text", 'opened("spring-2026")'),
        ("opened()", "1:1", "wrong arguments", "opened("),
        ('opened("first", url="x")', "1:1", "wrong arguments", "opened("),
        ('clicked("first", link="x")', "1:1", "wrong arguments", "url="),
        ('clicked("first", url=3)', "1:22", "must be a text", "url="),
        (f'clicked("first", url="{A}x")', "1:22", "does not have this link", f"“{A}”"),
        ('clicked("first", url="")', "1:22", "does not have this link", "whole address"),
        ('opened("first") == True', "1:1", "is not a value", None),
    ],
)
def test_wrong_rules_are_errors_that_point(
    database: Engine, rule: str, place: str, message: str, hint: str | None
) -> None:
    error = problem(database, rule)
    assert error.place == f"segment:{place}"
    assert message in error.message
    assert hint is None or hint in (error.hint or "")


def test_a_link_that_nobody_clicked_yet_is_known_from_the_text(database: Engine, sent: int) -> None:
    url = "https://x.example/?a=1&b=2"
    html = url.replace("&", "&amp;")
    rule = f'clicked("first", url="{url}")'
    assert "does not have this link" in problem(database, rule).message
    for values in ({"text": f"Read {url}.", "html": ""}, {"text": "", "html": f'"{html}"'}):
        with transaction(database) as session:
            session.execute(update(table_of(Variant)).values(**values))
            assert found(session, rule) == []


def test_an_issue_that_was_not_sent_is_refused(database: Engine, five: list[int]) -> None:
    make_send(database)
    for function in ("received", "opened", "clicked"):
        error = problem(database, f"not {function}({FIRST})")
        assert "the issue “first” has not been sent yet" in error.message
        assert error.place == f"segment:1:{len(function) + 6}"


@pytest.mark.parametrize(
    ("column", "refused", "word"),
    [("track_opens", "opened", "opens"), ("track_clicks", "clicked", "clicks")],
)
def test_what_was_not_tracked_is_refused(
    database: Engine, told: int, column: str, refused: str, word: str
) -> None:
    with transaction(database) as session:
        session.execute(update(_send).values(**{column: False}))
    error = problem(database, f"not {refused}({FIRST})")
    assert f"{word} of the issue “first” were not measured" in error.message
    assert error.hint == f"Send {told} did not track {word}."
    with reading(database) as session:
        assert found(session, 'received("first")') == [1, 2, 3, 4]
        (other,) = {"opened", "clicked"} - {refused}
        assert found(session, f"{other}({FIRST})")


@pytest.mark.usefixtures("told")
def test_what_was_deleted_is_refused(database: Engine) -> None:
    later = datetime(2026, 9, 30, tzinfo=UTC)
    prune(database, RetentionPolicy(events=timedelta(days=90)), now=later)
    for function, word in (("opened", "opens"), ("clicked", "clicks")):
        error = problem(database, f"{function}({FIRST})")
        assert f"the {word} of the issue “first” are deleted" in error.message
    with reading(database) as session:
        assert found(session, 'received("first")') == [1, 2, 3, 4]
    prune(database, RetentionPolicy(deliveries=timedelta(days=90)), now=later + timedelta(days=999))
    assert "the recipients of the issue “first” are deleted" in (
        problem(database, 'received("first")').message
    )


@pytest.mark.usefixtures("told")
def test_a_send_that_a_restore_lost_is_refused(database: Engine) -> None:
    with transaction(database) as session:
        row = {"number": 9, "made_at": NOW, "slug": "first", "found_at": NOW}
        session.execute(insert(table_of(ForgottenSend)).values(**row))
    for function in ("received", "opened", "clicked"):
        assert "not all known" in problem(database, f"{function}({FIRST})").message


def test_a_send_goes_to_a_segment_and_without_another(
    database: Engine, told: int, five: list[int]
) -> None:
    with transaction(database) as session:
        segment_store.save(session, "all but openers", 'not opened("first")', now=NOW)
        segment_store.save(session, "clicked", 'clicked("first")', now=NOW)
    send = make_send(database, "all but openers", slug="second", excluded=["clicked"])
    with transaction(database) as session:
        plan(session, send, now=NOW, batch_size=2)
    # 2 unsubscribed; the email to 5 bounced softly, so it may be sent to.
    assert set(states(database, send)) <= {2, 4, 5}
    assert 4 in states(database, send)


def test_a_saved_rule_is_refused_as_soon_as_its_data_is_gone(database: Engine, told: int) -> None:
    with transaction(database) as session:
        segment = segment_store.save(session, "quiet", 'not opened("first")', now=NOW)
        number, rule = segment.id, segment.expression
        segment_store.save_count(session, number, rule, (4, 3), now=NOW - timedelta(days=1))
    send = make_send(database, "quiet", slug="second")
    with transaction(database) as session:
        session.execute(update(_send).where(_send.c.id == told).values(track_opens=False))
    with transaction(database) as session, pytest.raises(SegmentError, match="not measured"):
        plan(session, send, now=NOW, batch_size=2)
    assert states(database, send) == {}
    with transaction(database) as session:
        (listed,) = [one for one in segment_store.listing(session, now=NOW) if one.problem]
        assert listed.segment.name == "quiet"
        stalest, counted = segment_store.count_stalest(session, now=NOW, stale=timedelta(0))
        while stalest is not None and stalest.name != "quiet":
            segment_store.save_count(session, stalest.id, stalest.expression, (0, 0), now=NOW)
            stalest, counted = segment_store.count_stalest(session, now=NOW, stale=timedelta(0))
        # Not 0: nobody knows how many.
        assert counted == (None, None)
        segment_store.save_count(session, number, rule, counted, now=NOW)
        kept = select(_segment.c.people, _segment.c.counted_at).where(_segment.c.id == number)
        assert tuple(session.execute(kept).one()) == (None, NOW)


def test_the_columns_that_are_read_exist(database: Engine) -> None:
    """They are named in this package, because it may not import their models."""
    for name in ("_issue", "_send", "_variant", "_delivery", "_forgotten", "_part", "_action"):
        with reading(database) as session:
            assert session.execute(select(getattr(past_issues, name))).all() == []


def test_a_condition_cannot_be_made_without_reading_its_issues() -> None:
    assert segment_parser.names('opened("a") or clicked("b", url="c")').links == {("b", "c")}
    with pytest.raises(TypeError):
        segment_parser.condition('opened("a")', now=NOW)
