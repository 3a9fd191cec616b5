"""A backtest says what the circuit breaker would have done, and the breaker does exactly that."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.provider.events import Event, parse
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import SendState
from newsletter.tracking import breaker_backtest, event_horizon
from newsletter.tracking.breaker_backtest import Backtest, backtest
from newsletter.tracking.breaker_rules import Rule
from newsletter.tracking.circuit_breaker import check_sends
from newsletter.tracking.events.ingest import ingest
from newsletter.tracking.models import EventHorizon
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.tracking.events.test_ingest import entry, hash_of
from tests.newsletter.tracking.test_circuit_breaker import (
    by_domain,
    departed,
    hand_over,
    people,
    rule,
    silence,
    stands,
    under_way,
)

__all__ = ["run"]
LONG_AGO = NOW - timedelta(days=90)


def minute(number: int) -> datetime:
    return NOW + timedelta(minutes=number)


def settle(database: Engine, send: int, batch: int, at: datetime) -> None:
    """A batch was accepted at this time; the send started at NOW."""
    batches, sends = table_of(Batch), table_of(Send)
    of_batch = (batches.c.send_id == send) & (batches.c.number == batch)
    with transaction(database) as session:
        session.execute(update(batches).where(of_batch).values(settled_at=at))
        session.execute(update(sends).where(sends.c.id == send).values(started_at=NOW))


def receive(
    database: Engine, send: int, kind: str, person: int, received: datetime, **more: Any
) -> None:
    raw = json.dumps([entry(send, person, kind, nl_issue=str(send), **more)]).encode()
    events = [one for one in parse(raw) if isinstance(one, Event)]
    with transaction(database) as session:
        ingest(session, events, now=received, hash_of=hash_of)


def judged(database: Engine, *rules: Rule, since: datetime = LONG_AGO) -> Backtest:
    with reading(database) as session:
        return backtest(session, rules or [rule()], since=since)


@pytest.mark.both_databases
def test_it_says_where_the_breaker_paused(database: Engine) -> None:
    """The breaker itself looks after each event; the backtest finds the same moment."""
    people(database, 30)
    rules = [
        rule(name="few", above=Decimal("0.3")),
        rule(at_least=3),
        rule(name="leaving", counts=["unsubscribe", "group_unsubscribe"]),
    ]
    send = under_way(database, batch_size=10)
    settle(database, send, 1, minute(1))
    told: list[tuple[str, int]] = [("bounce", 1), ("unsubscribe", 2), ("group_unsubscribe", 2)]
    told += [("bounce", 3), ("bounce", 4), ("bounce", 5), ("bounce", 6)]
    opened = None
    for number, (kind, person) in enumerate(told, start=2):
        if number == 4:
            hand_over(database)
            settle(database, send, 2, minute(3))
        receive(database, send, kind, person, minute(number))
        with transaction(database) as session:
            found = check_sends(session, rules, now=minute(number))
        if found and opened is None:
            opened = number, found[0][1]
    result = judged(database, *rules)
    assert opened is not None
    assert "(3)" in opened[1]
    assert (result.sends, result.without_events, result.paused_sends) == (1, 0, {send})
    assert result.paused_percent == 100
    (pause,) = result.pauses["bounces"]
    assert (pause.at, pause.accepted, pause.affected) == (minute(opened[0]), 20, 3)
    assert (pause.share, pause.saved, pause.in_vain) == (0.15, 0, False)
    assert result.pauses["few"] == []
    # One person by two links is one of ten, and one of ten is not above a tenth.
    assert result.pauses["leaving"] == []


def test_what_left_after_the_pause_is_saved_and_may_have_been_in_vain(database: Engine) -> None:
    people(database, 30)
    send = under_way(database, batch_size=10, batches=3)
    for batch, at in ((1, 0), (2, 10), (3, 20)):
        settle(database, send, batch, minute(at))
    for person in (1, 2):
        receive(database, send, "bounce", person, minute(5))
    (pause,) = judged(database).pauses["bounces"]
    assert (pause.accepted, pause.accepted_in_all, pause.saved) == (10, 30, 20)
    assert pause.in_vain
    receive(database, send, "bounce", 3, minute(30))
    receive(database, send, "bounce", 4, minute(31))
    (pause,) = judged(database).pauses["bounces"]
    assert (pause.accepted, pause.in_vain) == (10, False)
    assert stands(database, send).state in {SendState.SENDING, SendState.SENT}


def test_a_rule_that_only_tells_saves_nothing_and_pauses_nothing(database: Engine) -> None:
    people(database, 20)
    send = under_way(database, batch_size=10, batches=2)
    settle(database, send, 1, minute(1))
    settle(database, send, 2, minute(9))
    for person in (1, 2):
        receive(database, send, "bounce", person, minute(2))
    result = judged(database, rule(action="tell"), rule(name="pauses"))
    (told,), (paused,) = result.pauses["bounces"], result.pauses["pauses"]
    assert (told.at, told.saved, told.tells) == (paused.at, 0, True)
    assert (paused.saved, paused.tells) == (10, False)
    assert result.paused_sends == {send}
    assert judged(database, rule(action="tell")).paused_percent == 0


def test_the_time_at_which_events_came_decides_and_not_when_they_happened(
    database: Engine,
) -> None:
    people(database, 20)
    send = under_way(database, batch_size=10, batches=2)
    settle(database, send, 1, minute(0))
    settle(database, send, 2, minute(10))
    for person in (1, 2, 3):
        # It happened before the second batch left, and was told after it.
        receive(database, send, "bounce", person, minute(20), at=int(minute(1).timestamp()))
    (pause,) = judged(database).pauses["bounces"]
    assert (pause.at, pause.accepted) == (minute(20), 20)


@pytest.mark.both_databases
def test_a_mail_domain_is_judged_as_the_breaker_judges_it(database: Engine) -> None:
    people(database, 60)
    send = under_way(database, batch_size=25, batches=2)
    settle(database, send, 1, minute(1))
    settle(database, send, 2, minute(50))
    tells = by_domain(name="tells", action="tell", at_least=3)
    rules = [rule(above=Decimal("0.5")), by_domain(above=Decimal("0.3")), tells]
    named = by_domain(name="named", domains=["one.example"])
    found: list[tuple[int, str]] = []
    for number, (person, kind, domain) in enumerate(
        [
            *((person, "delivered", "one.example") for person in range(1, 6)),
            *((person, "delivered", "two.example") for person in (11, 12)),
            (13, "bounce", "two.example"),
            (14, "bounce", "two.example"),
            (15, "bounce", "two.example"),
            (6, "bounce", "one.example"),
        ],
        start=2,
    ):
        receive(database, send, kind, person, minute(number), email=f"p{person}@{domain}")
        with transaction(database) as session:
            opened = check_sends(session, rules, now=minute(number))
        found += [(number, why) for _, why in opened]
    ((opened_at, why),) = found
    assert "50 % of 4 emails to two.example bounced (2)" in why
    result = judged(database, *rules, named)
    assert result.pauses["bounces"] == result.pauses["named"] == []
    (paused,) = result.pauses["by domain"]
    assert (paused.at, paused.domain, paused.share) == (minute(opened_at), "two.example", 0.5)
    assert (paused.accepted, paused.accepted_in_all, paused.saved) == (25, 50, 25)
    assert not paused.in_vain
    (message,) = result.pauses["tells"]
    assert (message.at, message.affected, message.whole) == (minute(opened_at + 1), 3, 5)
    assert (message.tells, message.saved) == (True, 0)


@pytest.mark.both_databases
def test_all_events_of_a_post_are_judged_at_once(database: Engine) -> None:
    people(database, 20)
    send = under_way(database, batch_size=20)
    settle(database, send, 1, minute(1))
    kinds = ["bounce"] * 2 + ["delivered"] * 18
    for person, kind in enumerate(kinds, start=1):
        receive(database, send, kind, person, minute(2))
    assert judged(database, by_domain()).pauses["by domain"] == []


def test_more_mail_domains_than_a_query_names_are_judged_alike(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(database, 20)
    send = under_way(database, batch_size=20)
    settle(database, send, 1, minute(1))
    for person, kind in enumerate(["delivered", "delivered", "bounce", "bounce"], start=1):
        receive(database, send, kind, person, minute(person))
    expected = judged(database, by_domain()).pauses
    assert [one.at for one in expected["by domain"]] == [minute(4)]
    monkeypatch.setattr(breaker_backtest, "_MOST_NAMED", 0)
    assert judged(database, by_domain()).pauses == expected


def heard(database: Engine, send: int, person: int, at: int, received: int) -> None:
    happened = int(minute(at).timestamp())
    receive(database, send, "delivered", person, minute(received), timestamp=happened)


@pytest.mark.both_databases
def test_a_silence_of_the_past_is_found_where_the_breaker_would_have_paused(
    database: Engine,
) -> None:
    people(database, 40)
    send = under_way(database, batch_size=10, batches=3)
    for number, at in ((1, 0), (2, 60), (3, 400)):
        settle(database, send, number, minute(at))
        departed(database, send, number, minute(at))
    heard(database, send, 1, 30, 31)
    rules = silence(), silence(name="told", action="tell"), silence(name="long", silence="7h")
    # The first batch was heard of, the second was not for two hours.
    result = judged(database, *rules)
    (pause,) = result.pauses["silent"]
    assert (pause.at, pause.accepted, pause.affected) == (minute(180), 20, 10)
    assert (pause.saved, pause.in_vain, pause.domain) == (10, False, "")
    (told,) = result.pauses["told"]
    assert (told.at, told.saved) == (minute(180), 0)
    assert [one.at for one in result.pauses["long"]] == [minute(480)]
    assert result.paused_sends == {send}
    # The event had happened in time, and was received after the pause.
    heard(database, send, 12, 61, 300)
    (pause,) = judged(database, *rules).pauses["silent"]
    assert (pause.at, pause.in_vain) == (minute(180), True)
    # A send that had ended could not be paused.
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(finished_at=minute(179)))
    assert judged(database, *rules).pauses["silent"] == []


def test_sends_without_their_events_are_left_out_and_counted(database: Engine) -> None:
    people(database, 10)
    send = under_way(database, batch_size=10)
    settle(database, send, 1, minute(0))
    assert judged(database).sends == 1
    assert judged(database, since=minute(1)).sends == 0
    with transaction(database) as session:
        session.add(EventHorizon(name="event", before=minute(5)))
    with reading(database) as session:
        assert event_horizon.final_sends(session) == {send}
    result = judged(database)
    assert (result.sends, result.without_events, result.paused_percent) == (0, 1, 0.0)


OWN = """
[[rule]]
name = "{name}"
counts = ["bounce"]
of = "accepted"
above = {above}
at_least = 1
after = 1
say = "look"
"""


def bounced_today(database: Engine) -> int:
    """A send of today to ten, of whom two bounced."""
    people(database, 10)
    send = under_way(database, batch_size=10)
    settle(database, send, 1, NOW)
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(started_at=datetime.now(UTC)))
    for person in (1, 2):
        receive(database, send, "bounce", person, minute(1))
    return send


@pytest.fixture
def alerts(run: Run, database: Engine, database_url: str) -> Run:
    """`newsletter alerts …` beside a send of today with bounces."""
    bounced_today(database)
    return partial(run, "alerts", NEWSLETTER_DATABASE_URL=database_url)


def test_the_command_compares_new_rules_with_those_of_now(alerts: Run, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(OWN.format(name="bounces", above="0.1"))
    done = alerts("backtest")
    assert done.returncode == 0, done.stderr
    assert "Judged 1 send of the last 90d." in done.stdout
    assert "bounces\tnow\tpause\t5.00 %\t0\t0\t0" in done.stdout
    done = alerts("backtest", "--rules", "new.toml")
    assert done.returncode == 1
    assert (
        "bounces\tnow\tpause\t5.00 %\t0\t0\t0\nbounces\tnew\tpause\t10.00 %\t1\t0\t0" in done.stdout
    )
    assert "1 (first)\tbounces\tnew\tpause\t10 of 10\tall\t20.00 %\t0\tno" in done.stdout
    assert "The new rules would have paused 1 of 1 send, more than 5 %." in done.stderr
    assert alerts("backtest", "--rules", "new.toml", "--limit", "100").returncode == 0
    records = [
        json.loads(line)
        for line in alerts(
            "backtest", "--rules", "new.toml", "--limit", "100", "--json"
        ).stdout.splitlines()
    ]
    (new,) = [one for one in records if one["version"] == "new"]
    assert (new["rule"], new["sends"], new["pauses"][0]["affected"]) == ("bounces", 1, 2)


BY_DOMAIN = """
[[rule]]
name = "refused"
counts = ["bounce"]
by = "domain"
of = "sent"
above = 0.1
at_least = 1
after = 1
say = "look"

[[rule]]
name = "silent"
silence = "2h"
action = "tell"
say = "look"
"""


def test_the_command_names_the_mail_domain_and_the_limit_of_a_silence(
    alerts: Run, tmp_path: Path, database: Engine
) -> None:
    receive(database, 1, "delivered", 3, minute(2))
    (tmp_path / "new.toml").write_text(BY_DOMAIN)
    done = alerts("backtest", "--rules", "new.toml")
    assert done.returncode == 1, done.stderr
    assert "refused\tnew\tpause\t10.00 %\t1\t0\t0" in done.stdout
    assert "silent\tnew\ttell\tno event for 2h\t0\t0\t0" in done.stdout
    assert "10 of 10\texample.org\t66.67 %\t0\tno" in done.stdout
    done = alerts("backtest", "--rules", "new.toml", "--limit", "100", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    pauses = [one["pauses"] for one in records if one["rule"] == "refused"]
    assert (pauses[0][0]["domain"], pauses[0][0]["whole"]) == ("example.org", 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rules", "none.toml"), "none.toml: cannot be read"),
        (("--rules", "wrong.toml"), "wrong.toml:6: rule 1 (all): above"),
        (("--rules", "counter.toml"), "'opened' is no kind of event that a rule can count"),
        (("--since", "soon"), "a length of time is written like 30s"),
        (("--limit", "200"), "--limit"),
    ],
)
def test_a_mistake_is_named(run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "wrong.toml").write_text(OWN.format(name="all", above="20"))
    other = OWN.format(name="all", above="0.2").replace('"bounce"', '"opened"')
    (tmp_path / "counter.toml").write_text(other)
    done = run("alerts", "backtest", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
