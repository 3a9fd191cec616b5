"""The overview and deliverability: what waits for the operator, and figures that are kept."""

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, update

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.provider.gateway import Unknown
from newsletter.scheduling import tasks
from newsletter.scheduling.models import RunOutcome, Schedule, ScheduleRun
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.planner import plan
from newsletter.tracking.models import SendCounter, VariantCounter
from subscribers.directory import growth_history, status_counts
from subscribers.directory.status_counts import StatusCounts, SubscriberStatus
from subscribers.models import AudienceDay
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, drain, make_send
from tests.newsletter.web.conftest import Office

XSS = "<script>alert(1)</script>"
_send = table_of(Send)


@pytest.fixture
def audience(office: Office) -> None:
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        for n in range(5):
            add_person(session, f"p{n}@example.org")


def sent(office: Office, slug: str = "first") -> int:
    """A send that has reached its five people."""
    send = started(office, slug)
    drain(office.parts.database, FakeGateway())
    return send


def started(office: Office, slug: str = "first") -> int:
    send = make_send(office.parts.database, slug=slug)
    with transaction(office.parts.database) as session:
        plan(session, send, now=datetime.now(UTC), batch_size=2)
    return send


def overview(office: Office) -> str:
    return office.signed_in(Role.VIEWER).get("/console/").text


def test_a_quiet_service_says_that_nothing_waits(office: Office) -> None:
    text = overview(office)
    assert "Nothing needs your attention." in text
    assert "Nothing is scheduled." in text


@pytest.mark.usefixtures("audience")
def test_whatever_does_not_go_on_by_itself_is_listed_and_nothing_else(office: Office) -> None:
    database, now = office.parts.database, datetime.now(UTC)
    paused, doubted = started(office, "paused"), started(office, "doubted")
    with transaction(database) as session:
        send_lifecycle.pause(
            session, paused, by=Actor(None, "operator"), reason="5 % of its mails bounced", now=now
        )
    with transaction(database) as session:
        send_lifecycle.cancel(session, doubted, by=Actor(None, "operator"), now=now)
    doubted = started(office, "in-doubt")
    dispatcher(database, FakeGateway(Unknown("no answer"))).send_next()
    late = make_send(database, slug="late", at=now - timedelta(minutes=10))
    make_send(database, slug="just-due", at=now - timedelta(seconds=5))
    make_send(database, slug="coming", at=now + timedelta(days=1))
    with transaction(database) as session:
        until = now + timedelta(minutes=3)
        provider_backoff.back_off(
            session, now=now, until=until, reason="the provider asked to wait"
        )
        draft = parse_issue("---\nsubject: Read me\nslug: review\n---\n\nHello.\n", name="x.md")
        store.save(session, draft, by=COMMAND_LINE, now=now)
        approval.request(session, "review", by=COMMAND_LINE, now=now)
        schedule = Schedule(name="weekly", series="letter", rule="x", zone="UTC", created_at=now)
        session.add(schedule)
        session.flush()
        for days, outcome in (
            (1, RunOutcome.MISSED),
            (2, RunOutcome.SENT),
            (30, RunOutcome.FAILED),
        ):
            at = now - timedelta(days=days)
            values = {"schedule_id": schedule.id, "due_at": at, "at": at, "outcome": outcome}
            session.add(ScheduleRun(**values, reason=f"{outcome} {days} days ago"))
    waits = overview(office).split('class="todo"')[1].split("</ul>")[0]
    assert len(re.findall("<li", waits)) == 6
    assert "5 % of its mails bounced" in waits
    assert f"2 recipients of send {doubted}: the provider did not confirm" in waits
    assert f'/console/sends/{late}"' in waits
    assert "the provider asked to wait" in waits
    assert "Review requested: Read me" in waits
    assert "missed 1 days ago" in waits


@pytest.mark.usefixtures("audience")
def test_the_last_sends_rates_are_those_of_its_figures(office: Office) -> None:
    send = sent(office)
    with transaction(office.parts.database) as session:
        for what, count in (("delivered", 4), ("opened", 2), ("clicked", 1), ("bounce", 1)):
            session.execute(
                insert(table_of(SendCounter)).values(send_id=send, what=what, count=count)
            )
    text = overview(office)
    assert "to 5 recipients" in text
    for share, name in (("80.0 %", "Delivered"), ("50.0 %", "Opened"), ("20.0 %", "Bounced")):
        assert re.search(rf"<dt>{name}</dt><dd>{share}</dd>", text), name


@pytest.mark.usefixtures("audience")
def test_the_clock_writes_a_day_of_the_audience_once_an_hour(office: Office) -> None:
    database = office.parts.database
    tasks.configure_tasks(office.parts.task_context)
    tasks.count_subscribers()
    tasks.count_subscribers()
    today = datetime.now(UTC)
    with transaction(database) as session:
        days = growth_history.since(session, (today - timedelta(days=1)).date())
        assert [(one.people, one.active) for one in days] == [(5, 5)]
        assert not growth_history.is_due(session, now=today)
        assert growth_history.is_due(session, now=today + timedelta(hours=2))
    with transaction(database) as session:
        add_person(session, "one-more@example.org")
        growth_history.save_day(session, StatusCounts(6, {SubscriberStatus.ACTIVE: 6}), now=today)
        assert [one.active for one in growth_history.since(session, today.date())] == [6]


@pytest.mark.usefixtures("audience")
def test_a_large_list_is_counted_in_half_a_percent_of_the_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_counts, "SMALL", 1)
    monkeypatch.setattr(tasks, "_count_again", [0.0])
    # Each count seems to take two seconds, so the next one may begin after 400.
    ticks = iter([1000.0, 1002.0, 1060.0, 1399.0, 1401.0, 1403.0])
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    database, counted = office.parts.database, []
    tasks.configure_tasks(office.parts.task_context)
    for number in range(4):
        tasks.count_subscribers()
        with transaction(database) as session:
            stored = status_counts.status_counts(session, now=datetime.now(UTC))
            assert stored is not None
            counted.append(stored.people)
            add_person(session, f"more-{number}@example.org")
    assert counted == [5, 5, 5, 8]


@pytest.mark.usefixtures("audience")
def test_the_audience_is_compared_with_a_month_ago(office: Office) -> None:
    now = datetime.now(UTC)
    assert "<dt>Change in 30 days</dt><dd>–</dd>" in overview(office)
    with transaction(office.parts.database) as session:
        for days, active in ((100, 1), (31, 3), (29, 4), (0, 1005)):
            day = (now - timedelta(days=days)).date().isoformat()
            session.add(AudienceDay(day=day, people=active, active=active, counted_at=now))
    assert "<dt>Change in 30 days</dt><dd>+1,002</dd>" in overview(office)


@pytest.mark.usefixtures("audience")
def test_deliverability_shows_sends_of_the_period_and_one_by_domain_and_link(
    office: Office,
) -> None:
    first, second = sent(office, "first"), sent(office, "second")
    with transaction(office.parts.database) as session:
        long_ago = datetime.now(UTC) - timedelta(days=60)
        session.execute(update(_send).where(_send.c.id == first).values(started_at=long_ago))
        rows = [
            {"send_id": send, "part": part, "value": value, "what": what, "count": count}
            for send, part, value, what, count in (
                (first, "domain", "old.example", "delivered", 5),
                (second, "domain", "big.example", "delivered", 3),
                (second, "domain", "big.example", "bounce", 1),
                (second, "domain", "small.example", "delivered", 1),
                (second, "link", "javascript:alert(1)", "clicked", 2),
                (second, "link", f"https://x.example/{XSS}", "click", 7),
            )
        ]
        session.execute(insert(table_of(VariantCounter)), rows)
    viewer = office.signed_in(Role.VIEWER)
    text = viewer.get("/console/deliverability?days=30").text
    assert f'href="/console/sends/{first}"' not in text
    assert text.index("big.example") < text.index("small.example")
    assert "75.0 %" in text
    assert "old.example" not in text
    assert XSS not in text
    assert 'href="javascript:' not in text
    text = viewer.get(f"/console/deliverability?send={first}").text
    assert f'href="/console/sends/{second}"' in text
    assert "old.example" in text
    assert "big.example" not in text
    assert viewer.get("/console/deliverability?days=x&send=x").status_code == 200
    assert viewer.get("/console/deliverability?send=999").status_code == 404
    assert viewer.get(f"/console/deliverability?send={10**17}").status_code == 404


@pytest.mark.usefixtures("audience")
def test_only_the_largest_domains_are_shown_and_all_their_figures(office: Office) -> None:
    send = sent(office)
    with transaction(office.parts.database) as session:
        rows = [
            {
                "send_id": send,
                "part": "domain",
                "value": f"d{n:03}.example",
                "what": what,
                "count": n + 1,
            }
            for n in range(60)
            for what in ("delivered", "opened")
        ]
        session.execute(insert(table_of(VariantCounter)), rows)
    text = office.signed_in(Role.VIEWER).get("/console/deliverability").text
    shown = re.findall(r"d(\d{3})\.example", text)
    assert shown == [f"{n:03}" for n in range(59, 34, -1)]
    assert text.count("100.0 %") >= 50


@pytest.mark.usefixtures("audience")
def test_a_scheduled_send_has_no_figures_yet(office: Office) -> None:
    send = make_send(office.parts.database, at=datetime.now(UTC) + timedelta(days=1))
    answer = office.signed_in(Role.VIEWER).get(f"/console/deliverability?send={send}")
    assert answer.status_code == 200


@pytest.mark.usefixtures("audience")
def test_words_from_outside_are_shown_as_words(office: Office) -> None:
    send = started(office)
    with transaction(office.parts.database) as session:
        session.execute(update(store._issue).values(title=XSS))
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason=XSS, now=NOW)
    text = overview(office)
    assert XSS not in text
    assert "&lt;script&gt;" in text
    assert XSS not in office.signed_in(Role.VIEWER).get("/console/deliverability").text
