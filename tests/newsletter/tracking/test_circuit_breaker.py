"""The circuit breaker opens above a rule's share, gives the reason, and starts anew on resume."""

import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from newsletter.accounts import operator_messages
from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SettingsError
from newsletter.provider.events import EventKind
from newsletter.sending.ledger import sends
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.states import SendState
from newsletter.settings.load import resource
from newsletter.tracking.circuit_breaker import BreakerRule, check_sends, load_rules, occasions
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take

KINDS = ["bounce", "blocked", "dropped", "spamreport", "unsubscribe", "group_unsubscribe"]
SHIPPED = resource("config") / "alerts.toml"


def rule(**changes: Any) -> BreakerRule:
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
    return BreakerRule.model_validate(plain | changes)


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


def look(database: Engine, *rules: BreakerRule) -> list[tuple[int, str]]:
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

    def names(days: int, *rules: BreakerRule) -> list[object]:
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


# The file of rules


def test_the_shipped_rules_load_and_say_what_to_do() -> None:
    rules = load_rules(SHIPPED)
    assert {kind for one in rules for kind in one.counts} == {
        EventKind.BOUNCE,
        EventKind.BLOCKED,
        EventKind.DROPPED,
        EventKind.SPAM_REPORT,
    }
    assert all(one.say and not one.say.endswith(".") for one in rules)


def test_the_page_for_operators_has_the_shipped_figures() -> None:
    path = Path(__file__).parents[3] / "docs" / "guides" / "circuit-breaker.md"
    page = path.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) % \| ([\d,]+) \| ([\d,]+) \|", page, re.M)
    documented = [
        (
            name,
            kinds,
            Decimal(above) / 100,
            int(least.replace(",", "")),
            int(people.replace(",", "")),
        )
        for name, kinds, above, least, people in rows
    ]
    assert documented == [
        (one.name, ", ".join(one.counts), one.above, one.at_least, one.after)
        for one in load_rules(SHIPPED)
    ]


@pytest.mark.parametrize("kind", ["bounce", "blocked", "dropped", "spamreport"])
def test_each_shipped_rule_matches_what_it_is_for(database: Engine, kind: str) -> None:
    people(database, 501)
    send = under_way(database, batch_size=500)
    name, more = ("bounce", {"type": "blocked"}) if kind == "blocked" else (kind, {})
    report(database, send, name, range(1, 101), **more)
    ((_, why),) = look(database, *load_rules(SHIPPED))
    assert why.startswith("20 % of 500 emails ")
    assert len(why) <= 1000


GOOD = {
    "name": '"bounces"',
    "counts": '["bounce"]',
    "of": '"accepted"',
    "above": "0.05",
    "at_least": "20",
    "after": "500",
    "say": '"look at the list"',
}


def written(**changes: str | None) -> str:
    """A rule as text; None leaves the field out."""
    fields = GOOD | changes
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[rule]]", *lines, ""])


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"abvoe": "0.05", "above": None}, "abvoe", "no such key\nKnown here: name, counts, of"),
        ({"above": None}, "above", "it is missing\nA share"),
        ({"above": '"0.05"'}, "above", "a share is a number\nA share"),
        ({"above": "true"}, "above", "a share is a number\nA share"),
        ({"above": "0"}, "above", "greater than 0\nA share"),
        ({"above": "-0.05"}, "above", "greater than 0\nA share"),
        ({"above": "5"}, "above", "less than or equal to 1\nA share"),
        ({"above": "nan"}, "above", "finite number\nA share"),
        ({"above": "inf"}, "above", "finite number\nA share"),
        ({"at_least": '"20"'}, "at_least", "valid integer\nA whole number of recipients"),
        ({"at_least": "20.0"}, "at_least", "valid integer\nA whole number of recipients"),
        ({"at_least": "0"}, "at_least", "greater than or equal to 1\nA whole number"),
        ({"after": "-1"}, "after", "greater than or equal to 1\nA whole number of recipients"),
        ({"of": '"delivered"'}, "of", "'accepted'"),
        ({"counts": '["bounced"]'}, "counts", "'bounced' is no kind of event"),
        ({"counts": '["open"]'}, "counts", "'open' is no kind of event"),
        ({"counts": '["bounce", 3]'}, "counts", "3 is no kind of event"),
        ({"counts": '[["bounce"]]'}, "counts", "is no kind of event"),
        ({"counts": "[]"}, "counts", "A list of some of: bounce, blocked, dropped, spamreport"),
        ({"counts": '"bounce"'}, "counts", "valid list\nA list of some of: bounce"),
        ({"say": '""'}, "say", "at least 1 character"),
        ({"say": '"a\\nb"'}, "say", "line breaks"),
        ({"say": f'"{"a" * 501}"'}, "say", "at most 500 characters"),
    ],
)
def test_a_wrong_rule_is_named_with_what_is_allowed(
    tmp_path: Path, changes: dict[str, str | None], field: str, words: str
) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(written(name='"first"') + written(**changes), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.place == f"alerts.toml: rule 2 (bounces): {field}"
    assert caught.value.hint
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "alerts.toml: rule", "it is missing\nRules begin with [[rule]]"),
        ("[[rules]]\n", "alerts.toml: rules", "no such key\nKnown here: rule."),
        ("rule = 3\n", "alerts.toml: rule", "valid list\nRules begin with [[rule]]"),
        ("rule = [3]\n", "alerts.toml: rule 1", "Rules begin with [[rule]]"),
        (written(name=None), "alerts.toml: rule 1: name", "it is missing"),
        (written(name="7"), "alerts.toml: rule 1 (7): name", "valid string"),
        (
            written() + written(name='"drops"') + written(),
            "alerts.toml: rule 3 (bounces): name",
            "rule 1 has the same name\nGive each rule",
        ),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, place: str, words: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.place == place
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [None, b"[[rule\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.place == str(file)
    assert caught.value.message.startswith("cannot be read: ")
    assert caught.value.hint


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        load_rules(tmp_path)


def test_no_rule_at_all_has_to_be_said(tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text("rule = []\n", encoding="utf-8")
    assert load_rules(file) == ()
