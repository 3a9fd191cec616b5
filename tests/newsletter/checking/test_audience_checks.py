"""Who would get it, who would read a gap, how long it takes and what it costs."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, update

from newsletter.checking.finding import Finding, Level
from newsletter.checking.planned_send import Plan
from newsletter.checking.rules import CheckRules, Price
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SegmentError
from newsletter.sending.models import Send
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.states import SendState
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.checking.conftest import RULES, Look, changed
from tests.newsletter.sending.conftest import FakeGateway, drain, make_plan, make_send

_send = table_of(Send)
Ask = Callable[..., list[Finding]]


@pytest.fixture
def ask(database: Engine, look: Look) -> Ask:
    """Findings of a check that asks the people of the segment ``everybody``."""
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)

    def ask(
        check: str,
        body: str = "Hi",
        *,
        name: str = "everybody",
        rules: CheckRules = RULES,
        **terms: Any,
    ) -> list[Finding]:
        with reading(database) as session:
            return look(check, body, rules=rules, plan=Plan(session, [name], **terms))

    return ask


def test_without_people_to_ask_a_placeholder_without_a_default_is_found_once(look: Look) -> None:
    body = 'Dear {{ name | default("you") }},\n\n{{ name }} and {{ name }} {{ unsubscribe_url }}'
    (found,) = look("placeholders", body)
    assert found.line == 7
    assert "{{ name }} has no default" in found.message
    assert look("placeholders", 'Dear {{ name | default("you") }} at {{ email }}') == []


def test_people_who_lack_a_value_are_counted_as_rendering_fills_it(
    database: Engine, ask: Ask, cast: dict[str, int]
) -> None:
    with transaction(database) as session:
        for n, attributes in enumerate(
            ({"company": "Acme"}, {"company": ""}, {"company": None}, {"company": 0}, {})
        ):
            add_person(session, f"p{n}@example.org", attributes=attributes)
        add_person(session, "new@example.org", confirmed_at=None)
    assert ask("placeholders", 'At {{ attributes.company | default("work") }}') == []
    found = {
        one.line: one.message for one in ask("placeholders", "{{ attributes.company }}\n{{ name }}")
    }
    assert "6 of 8 recipients would see a gap" in found[5]
    assert "5 of 8 recipients" in found[6]


def test_nobody_lacks_it_and_nothing_is_found(ask: Ask, cast: dict[str, int]) -> None:
    assert ask("placeholders", "Dear {{ name }}") == []


def test_an_audience_unlike_the_last_one_is_found(
    database: Engine, ask: Ask, cast: dict[str, int]
) -> None:
    assert ask("audience") == []  # there was none before
    make_plan(database, send := make_send(database))
    assert ask("audience") == []
    with transaction(database) as session:
        session.execute(update(_send).values(planned=7))
    (found,) = ask("audience")
    assert (
        f"3 subscribers would get it; the last issue of the series letter (send {send}) went to 7"
        in found.message
    )
    with transaction(database) as session:
        session.execute(update(_send).values(planned=1))
    assert len(ask("audience")) == 1
    assert ask("audience", rules=changed("audience", grown=3.0)) == []


def test_an_audience_of_nobody_says_why(database: Engine, ask: Ask) -> None:
    with transaction(database) as session:
        add_person(session, "new@example.org", confirmed_at=None)
    (found,) = ask("audience")
    assert "nobody would get" in found.message
    assert "1 unconfirmed" in found.hint
    assert ask("duration") == []
    assert ask("cost", rules=priced(most=1)) == []


def test_people_who_had_it_are_counted(database: Engine, ask: Ask, cast: dict[str, int]) -> None:
    assert ask("had_it") == []
    make_plan(database, make_send(database, slug="news"))  # as look() calls its file
    drain(database, FakeGateway())
    (found,) = ask("had_it")
    assert "3 subscribers of the segments got this issue already" in found.message


def test_how_long_it_takes_is_a_note_until_it_is_too_long(ask: Ask, cast: dict[str, int]) -> None:
    (note,) = ask("duration")
    assert (note.level, note.line) == (Level.NOTE, None)
    assert "3 subscribers get it within 1 s" in note.message
    assert "was not measured yet" in note.message
    (slow,) = ask("duration", timetable=Timetable(per_day=1))
    assert slow.level is Level.WARN
    assert "longer than 6 h" in slow.message
    (never,) = ask(
        "duration", timetable=Timetable(per_day=1), rules=changed("duration", per_second=1e-9)
    )
    assert never.level is Level.WARN


def test_the_pace_is_that_of_the_last_send_that_tells(
    database: Engine, ask: Ask, cast: dict[str, int]
) -> None:
    send = make_send(database)
    make_plan(database, send)
    drain(database, FakeGateway())
    ended = {"state": SendState.SENT, "started_at": NOW, "finished_at": NOW + timedelta(seconds=50)}
    with transaction(database) as session:
        session.execute(update(_send).values(planned=500, **ended))
    assert "was not measured yet" in ask("duration")[0].message
    with transaction(database) as session:
        session.execute(update(_send).values(planned=2000))
    assert f"up to 40 emails a second, as send {send} did" in ask("duration")[0].message
    with transaction(database) as session:
        session.execute(update(_send).values(timetable={"per_hour": 10}))
    assert "was not measured yet" in ask("duration")[0].message


def priced(most: int) -> CheckRules:
    prices = [
        Price.model_validate({"from": 0, "per_thousand": Decimal("1000")}),
        Price.model_validate({"from": 3, "per_thousand": Decimal("500")}),
        Price.model_validate({"from": 4, "per_thousand": Decimal("1")}),
    ]
    return changed("cost", prices=prices, most=Decimal(most))


def test_the_cost_follows_the_table_of_prices(ask: Ask, cast: dict[str, int]) -> None:
    (note,) = ask("cost", rules=priced(most=0))
    assert (note.level, note.message) == (Level.NOTE, "it costs about 1.50 USD")
    (found,) = ask("cost", rules=priced(most=1))
    assert found.level is Level.WARN
    assert ask("cost", rules=changed("cost", prices=[])) == []


def test_an_unknown_segment_is_refused_and_an_unknown_topic_found(
    database: Engine, ask: Ask, look: Look, cast: dict[str, int]
) -> None:
    with pytest.raises(SegmentError, match="no segment of this name"):
        ask("audience", name="nobody")
    with reading(database) as session:
        plan = Plan(session, ["everybody"])
        found = look("audience", "Hi", preheader="x\ntopics: [tech]", plan=plan)
    assert found[0].line == 4
    assert "tech" in found[0].message + found[0].hint
