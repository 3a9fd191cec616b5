"""A/B tests in the console: created by the form, refused beside their fields, decided by hand."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select, update

from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.models import Issue
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling.prepared_issue import next_issue
from newsletter.sending.models import Batch, Send, Variant
from newsletter.sending.planning.planner import plan
from newsletter.web.console.sends.send_form import LABELS
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.web.conftest import Browser, Office

NEW = "/console/sends/new"
_send, _batch, _variant = table_of(Send), table_of(Batch), table_of(Variant)


@pytest.fixture
def audience(office: Office) -> None:
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        for n in range(20):
            add_person(session, f"p{n}@example.org")


@pytest.fixture
def approver(office: Office, audience: None) -> Browser:
    approve(office, "spring", "Spring is here")
    return office.signed_in(Role.APPROVER)


def approve(office: Office, slug: str, subject: str, *, more: str = "", body: str = "Hi.") -> None:
    """Save the text as the issue's latest revision, and approve it."""
    source = f"---\nsubject: {subject}\nslug: {slug}\n{more}---\n\n{body}\n"
    now = datetime.now(UTC)
    with transaction(office.parts.database) as session:
        saved = store.save(session, parse_issue(source, name="x.md"), by=COMMAND_LINE, now=now)
        approval.request(session, slug, by=COMMAND_LINE, now=now)
        number = saved.revision.number
        approval.approve(session, slug, revision=number, by=COMMAND_LINE, now=now)


def form(**more: Any) -> dict[str, Any]:
    return {
        "issue": "spring",
        "segment": "everybody",
        "when": "now",
        "subjects": "Is it spring?",
        "sample": "50%",
        "winner": "me",
        "after": "2h",
        **more,
    }


def carried(page: httpx.Response) -> dict[str, Any]:
    """The hidden fields of the preview; a field with several values as a list."""
    assert page.status_code == 200, page.text
    found: dict[str, Any] = {}
    for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text):
        if name in {"segment", "excluded", "variant"}:
            found.setdefault(name, []).append(value)
        elif name != "csrf":
            found[name] = value
    return found


def send_it(browser: Browser, **fields: Any) -> int:
    """Preview the recipients, then send; returns the send's number."""
    made = browser.post(NEW, **carried(browser.post(NEW, **fields)), step="send")
    assert made.status_code == 303, made.text
    return int(re.findall(r"\d+", made.headers["location"])[0])


def test_a_test_of_subjects_is_previewed_and_then_decided_by_hand(
    office: Office, approver: Browser
) -> None:
    page = approver.get(NEW).text
    assert 'id="sample" name="sample" type="text" value="20%"' in page
    preview = approver.post(NEW, **form())
    samples = re.findall(r'data-name="Recipients" class="number">(\d+)<', preview.text)
    assert samples == ["5", "5", "10"]
    assert "50 % of the recipients are the sample" in preview.text
    assert "The rest waits until you choose the winner" in preview.text
    assert "Is it spring?" in preview.text
    send = send_it(approver, **form())
    database = office.parts.database
    with transaction(database) as session:
        stored = session.execute(select(_send.c.test)).scalar_one()
        assert stored == {"share": 0.5, "by": "operator", "wait": 7200.0}
        assert session.execute(
            select(_variant.c.label, _variant.c.subject, _variant.c.issue_id).order_by(
                _variant.c.label
            )
        ).all() == [("A", "Spring is here", None), ("B", "Is it spring?", None)]
        plan(session, send, now=datetime.now(UTC), batch_size=5)
    results = approver.get(f"/console/sends/{send}/test").text
    assert "50 % of the recipients get the variants first" in results
    assert "Send B to the rest" in results
    chosen = approver.post(f"/console/sends/{send}/winner", label="B")
    assert chosen.headers["location"] == f"/console/sends/{send}/test?done=chosen"
    assert "B won" in approver.get(f"/console/sends/{send}/test").text
    with reading(database) as session:
        sizes = session.execute(
            select(_batch.c.part, _variant.c.label, _batch.c.size)
            .join(_variant, _variant.c.id == _batch.c.variant_id)
            .order_by(_batch.c.number)
        ).all()
    assert sum(size for part, label, size in sizes if (part, label) == ("winner", "B")) == 10


def test_another_approved_issue_is_a_variant_and_no_schedule_sends_it_again(
    office: Office, approver: Browser
) -> None:
    approve(office, "winter", "It is cold", body="Brr.")
    preview = approver.post(NEW, **form(variant=["winter"], winner="clicks", after="90m"))
    assert "The rest gets the variant with the most clicks, 90 minutes after" in preview.text
    send_it(approver, **form(variant=["winter"]))
    with reading(office.parts.database) as session:
        winter = store.find(session, "winter")
        assert session.execute(
            select(_variant.c.subject, _variant.c.issue_id).order_by(_variant.c.label)
        ).all() == [("Spring is here", None), ("Is it spring?", None), ("It is cold", winter.id)]
        series = session.scalar(
            select(table_of(Issue).c.series).where(table_of(Issue).c.slug == "winter")
        )
        assert next_issue(session, series or "") is None


def test_a_variant_that_was_edited_meanwhile_is_not_sent(office: Office, approver: Browser) -> None:
    approve(office, "winter", "It is cold", body="Brr.")
    shown = carried(approver.post(NEW, **form(variant=["winter"])))
    approve(office, "winter", "It is warm", body="Ah.")
    answer = approver.post(NEW, **shown, step="send")
    assert answer.status_code == 400
    assert "a variant was edited meanwhile" in answer.text
    with reading(office.parts.database) as session:
        assert session.scalar(select(_send.c.id)) is None


@pytest.mark.parametrize(
    ("field", "wrong", "said", "shown"),
    [
        ("subjects", "x" * 301, "The subject has 301 characters", "x" * 301),
        ("subjects", "a\x07b", "The subject is not one line of text", None),
        ("subjects", "Dear {{ nam", "This placeholder is malformed", "Dear {{ nam"),
        ("subjects", "\n".join("BCDEFGHI"), "There are 9 variants", "B\nC\nD\nE\nF\nG\nH\nI"),
        ("sample", "0%", "Not a share", 'value="0%"'),
        ("sample", "all", "Not a share", 'value="all"'),
        ("sample", "150%", "Not a share", 'value="150%"'),
        ("winner", "luck", "Unknown way to choose a winner", None),
        ("after", "soon", "A length of time is written like", 'value="soon"'),
        ("after", "99999d", "A length of time is 3660 days at most", 'value="99999d"'),
        ("variant", ["spring"], "The issue itself is variant A", "checked"),
        ("rate", "fast", "Not a number", 'value="fast"'),
        ("per_hour", "1.5", "Not a whole number", 'value="1.5"'),
        ("per_day", "0", "0 is not a valid value", 'value="0"'),
        ("quiet", "always", "Not a time of day", 'value="always"'),
        ("windows", "never", "Not a weekly sending window", "never</textarea>"),
        ("at", "soon", "Not a time", 'value="soon"'),
        ("at", "2001-01-01T07:00", "This time is past", 'value="2001-01-01T07:00"'),
    ],
)
def test_a_mistake_is_said_beside_its_field_and_nothing_typed_is_lost(
    approver: Browser, field: str, wrong: Any, said: str, shown: str | None
) -> None:
    more = {"when": "at"} if field == "at" else {}
    answer = approver.post(NEW, **form(**{field: wrong}, **more))
    assert answer.status_code == 400
    text = answer.text
    beside = re.search(rf'<p class="mistake" id="{field}-mistake">([^<]+)</p>', text)
    assert beside is not None, re.findall(r'role="alert".*?</div>', text, re.DOTALL)
    assert said in beside[1]
    described = re.search(rf'id="{field}"[^>]*>', text)
    assert described is not None
    is_group = field in {"winner", "variant"}
    assert ('aria-invalid="true"' in described[0]) is not is_group
    assert f"{field}-mistake" in described[0]
    option = {"subjects": "subject", "windows": "window"}.get(field, field)
    assert f'<a href="#{field}">{LABELS[option]}</a>' in text
    assert shown is None or shown in text
    # What was chosen in the other fields stays, and the fields of the test are visible.
    assert re.search(r'name="segment" value="everybody" checked', text)
    assert re.search(r'<details class="more" open><summary>Test several variants', text)
    if field != "after":
        assert 'name="after" type="text" value="2h"' in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"variant": ["no-such"]}, "no-such"),
        ({"variant": ["a\0b"]}, "issue"),
        ({"winner": "opens", "opens": "no"}, "opens are not measured in this send"),
    ],
)
def test_a_test_that_cannot_be_is_refused_with_the_reason(
    approver: Browser, more: dict[str, Any], said: str
) -> None:
    answer = approver.post(NEW, **form(**more))
    assert answer.status_code == 400
    assert said in answer.text


def test_back_keeps_the_test(office: Office, approver: Browser) -> None:
    approve(office, "winter", "It is cold")
    fields = carried(approver.post(NEW, **form(subjects="One\nTwo", variant=["winter"])))
    back = approver.post(NEW, **fields, step="edit").text
    assert "One\nTwo</textarea>" in back.replace("\r\n", "\n")
    assert re.search(r'name="variant" value="winter" checked', back)
    assert re.search(r'name="winner" value="me" checked', back)
    assert 'name="sample" type="text" value="50%"' in back


def test_where_a_review_is_required_only_reviewed_texts_are_variants(
    open_office: Any, environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_REVIEW__SECOND_PERSON"] = "true"
    office = open_office(require_second_factor="false")
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approve(office, "spring", "Spring is here")
    approve(office, "winter", "It is cold")
    approver = office.signed_in(Role.APPROVER)
    assert "this publication does not allow it" in approver.get(NEW).text
    refused = approver.post(NEW, **form())
    assert refused.status_code == 400
    assert "nobody approved the variant “Is it spring?”" in refused.text
    # Nor is it sent by somebody who leaves out the preview.
    reviewed = carried(approver.post(NEW, **form(subjects="", variant=["winter"])))
    skipped = approver.post(NEW, **{**reviewed, "subjects": "Is it spring?", "step": "send"})
    assert "nobody approved the variant" in skipped.text
    assert approver.post(NEW, **reviewed, step="send").status_code == 303


def test_what_the_checks_find_in_a_variant_stops_the_send_unless_it_is_sent_despite_that(
    open_office: Any, environment: dict[str, str], tmp_path: Any
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[subject]\nlevel = "block"\nlongest = 20\n')
    environment["NEWSLETTER_CHECKS__FILE"] = str(rules)
    office = open_office(require_second_factor="false")
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approve(office, "spring", "Spring is here")
    approver = office.signed_in(Role.APPROVER)
    long = "A subject that is far longer than allowed"
    refused = approver.post(NEW, **form(subjects=long))
    assert refused.status_code == 400
    assert "spring.md (variant B):2: the subject has 41 characters" in refused.text
    assert re.search(
        r'<details class="more" open><summary>Errors found by the checks', refused.text
    )
    preview = approver.post(NEW, **form(subjects=long, despite_findings="yes"))
    assert "Errors and warnings" in preview.text
    assert re.search(r"<li>B: .*41 characters", preview.text)
    assert approver.post(NEW, **carried(preview), step="send").status_code == 303
    with reading(office.parts.database) as session:
        entry = session.scalars(select(AuditEntry).filter_by(action="send created")).one()
    assert entry.detail["checks"] == "errors ignored"


def test_quiet_hours_of_the_settings_are_in_the_form_and_can_be_removed(
    open_office: Any, environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_SENDING__QUIET_HOURS"] = "22:00-07:00"
    office = open_office(require_second_factor="false")
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approve(office, "spring", "Spring is here")
    approver = office.signed_in(Role.APPROVER)
    assert 'name="quiet" type="text" value="22:00-07:00"' in approver.get(NEW).text
    assert "quiet hours 22:00-07:00" in approver.post(NEW, **form(quiet="22:00-07:00")).text
    assert "quiet hours" not in approver.post(NEW, **form(quiet="")).text


def test_a_time_that_the_clocks_skip_is_explained(
    open_office: Any, environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_SITE__TIMEZONE"] = "Europe/Berlin"
    office = open_office(require_second_factor="false")
    with transaction(office.parts.database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "p@example.org")
    approve(office, "spring", "Spring is here")
    preview = office.signed_in(Role.APPROVER).post(NEW, **form(when="at", at="2099-03-29T02:30"))
    assert "The clocks of Europe/Berlin skip 02:30 on that day" in preview.text


def test_a_pace_that_cannot_be_kept_stays_in_the_form_of_the_send(
    office: Office, approver: Browser
) -> None:
    send = send_it(approver, **form(when="at", at="2099-01-01T07:00"))
    with transaction(office.parts.database) as session:
        session.execute(update(_send).values(scheduled_for=datetime.now(UTC) + timedelta(days=1)))
    answer = approver.post(f"/console/sends/{send}/pace", per_hour="500", quiet="always")
    assert answer.status_code == 400
    assert 'name="per_hour" type="text" value="500"' in answer.text
    assert 'name="quiet" type="text" value="always"' in answer.text
    assert re.search(r'id="quiet-mistake">Not a time of day', answer.text)
