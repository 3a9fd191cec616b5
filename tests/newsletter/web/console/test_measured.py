"""What is measured, in the console: chosen in forms, shown on pages, never shown as 0."""

import re
from collections.abc import Callable

from sqlalchemy import select

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.scheduling import schedules
from newsletter.sending.models import Send
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.scheduling.conftest import approve
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, take
from tests.newsletter.tracking.events.test_not_measured import A, measure
from tests.newsletter.web.conftest import Office

_send = table_of(Send)


def test_pages_say_what_is_not_measured(office: Office) -> None:
    database = office.parts.database
    with transaction(database) as session:
        people = [add_person(session, f"p{n}@example.org") for n in range(1, 4)]
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway()).send_next()
    take(database, *(entry(send, who, "delivered") for who in people))
    take(database, *(entry(send, who, "click", url=A) for who in people))
    viewer = office.signed_in(Role.VIEWER)
    deliverability = f"/console/deliverability?days=365&send={send}"
    for clicks in (True, False):
        measure(database, send, clicks=clicks, opens=True)
        for path in ("/console/", f"/console/sends/{send}", deliverability):
            assert ("not tracked" in viewer.get(path).text) is not clicks, path
        text = viewer.get(deliverability).text
        assert (A in text) is clicks
        assert ("Click tracking is off for this send." in text) is not clicks


def test_the_editor_of_segments_refuses_what_nobody_can_know(
    environment: dict[str, str], open_office: Callable[..., Office]
) -> None:
    environment["NEWSLETTER_TRACKING__CLICKS"] = "false"
    office = open_office(require_second_factor="false")
    database, editor = office.parts.database, office.signed_in(Role.EDITOR)
    rule = 'clicked_within("2w")'
    answer = editor.post("/console/segments", name="readers", expression=rule, description="")
    assert answer.status_code == 400
    assert "Clicks are not tracked" in answer.text
    with transaction(database) as session:
        assert list(segment_store.listing(session, now=NOW)) == []
        number = segment_store.save(session, "old", "last_click_at == None", now=NOW).id
        person = add_person(session, "a@example.org")
    assert "Clicks are not tracked" in editor.get(f"/console/segments/{number}").text
    assert editor.get("/console/segments").status_code == 200
    text = editor.get(f"/console/subscribers/{person}").text
    assert re.search(r"Last clicked</dt><dd>not tracked", text)
    assert not re.search(r"Last opened</dt><dd>not tracked", text)


def test_a_send_is_made_with_what_was_chosen(office: Office) -> None:
    database = office.parts.database
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
        add_person(session, "a@example.org")
    approve(database, "spring")
    approver = office.signed_in(Role.APPROVER)
    chosen = {"issue": "spring", "segment": "everybody", "when": "now", "clicks": "no"}
    page = approver.post("/console/sends/new", **chosen, opens="")
    assert "opens, not clicks" in page.text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    fields.pop("csrf")
    back = approver.post("/console/sends/new", **fields, step="edit").text
    assert re.search(r'id="clicks".*?value="no" selected', back)
    assert re.search(r'id="opens".*?value="" selected', back)
    assert approver.post("/console/sends/new", **fields, step="send").status_code == 303
    with reading(database) as session:
        made = session.execute(select(_send.c.track_clicks, _send.c.track_opens)).one()
    assert tuple(made) == (False, True)


def test_a_schedule_keeps_what_was_chosen(office: Office) -> None:
    database = office.parts.database
    with transaction(database) as session:
        segment_store.save(session, "everybody", "", now=NOW)
    editor = office.signed_in(Role.APPROVER)
    fields = {"name": "weekly", "series": "letter", "when": "daily 07:00", "zone": "UTC"}
    fields |= {"segments": "everybody", "clicks": "no", "opens": "yes"}
    assert editor.post("/console/schedules", **fields).status_code == 303
    with reading(database) as session:
        schedule = schedules.find(session, "weekly")
        assert schedules.options_of(session, schedule).tracking == TrackingChoice(
            clicks=False, opens=True
        )
        number = schedule.id
    text = editor.get(f"/console/schedules/{number}").text
    assert "<dt>Click tracking</dt><dd>off" in text
    assert "<dt>Open tracking</dt><dd>on" in text
    form = editor.get(f"/console/schedules/{number}/edit").text
    assert re.search(r'id="clicks".*?value="no" selected', form)
