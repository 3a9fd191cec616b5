"""The circuit breaker opens above a rule's share, gives the reason, and starts anew on resume."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from newsletter.accounts import operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import Occasion
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.states import SendState
from newsletter.settings.load import resource
from newsletter.tracking import event_silence
from newsletter.tracking.breaker_rules import CountRule, Rule, SilenceRule, load_rules
from newsletter.tracking.circuit_breaker import check_sends, occasions
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take

KINDS = ["bounce", "blocked", "dropped", "spamreport", "unsubscribe", "group_unsubscribe"]
SHIPPED = resource("config") / "alerts.toml"


def rule(**changes: Any) -> CountRule:
    """Above 10 % bounces, from the first event and the first person on."""
    plain = {
        "name": "bounces",
        "counts": ["bounce"],
        "of": "accepted",
        "above": Decimal("0.1"),
        "at_least": 1,
        "after": 1,
        "say": "look at the list",
    }
    return CountRule.model_validate(plain | changes)


def people(database: Engine, count: int) -> None:
    with transaction(database) as session:
        for number in range(1, count + 1):
            add_person(session, f"p{number}@example.org")


def under_way(database: Engine, *, batch_size: int, batches: int = 1, slug: str = "first") -> int:
    """A send to everybody of which so many batches are accepted and at least one is not."""
    send = make_send(database, slug=slug)
    make_plan(database, send, batch_size=batch_size)
    hand_over(database, batches)
    return send


def hand_over(database: Engine, batches: int = 1) -> None:
    worker = dispatcher(database, FakeGateway())
    for _ in range(batches):
        worker.send_next()


def report(
    database: Engine, send: int, kind: str, persons: Sequence[int], issue: int = 1, **more: Any
) -> None:
    """A post of one event for each of these people."""
    take(database, *(entry(send, p, kind, nl_issue=str(issue), **more) for p in persons))


def look(database: Engine, *rules: Rule) -> list[tuple[int, str]]:
    with transaction(database) as session:
        return check_sends(session, rules or [rule()], now=NOW)


def stands(database: Engine, send_id: int) -> Send:
    with reading(database) as session:
        return send_status.find(session, send_id)


def pause(database: Engine, send_id: int) -> None:
    with transaction(database) as session:
        send_lifecycle.pause(
            session, send_id, by=Actor(None, "operator"), reason="paused by the operator", now=NOW
        )


def resume(database: Engine, send_id: int) -> None:
    with transaction(database) as session:
        send_lifecycle.resume(session, send_id, by=Actor(None, "operator"), now=NOW)


@pytest.mark.parametrize(
    ("handed_over", "share", "at_the_line"),
    [(20, "0.05", 1), (20, "0.1", 2), (100, "0.29", 29), (100, "0.07", 7)],
)
def test_it_opens_above_the_line_and_not_at_it(
    database: Engine, handed_over: int, share: str, at_the_line: int
) -> None:
    people(database, handed_over + 1)
    send = under_way(database, batch_size=handed_over)
    bounces = rule(above=Decimal(share))
    report(database, send, "bounce", range(1, at_the_line + 1))
    assert look(database, bounces) == []
    assert stands(database, send).state == SendState.SENDING
    report(database, send, "bounce", [at_the_line + 1])
    (opened,) = look(database, bounces)
    row = stands(database, send)
    assert opened == (send, row.reason)
    assert (row.state, row.paused_at) == (SendState.PAUSED, NOW)
    assert look(database, bounces) == []


def told(database: Engine) -> list[tuple[str, str]]:
    with reading(database) as session:
        return [(one.subject, one.detail) for one in operator_messages.latest(session, limit=9)]


@pytest.mark.both_databases
def test_a_rule_that_only_tells_does_so_once_and_pauses_nothing(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    tells = rule(name="many bounces", action="tell")
    report(database, send, "bounce", [1])
    assert look(database, tells) == []
    assert told(database) == []
    report(database, send, "bounce", [2])
    for _ in range(2):
        assert look(database, tells) == []
    assert stands(database, send).state == SendState.SENDING
    message = str(send), "20 % of 10 emails bounced (2), above 10 %: look at the list"
    assert told(database) == [message]
    # Another rule tells of the same send, and one that pauses still does.
    other = rule(name="very many", action="tell", above=Decimal("0.15"))
    ((paused, _),) = look(database, tells, other, rule(name="limit"))
    assert paused == send
    assert [subject for subject, _ in told(database)] == [str(send)] * 3
    assert look(database, tells, other) == []
    assert len(told(database)) == 3


@pytest.mark.both_databases
def test_a_send_that_has_ended_is_told_of_by_rules_that_tell_and_of_complaints(
    database: Engine,
) -> None:
    people(database, 10)
    send = under_way(database, batch_size=10)
    report(database, send, "bounce", [1, 2])
    report(database, send, "spamreport", [3, 4])
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(finished_at=NOW))
    tells = rule(name="telling", action="tell")
    complaints = rule(name="complaints", counts=["spamreport"])

    def names(days: int, *rules: Rule) -> list[object]:
        with reading(database) as session:
            found = occasions(session, rules, now=NOW + timedelta(days=days))
        return [one.occasion for one in found]

    assert names(1, rule(), tells, complaints) == ["telling", "complaints"]
    assert names(1, rule()) == []
    assert names(8, tells, complaints) == []


def test_the_reason_says_what_happened_and_what_to_do(database: Engine) -> None:
    people(database, 31)
    send = under_way(database, batch_size=30)
    report(database, send, "bounce", [1, 2])
    report(database, send, "bounce", [3, 4], type="blocked")
    both = rule(counts=["bounce", "blocked"], above=Decimal("0.125"))
    ((number, why),) = look(database, both)
    assert number == send
    assert why == (
        "13.34 % of 30 emails bounced or were blocked (4), above 12.5 %: look at the list"
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("bounce", {}),
        ("bounce", {"type": "blocked"}),
        ("dropped", {"reason": "Bounced Address"}),
        ("spamreport", {}),
        ("unsubscribe", {}),
        ("group_unsubscribe", {}),
    ],
)
def test_one_person_told_of_many_times_stops_no_send(
    database: Engine, kind: str, more: dict[str, str]
) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    every = rule(counts=KINDS, above=Decimal("0.1"))
    for number in range(30):
        report(database, send, kind, [1], timestamp=1_800_000_000 + number, **more)
    assert look(database, every) == []
    report(database, send, kind, [2], **more)
    ((_, why),) = look(database, every)
    assert "20 % of 10 emails" in why
    assert " (2), " in why


def test_leaving_by_our_link_and_by_the_provider_s_is_leaving_once(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    for kind in ("unsubscribe", "group_unsubscribe"):
        report(database, send, kind, [1])
    assert look(database, rule(counts=["unsubscribe", "group_unsubscribe"])) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"event": "bounce"}, "bounce"),
        ({"event": "bounce", "type": "blocked"}, "blocked"),
        ({"event": "dropped", "reason": "Bounced Address"}, "dropped"),
        ({"event": "spamreport"}, "spamreport"),
        ({"event": "unsubscribe"}, "unsubscribe"),
        ({"event": "group_unsubscribe"}, "group_unsubscribe"),
    ],
)
def test_each_kind_that_can_be_counted_matches_its_own_rule_only(
    database: Engine, fields: dict[str, Any], kind: str
) -> None:
    people(database, 5)
    send = under_way(database, batch_size=4)
    take(database, entry(send, 1, **fields))
    kinds = ["bounce", "blocked", "dropped", "spamreport", "unsubscribe", "group_unsubscribe"]
    others = [other for other in kinds if other != kind]
    assert look(database, rule(counts=others)) == []
    assert len(look(database, rule(counts=[kind]))) == 1


def test_a_kind_named_twice_counts_once(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    report(database, send, "bounce", [1])
    assert look(database, rule(counts=["bounce", "bounce"])) == []


def test_a_repeated_post_does_not_trip_it(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    for _ in range(3):
        report(database, send, "bounce", [1])
    assert look(database) == []


def test_a_few_events_do_not_trip_it(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    enough = rule(at_least=3)
    report(database, send, "bounce", [1, 2])
    assert look(database, enough) == []
    report(database, send, "bounce", [3])
    assert [number for number, _ in look(database, enough)] == [send]


def test_it_does_not_open_before_enough_people_were_handed_over(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=5)
    report(database, send, "bounce", range(1, 6))
    enough = rule(after=6)
    assert look(database, enough) == []
    hand_over(database)
    (opened,) = look(database, enough)
    assert opened[1].startswith("50 % of 10 emails bounced (5), above 10 %: ")


def test_the_first_rule_that_matches_gives_the_reason(database: Engine) -> None:
    people(database, 5)
    send = under_way(database, batch_size=4)
    report(database, send, "bounce", [1, 2])
    rules = [
        rule(name="no", counts=["spamreport"], say="one"),
        rule(name="yes", say="two"),
        rule(name="late", above=Decimal("0.2"), say="three"),
    ]
    ((_, why),) = look(database, *rules)
    assert why.endswith(": two")


def test_after_a_resume_only_what_came_since_counts(database: Engine) -> None:
    people(database, 31)
    send = under_way(database, batch_size=10)
    report(database, send, "bounce", [1, 2])
    assert len(look(database)) == 1
    # What had left goes on bouncing while the operator looks into it.
    report(database, send, "bounce", range(3, 9))
    assert look(database) == []
    resume(database, send)
    assert look(database) == []
    hand_over(database)
    report(database, send, "bounce", [11])
    assert look(database) == []
    assert stands(database, send).state == SendState.SENDING
    report(database, send, "bounce", [12])
    ((_, why),) = look(database)
    assert why.startswith(
        "20 % of 10 emails since the circuit breaker opened bounced (2), above 10 %: "
    )
    # And a second time.
    resume(database, send)
    hand_over(database)
    report(database, send, "bounce", [21])
    assert look(database) == []
    report(database, send, "bounce", [22])
    assert len(look(database)) == 1


def test_an_operators_pause_forgives_nothing(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=10)
    report(database, send, "bounce", [1])
    pause(database, send)
    report(database, send, "bounce", [2])
    assert look(database) == []
    assert stands(database, send).reason == "paused by the operator"
    resume(database, send)
    ((_, why),) = look(database)
    assert why.startswith("20 % of 10 emails bounced (2)")


def test_an_operators_pause_after_the_breaker_opened_forgives_nothing_either(
    database: Engine,
) -> None:
    people(database, 31)
    send = under_way(database, batch_size=10)
    report(database, send, "bounce", [1, 2])
    assert len(look(database)) == 1
    resume(database, send)
    hand_over(database)
    assert look(database) == []
    pause(database, send)
    report(database, send, "bounce", [11, 12])
    assert look(database) == []
    resume(database, send)
    ((_, why),) = look(database)
    assert why.startswith("20 % of 10 emails since the circuit breaker opened bounced (2)")


def test_sends_under_way_at_once_are_judged_each_by_its_own_figures(database: Engine) -> None:
    people(database, 5)
    bad = under_way(database, batch_size=4)
    pause(database, bad)  # so that the next batch is the next send's
    good = under_way(database, batch_size=4, slug="second")
    pause(database, good)
    worse = under_way(database, batch_size=4, slug="third")
    resume(database, bad)
    resume(database, good)
    report(database, bad, "bounce", [1], issue=1)
    report(database, worse, "bounce", [2, 3, 4], issue=3)
    opened = dict(look(database))
    assert list(opened) == [bad, worse]
    assert opened[bad].startswith("25 % of 4 emails bounced (1)")
    assert opened[worse].startswith("75 % of 4 emails bounced (3)")
    assert stands(database, good).state == SendState.SENDING


def test_what_comes_after_the_end_changes_nothing(database: Engine) -> None:
    people(database, 5)
    send = under_way(database, batch_size=5)
    with transaction(database) as session:
        sends.finish(session, now=NOW)
    assert stands(database, send).state == "sent"
    report(database, send, "bounce", range(1, 6))
    assert look(database) == []
    row = stands(database, send)
    assert (row.state, row.reason, row.breaker_baseline) == (SendState.SENT, "", {})


def test_sends_that_have_not_begun_or_are_cancelled_are_left_alone(database: Engine) -> None:
    people(database, 5)
    cancelled = under_way(database, batch_size=4)
    report(database, cancelled, "bounce", range(1, 5))
    with transaction(database) as session:
        send_lifecycle.cancel(session, cancelled, by=Actor(None, "operator"), now=NOW)
    waiting = make_send(database, slug="second")
    assert look(database) == []
    assert stands(database, cancelled).state == SendState.CANCELLED
    assert stands(database, waiting).state == SendState.SCHEDULED


def test_nothing_leaves_once_the_breaker_is_open(database: Engine) -> None:
    people(database, 5)
    send = under_way(database, batch_size=4)
    report(database, send, "spamreport", [1])
    assert look(database, rule(counts=["spamreport"]))
    gateway = FakeGateway()
    dispatcher(database, gateway).send_next()
    assert gateway.requests == []
    resume(database, send)
    dispatcher(database, gateway).send_next()
    assert len(gateway.mailed) == 1


def test_a_look_takes_two_queries_and_writes_nothing_while_all_is_well(database: Engine) -> None:
    people(database, 5)
    for slug in ("first", "second", "third"):
        make_plan(database, make_send(database, slug=slug), batch_size=1)
    hand_over(database, 12)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(database, "before_cursor_execute", note)
    assert look(database) == []
    event.remove(database, "before_cursor_execute", note)
    assert len([s for s in statements if s.lstrip().startswith("SELECT")]) == 2
    assert not [s for s in statements if s.lstrip().startswith(("UPDATE", "INSERT"))]


@pytest.mark.parametrize("kind", ["bounce", "blocked", "dropped", "spamreport"])
def test_each_shipped_rule_matches_what_it_is_for(database: Engine, kind: str) -> None:
    people(database, 501)
    send = under_way(database, batch_size=500)
    name, more = ("bounce", {"type": "blocked"}) if kind == "blocked" else (kind, {})
    report(database, send, name, range(1, 101), **more)
    ((_, why),) = look(database, *load_rules(SHIPPED))
    assert why.startswith("20 % of 500 emails ")
    assert len(why) <= 1000


# Rules by mail domain


def by_domain(**changes: Any) -> CountRule:
    plain = {"name": "by domain", "of": "sent", "by": "domain", "at_least": 2, "after": 4}
    return rule(**plain | changes)


def outcomes(database: Engine, send: int, domain: str, delivered: int, bounced: int) -> None:
    """A post of events for so many people of this mail domain, who have not had any before."""
    first = {"one.example": 1, "two.example": 31, "three.example": 61}[domain]
    kinds = ["delivered"] * delivered + ["bounce"] * bounced
    take(
        database,
        *(
            entry(send, person, kind, email=f"p{person}@{domain}")
            for person, kind in enumerate(kinds, start=first)
        ),
    )


@pytest.mark.both_databases
def test_one_mail_domain_is_enough_for_a_rule_by_domain(database: Engine) -> None:
    people(database, 91)
    send = under_way(database, batch_size=90)
    outcomes(database, send, "one.example", 27, 2)
    outcomes(database, send, "two.example", 8, 2)
    assert look(database, rule(), by_domain(above=Decimal("0.2"))) == []
    assert look(database, by_domain(at_least=3)) == []
    assert look(database, by_domain(after=11)) == []
    assert look(database, by_domain(domains=["one.example"])) == []
    assert look(database, by_domain(counts=["blocked", "spamreport"])) == []
    ((_, why),) = look(database, rule(), by_domain(domains=["two.example"]))
    assert why == "20 % of 10 emails to two.example bounced (2), above 10 %: look at the list"
    assert stands(database, send).state == SendState.PAUSED


@pytest.mark.both_databases
def test_of_several_mail_domains_the_worst_is_named(database: Engine) -> None:
    people(database, 91)
    send = under_way(database, batch_size=90)
    outcomes(database, send, "one.example", 3, 2)
    outcomes(database, send, "two.example", 3, 3)
    assert look(database, by_domain(action="tell", name="tells")) == []
    assert look(database, by_domain(action="tell", name="tells")) == []
    ((_, detail),) = told(database)
    assert detail == (
        "50 % of 6 emails to two.example bounced (3), above 10 % (and 1 more mail domain): "
        "look at the list"
    )


@pytest.mark.both_databases
def test_after_a_resume_a_mail_domain_starts_anew_too(database: Engine) -> None:
    people(database, 91)
    send = under_way(database, batch_size=90)
    outcomes(database, send, "one.example", 3, 2)
    outcomes(database, send, "two.example", 10, 1)
    assert len(look(database, by_domain())) == 1
    # An answer that comes during the pause is forgiven, too.
    report(database, send, "bounce", [6], email="p6@one.example")
    assert look(database, by_domain()) == []
    resume(database, send)
    assert look(database, by_domain()) == []
    take(
        database,
        *(
            entry(send, person, kind, email=f"p{person}@one.example")
            for person, kind in enumerate(["delivered"] * 4 + ["bounce"] * 2, start=7)
        ),
    )
    ((_, why),) = look(database, by_domain())
    assert why.startswith(
        "33.34 % of 6 emails to one.example since the circuit breaker opened bounced (2), above"
    )
    resume(database, send)
    # A mail domain that no rule could judge before keeps all its figures.
    report(database, send, "bounce", [42, 43], email="p@two.example")
    ((_, why),) = look(database, by_domain())
    assert why.startswith("23.08 % of 13 emails to two.example bounced (3), above")


def test_without_reports_of_deliveries_no_mail_domain_is_judged(database: Engine) -> None:
    people(database, 91)
    send = under_way(database, batch_size=90)
    outcomes(database, send, "one.example", 0, 5)
    assert look(database, by_domain()) == []
    outcomes(database, send, "two.example", 1, 0)
    assert len(look(database, by_domain())) == 1


def test_a_healthy_send_is_not_asked_about_its_mail_domains(database: Engine) -> None:
    people(database, 91)
    send = under_way(database, batch_size=90)
    outcomes(database, send, "one.example", 20, 1)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(database, "before_cursor_execute", note)
    assert look(database, by_domain()) == []
    event.remove(database, "before_cursor_execute", note)
    assert not [one for one in statements if "variant_counter" in one]


def test_the_shipped_rule_by_domain_tells_and_pauses_nothing(database: Engine) -> None:
    people(database, 1501)
    send = under_way(database, batch_size=1500)
    # One mail domain refuses 12 %; of the whole send it is 4 %.
    of_domain = [entry(send, p, "delivered", email=f"p{p}@gmail.com") for p in range(1, 441)]
    bounced = [entry(send, p, "bounce", email=f"p{p}@gmail.com") for p in range(441, 501)]
    others = [entry(send, p, "delivered") for p in range(501, 1501)]
    take(database, *of_domain, *bounced, *others)
    assert look(database, *load_rules(SHIPPED)) == []
    ((_, detail),) = told(database)
    assert detail.startswith("12 % of 500 emails to gmail.com bounced or were blocked (60), above")


# Rules about silence


def silence(**changes: Any) -> SilenceRule:
    plain = {"name": "silent", "silence": "2h", "say": "check the event webhook"}
    return SilenceRule.model_validate(plain | changes)


def departed(database: Engine, send: int, batch: int, at: datetime) -> None:
    batches = table_of(Batch)
    this = (batches.c.send_id == send) & (batches.c.number == batch)
    with transaction(database) as session:
        session.execute(update(batches).where(this).values(departed_at=at))
        session.execute(update(table_of(Send)).values(started_at=NOW))


def look_at(database: Engine, minutes: int, *rules: Rule) -> list[tuple[int, str]]:
    with transaction(database) as session:
        return check_sends(session, rules, now=NOW + timedelta(minutes=minutes))


def silent_messages(database: Engine, minutes: int) -> list[Occasion]:
    """What the setting ``tracking.event_silence`` tells."""
    with reading(database) as session:
        at = NOW + timedelta(minutes=minutes)
        found = event_silence.occasions(session, limit=timedelta(hours=1), now=at)
        return operator_messages.not_posted(session, found)


@pytest.mark.both_databases
def test_a_silent_webhook_pauses_a_running_send(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=5)
    departed(database, send, 1, NOW)
    assert look_at(database, 119, silence()) == []
    assert len(silent_messages(database, 119)) == 1
    ((paused, why),) = look_at(database, 120, rule(), silence())
    assert (paused, stands(database, send).state) == (send, SendState.PAUSED)
    assert why == (
        "5 emails left since 2026-03-27 07:00 UTC. The last event was never: "
        "check the event webhook"
    )
    # The message about the pause is enough.
    assert silent_messages(database, 125) == []
    resume(database, send)
    assert look_at(database, 130, silence()) == []
    assert look_at(database, 600, silence()) == []
    # Only emails that left after the resume can show a silence.
    hand_over(database)
    departed(database, send, 2, NOW + timedelta(minutes=600))
    assert look_at(database, 719, silence()) == []
    assert len(look_at(database, 720, silence())) == 1


@pytest.mark.both_databases
def test_an_event_of_any_send_ends_a_silence(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=5)
    departed(database, send, 1, NOW)
    moment = int((NOW + timedelta(minutes=30)).timestamp())
    report(database, 0, "delivered", [3], timestamp=moment)
    assert look_at(database, 300, silence()) == []
    hand_over(database)
    departed(database, send, 2, NOW + timedelta(minutes=60))
    # An unsubscribe by our own link proves nothing.
    later = int((NOW + timedelta(minutes=90)).timestamp())
    report(database, send, "unsubscribe", [1], timestamp=later)
    ((_, why),) = look_at(database, 180, silence())
    assert why.startswith("5 emails left since 2026-03-27 08:00 UTC. The last event was of 2026-03")


@pytest.mark.both_databases
def test_a_silence_is_told_once_by_the_rule_or_by_the_setting(database: Engine) -> None:
    people(database, 11)
    send = under_way(database, batch_size=5)
    departed(database, send, 1, NOW)
    tells = silence(action="tell")
    for _ in range(2):
        assert look_at(database, 121, tells, silence(name="other", action="tell")) == []
    assert stands(database, send).state == SendState.SENDING
    (message,) = told(database)
    assert message[1].endswith("The last event was never: check the event webhook")
    assert silent_messages(database, 130) == []
