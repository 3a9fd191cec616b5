"""The pages about webhooks: owners create endpoints, see what was sent, and send it again."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.db.webhook_queue import WebhookDelivery, WebhookEndpoint
from newsletter.webhooks import deliveries, endpoints
from newsletter.webhooks.deliveries import Answer
from tests.newsletter.web.conftest import Browser, Office

PAGE = "/console/settings/webhooks"
URL = "https://hooks.example.com/T0/secret-path"
_delivery, _endpoint = table_of(WebhookDelivery), table_of(WebhookEndpoint)


@pytest.fixture
def owner(office: Office) -> Browser:
    return office.signed_in(Role.OWNER)


def secret_in(text: str) -> str:
    found = re.findall(r"whsec_[A-Za-z0-9+/=]{44}", text)
    assert len(found) == 1
    return str(found[0])


def test_a_new_endpoint_shows_its_secret_once(office: Office, owner: Browser) -> None:
    assert "There are no endpoints yet." in owner.get(PAGE).text
    assert f'href="{PAGE}"' in owner.get("/console/settings").text
    answer = owner.post(PAGE, url=URL, events=["send.finished"], description="Chat <b>")
    assert answer.status_code == 200
    secret = secret_in(answer.text)
    for path in (PAGE, f"{PAGE}/1", "/console/log"):
        text = owner.get(path).text
        assert secret not in text
        assert "Chat &lt;b&gt;" in text or path == "/console/log"
    # The path of an endpoint is often a secret of its receiver.
    assert "webhook endpoint 1 (hooks.example.com)" in owner.get("/console/log").text
    assert "secret-path" not in owner.get("/console/log").text
    rotated = secret_in(owner.post(f"{PAGE}/1/rotate").text)
    assert rotated != secret
    with reading(office.parts.database) as session:
        row = endpoints.find(session, 1)
        assert (row.secret, row.old_secret) == (rotated, secret)


def test_a_mistake_is_explained_and_what_was_typed_stays(owner: Browser) -> None:
    answer = owner.post(PAGE, url="https://10.0.0.1/", events=["send.failed"], description="Chat")
    assert answer.status_code == 400
    assert "not a public one" in answer.text
    assert 'value="https://10.0.0.1/"' in answer.text
    assert 'value="send.failed" checked' in answer.text
    assert owner.post(PAGE, url=URL).status_code == 400
    assert owner.post(PAGE, url=URL, events=["no.such"]).status_code == 400


def test_a_delivery_shows_its_last_answer_and_is_sent_again(office: Office, owner: Browser) -> None:
    owner.post(PAGE, url=URL, events=["send.finished"])
    assert owner.post(f"{PAGE}/1/test").headers["location"] == f"{PAGE}/1?done=queued"
    now = datetime.now(UTC)
    with transaction(office.parts.database) as session:
        leased = deliveries.lease(session, now=now)
        assert leased is not None
        sent = deliveries.take(session, leased, now=now)
        assert sent is not None
        deliveries.settle(session, leased, sent, Answer(500, "<i>no</i>"), now=now)
    text = owner.get(f"{PAGE}/1").text
    assert "webhook.test" in text
    assert "&lt;i&gt;no&lt;/i&gt;" in text
    assert "It has accepted nothing since" in text
    with transaction(office.parts.database) as session:
        session.execute(update(_delivery).values(state="failed"))
    assert owner.post(f"{PAGE}/1/deliveries/1/resend").headers["location"].startswith(f"{PAGE}/1")
    with reading(office.parts.database) as session:
        assert deliveries.find(session, 1).state == "pending"
    # A delivery of another endpoint is none of this one.
    owner.post(PAGE, url=URL, events=["send.finished"])
    assert owner.post(f"{PAGE}/2/deliveries/1/resend").status_code == 404


def test_an_endpoint_is_changed_disabled_enabled_and_deleted(
    office: Office, owner: Browser
) -> None:
    owner.post(PAGE, url=URL, events=["send.finished"])
    changed = owner.post(f"{PAGE}/1", url=f"{URL}/2", events=["send.paused"], description="New")
    assert changed.headers["location"] == f"{PAGE}/1?done=changed"
    with reading(office.parts.database) as session:
        (one,) = endpoints.listing(session)
    assert (one.url, one.events, one.description) == (f"{URL}/2", ("send.paused",), "New")
    assert owner.post(f"{PAGE}/1/disable").headers["location"] == f"{PAGE}/1?done=disabled"
    assert "disabled by owner@example.org" in owner.get(f"{PAGE}/1").text
    assert owner.post(f"{PAGE}/1/disable").status_code == 400
    assert owner.post(f"{PAGE}/1/test").status_code == 400
    assert owner.post(f"{PAGE}/1/enable").headers["location"] == f"{PAGE}/1?done=enabled"
    assert owner.post(f"{PAGE}/1/delete").headers["location"] == f"{PAGE}?done=deleted"
    assert owner.get(f"{PAGE}/1").status_code == 404
    assert owner.post(f"{PAGE}/1/test").status_code == 404
