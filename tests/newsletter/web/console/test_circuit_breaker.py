"""The page of the circuit breaker: its rules, and others, judged by past sends."""

from newsletter.accounts.models import Role
from tests.newsletter.tracking.test_breaker_backtest import (
    BY_DOMAIN,
    OWN,
    bounced_today,
    minute,
    receive,
)
from tests.newsletter.web.conftest import Office

PAGE = "/console/deliverability/circuit-breaker"


def test_the_rules_of_now_are_shown_with_what_they_would_have_done(office: Office) -> None:
    viewer = office.signed_in(Role.VIEWER)
    assert "0 sends were judged" in viewer.get(PAGE).text
    bounced_today(office.parts.database)
    text = viewer.get(PAGE).text
    assert "1 send was judged" in text
    assert "far too many complaints" in text
    assert "Sends that match" not in text
    assert PAGE in viewer.get("/console/deliverability").text
    assert "Try other rules" not in text
    assert "Try other rules" in office.signed_in(Role.EDITOR).get(PAGE).text


def test_typed_rules_are_compared_and_nothing_is_saved(office: Office) -> None:
    send, viewer = bounced_today(office.parts.database), office.signed_in(Role.EDITOR)
    answer = viewer.post(PAGE, rules=OWN.format(name="<b>bounces</b>", above="0.1"))
    assert answer.status_code == 200
    assert "&lt;b&gt;bounces&lt;/b&gt;" in answer.text
    assert "<b>bounces" not in answer.text
    assert f'<a href="/console/sends/{send}">first</a>' in answer.text
    assert "10 of 10" in answer.text
    assert "20.00 %" in answer.text
    assert "&lt;b&gt;" not in viewer.get(PAGE).text


def test_the_mail_domain_and_a_silence_are_shown(office: Office) -> None:
    send, viewer = bounced_today(office.parts.database), office.signed_in(Role.EDITOR)
    receive(office.parts.database, send, "delivered", 3, minute(2))
    text = viewer.post(PAGE, rules=BY_DOMAIN).text
    assert "example.org" in text
    assert "66.67 %" in text
    assert "no event for 2h" in text


def test_a_wrong_rule_is_named_and_what_was_typed_stays(office: Office) -> None:
    viewer = office.signed_in(Role.EDITOR)
    answer = viewer.post(PAGE, rules=OWN.format(name="all", above="20"))
    assert answer.status_code == 200
    assert "The typed rules:6: rule 1 (all): above" in answer.text
    assert "above = 20" in answer.text
    assert "cannot be read" in viewer.post(PAGE, rules="rule = [").text
    assert "There are no rules" not in viewer.post(PAGE, rules="rule = []").text
