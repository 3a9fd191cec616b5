"""Mails held until their time and called back, by the product's own gateway."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import time_machine

from newsletter.errors import ProviderError
from newsletter.provider.gateway import Accepted, MailRequest, Recipient, Refused
from newsletter.provider.sendgrid import SendGridGateway
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox

QUIET: dict[str, Any] = {"event_rates": {}, "event_delay": 0.0}
AUTH = {"Authorization": "Bearer SG.sandbox"}
STATUSES = "/v3/user/scheduled_sends"
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(**QUIET)) as running:
        yield running


@pytest.fixture
def gateway(sandbox: RunningSandbox) -> SendGridGateway:
    return gateway_to(sandbox)


def gateway_to(sandbox: RunningSandbox) -> SendGridGateway:
    return SendGridGateway(api_key="SG.sandbox", host=sandbox.url, timeout=timedelta(seconds=5))


def mail(*names: str, wait: timedelta | None = None, hold: str | None = None) -> MailRequest:
    people = [
        Recipient(f"{name}@example.org", {}, {}, {"nl_subscriber": str(number)})
        for number, name in enumerate(names or ("ok",))
    ]
    return MailRequest(
        sender_email="news@example.com",
        sender_name="News",
        subject="Hello",
        text="Hello",
        html="<p>Hello</p>",
        recipients=people,
        send_at=None if wait is None else datetime.now(UTC) + wait,
        hold_id=hold,
    )


def get(sandbox: RunningSandbox, path: str) -> Any:
    return httpx.get(sandbox.url + path, headers=AUTH).json()


def standing(sandbox: RunningSandbox) -> dict[str, str | None]:
    """Local part → what the sandbox's own record says of the mail."""
    lines = httpx.get(f"{sandbox.url}/sandbox/accepted").text.splitlines()
    return {row["email"].partition("@")[0]: row["hold"] for row in map(json.loads, lines)}


def mailbox(sandbox: RunningSandbox) -> list[str]:
    return [row["email"].partition("@")[0] for row in get(sandbox, "/sandbox/messages")]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_its_time(sandbox: RunningSandbox, wait: timedelta = HOUR) -> None:
    """What the sandbox does when so much time has passed."""
    sandbox.releaser.look(time.time() + wait.total_seconds() + 1)


def test_a_mail_with_a_time_is_held_and_then_goes_out_like_any_other(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    request = mail("ok", "bounce", wait=2 * SECOND, hold=gateway.new_hold())
    assert isinstance(gateway.send(request), Accepted)
    assert standing(sandbox) == {"ok": "held", "bounce": "held"}
    assert mailbox(sandbox) == []
    summary = get(sandbox, "/sandbox/summary")
    assert (summary["recipients"], summary["held"]) == (2, 2)
    assert (summary["pending_events"], summary["events"]) == (0, {})
    until(lambda: sum(get(sandbox, "/sandbox/summary")["events"].values()) == 4)
    assert request.send_at is not None
    assert datetime.now(UTC) >= request.send_at
    assert standing(sandbox) == {"ok": None, "bounce": None}
    assert mailbox(sandbox) == ["bounce", "ok"]
    summary = get(sandbox, "/sandbox/summary")
    assert summary["held"] == 0
    assert summary["events"] == {"processed": 2, "delivered": 1, "bounce": 1}
    processed, delivered = sandbox.store.events_of(1)
    assert processed["send_at"] <= processed["timestamp"]
    assert delivered["nl_subscriber"] == "0"


def test_a_held_mail_cannot_be_looked_at_or_left_by_its_reader(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    gateway.send(mail(wait=HOUR))
    for path in ("/mail/1", "/sandbox/messages/1"):
        assert httpx.get(sandbox.url + path).status_code == 404
    assert sandbox.one_click(1) == 0


def test_the_mailbox_counts_what_went_out(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    called_back = gateway.new_hold()
    gateway.send(mail("ok+1"))
    gateway.send(mail("ok+2", wait=HOUR, hold=called_back))
    gateway.send(mail("ok+3", wait=2 * HOUR))
    gateway.cancel_held(called_back)
    at_its_time(sandbox)
    page = httpx.get(sandbox.url).text
    assert "<h1>1 mails</h1>" in page
    assert "1 mails held until their time" in page


@pytest.mark.parametrize("wait", [None, -HOUR])
def test_a_mail_without_a_time_or_with_one_that_has_passed_goes_at_once(
    sandbox: RunningSandbox, gateway: SendGridGateway, wait: timedelta | None
) -> None:
    gateway.send(mail(wait=wait, hold=gateway.new_hold()))
    assert standing(sandbox) == {"ok": None}


def test_what_is_cancelled_is_thrown_away_at_its_time_and_stays_on_record(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    called_back, other = gateway.new_hold(), gateway.new_hold()
    gateway.send(mail("ok+1", wait=HOUR, hold=called_back))
    gateway.send(mail("ok+2", wait=HOUR, hold=other))
    gateway.send(mail("ok+3", wait=HOUR))
    gateway.cancel_held(called_back)
    gateway.cancel_held(called_back)
    assert standing(sandbox) == {"ok+1": "cancelled", "ok+2": "held", "ok+3": "held"}
    assert get(sandbox, "/sandbox/summary")["held"] == 3
    at_its_time(sandbox)
    assert standing(sandbox) == {"ok+1": "cancelled", "ok+2": None, "ok+3": None}
    assert mailbox(sandbox) == ["ok+3", "ok+2"]
    assert get(sandbox, "/sandbox/summary")["held"] == 0
    gateway.release_held(called_back)
    at_its_time(sandbox)
    assert standing(sandbox)["ok+1"] == "cancelled"


def test_a_request_that_comes_after_the_cancellation_is_thrown_away_too(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.cancel_held(hold)
    assert isinstance(gateway.send(mail(wait=HOUR, hold=hold)), Accepted)
    at_its_time(sandbox)
    assert standing(sandbox) == {"ok": "cancelled"}


def test_what_is_paused_stays_until_it_is_released(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.pause_held(hold)
    gateway.send(mail(wait=SECOND, hold=hold))
    at_its_time(sandbox)
    assert standing(sandbox) == {"ok": "paused"}
    assert mailbox(sandbox) == []
    gateway.release_held(hold)
    gateway.release_held(hold)
    until(lambda: mailbox(sandbox) == ["ok"])
    assert standing(sandbox) == {"ok": None}


def test_what_is_released_before_its_time_still_waits_for_it(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.send(mail(wait=HOUR, hold=hold))
    gateway.cancel_held(hold)
    gateway.release_held(hold)
    assert standing(sandbox) == {"ok": "held"}
    at_its_time(sandbox)
    assert standing(sandbox) == {"ok": None}


def test_what_stays_paused_for_72_hours_expires(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.send(mail(wait=HOUR, hold=hold))
    gateway.pause_held(hold)
    at_its_time(sandbox, HOUR + 71 * HOUR)
    assert standing(sandbox) == {"ok": "paused"}
    at_its_time(sandbox, HOUR + 72 * HOUR)
    assert standing(sandbox) == {"ok": "expired"}
    assert mailbox(sandbox) == []


def test_a_pause_becomes_a_cancellation_and_the_other_way_round(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.pause_held(hold)
    gateway.cancel_held(hold)
    assert get(sandbox, f"{STATUSES}/{hold}") == [{"batch_id": hold, "status": "cancel"}]
    gateway.pause_held(hold)
    assert get(sandbox, STATUSES) == [{"batch_id": hold, "status": "pause"}]
    gateway.release_held(hold)
    assert get(sandbox, STATUSES) == get(sandbox, f"{STATUSES}/{hold}") == []


def test_what_the_account_learnt_while_it_held_a_mail_counts(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    gateway.send(mail(wait=HOUR))
    url = f"{sandbox.url}/v3/asm/suppressions/global"
    httpx.post(url, headers=AUTH, json={"recipient_emails": ["ok@example.org"]})
    at_its_time(sandbox)
    until(lambda: get(sandbox, "/sandbox/summary")["events"] != {})
    assert get(sandbox, "/sandbox/summary")["events"] == {"dropped": 1}


def test_more_than_72_hours_ahead_is_refused_in_sendgrids_words(gateway: SendGridGateway) -> None:
    words = "Scheduling more than 72 hours in advance is forbidden."
    minute = timedelta(minutes=1)
    far = gateway.send(mail(wait=72 * HOUR + minute))
    assert far == Refused(400, words, shared="send_at")
    assert isinstance(gateway.send(mail(wait=72 * HOUR - minute)), Accepted)


def test_a_request_with_a_wrong_id_is_refused_for_all(gateway: SendGridGateway) -> None:
    request = mail(wait=HOUR, hold="never given out")
    assert gateway.send(request) == Refused(400, "invalid batch id", shared="batch_id")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("send_at", value) for value in ("1774594800", 1774594800.5, True, [], "tomorrow")),
        *(("batch_id", value) for value in (7, None, "never given out", "", [])),
    ],
)
def test_a_time_that_is_no_integer_or_an_id_not_given_out_is_refused(
    sandbox: RunningSandbox, field: str, value: object
) -> None:
    body = {
        "from": {"email": "news@example.com"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hello"}],
        "personalizations": [{"to": [{"email": "ok@example.org"}]}],
        field: value,
    }
    answer = httpx.post(f"{sandbox.url}/v3/mail/send", headers=AUTH, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
    assert standing(sandbox) == {}


def test_a_wrong_id_is_an_error_with_a_next_step(gateway: SendGridGateway) -> None:
    for hold in ("never given out", "a/b", "../../mail/batch", "ä", ""):
        for act in (gateway.cancel_held, gateway.pause_held, gateway.release_held):
            with pytest.raises(ProviderError) as caught:
                act(hold)
            assert caught.value.place == f"hold {hold}"
            assert caught.value.hint


def test_an_id_is_good_for_ten_days(sandbox: RunningSandbox, gateway: SendGridGateway) -> None:
    hold = gateway.new_hold()
    assert get(sandbox, f"/v3/mail/batch/{hold}") == {"batch_id": hold}
    with time_machine.travel(datetime.now(UTC) + timedelta(days=10, minutes=1)):
        with pytest.raises(ProviderError, match="invalid batch id"):
            gateway.cancel_held(hold)
        assert httpx.get(f"{sandbox.url}/v3/mail/batch/{hold}", headers=AUTH).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v3/mail/batch/none", None, 400),
        ("POST", STATUSES, {"batch_id": "none", "status": "cancel"}, 400),
        ("POST", STATUSES, {"batch_id": "ID", "status": "stop"}, 400),
        ("POST", STATUSES, {"batch_id": ["ID"], "status": "pause"}, 400),
        ("POST", STATUSES, {"batch_id": "ID", "status": ["pause"]}, 400),
        ("POST", STATUSES, [], 400),
        ("PATCH", f"{STATUSES}/ID", {"status": "cancel"}, 404),
        ("PATCH", f"{STATUSES}/ID", {"status": "stop"}, 400),
        ("DELETE", f"{STATUSES}/ID", None, 404),
        ("DELETE", f"{STATUSES}/none", None, 404),
    ],
)
def test_what_cannot_be_done_is_refused(
    sandbox: RunningSandbox,
    gateway: SendGridGateway,
    method: str,
    path: str,
    body: object,
    status: int,
) -> None:
    hold = gateway.new_hold()
    sent = None if body is None else json.dumps(body).replace("ID", hold)
    url = sandbox.url + path.replace("ID", hold)
    answer = httpx.request(method, url, content=sent, headers=AUTH)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["message"]


def test_a_second_status_is_refused_and_a_change_is_not(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    url, hold = sandbox.url + STATUSES, gateway.new_hold()
    stop = {"batch_id": hold, "status": "pause"}
    first = httpx.post(url, headers=AUTH, json=stop)
    assert (first.status_code, first.json()) == (201, stop)
    assert httpx.post(url, headers=AUTH, json=stop).status_code == 400
    changed = httpx.patch(f"{url}/{hold}", headers=AUTH, json={"status": "cancel"})
    assert (changed.status_code, changed.content) == (204, b"")
    assert httpx.delete(f"{url}/{hold}", headers=AUTH).status_code == 204


def test_every_call_needs_a_key(sandbox: RunningSandbox) -> None:
    for method, path in (
        ("POST", "/v3/mail/batch"),
        ("GET", "/v3/mail/batch/x"),
        ("POST", STATUSES),
        ("GET", STATUSES),
        ("GET", f"{STATUSES}/x"),
        ("PATCH", f"{STATUSES}/x"),
        ("DELETE", f"{STATUSES}/x"),
    ):
        assert httpx.request(method, sandbox.url + path).status_code == 401


def test_a_cancellation_at_the_last_moment_still_counts(
    sandbox: RunningSandbox, gateway: SendGridGateway
) -> None:
    hold = gateway.new_hold()
    gateway.send(mail(wait=HOUR, hold=hold))
    ripe = sandbox.store.ripe(time.time() + 3601)
    assert ripe is not None
    gateway.cancel_held(hold)
    sandbox.store.end_hold(ripe, "processed", [(1, time.time(), "processed", "{}")])
    assert standing(sandbox) == {"ok": "cancelled"}
    assert get(sandbox, "/sandbox/summary")["pending_events"] == 0


def test_what_is_held_survives_a_restart(tmp_path: Path) -> None:
    config = SandboxConfig(database=tmp_path / "mailbox.db", **QUIET)
    with start_sandbox(config) as first:
        before = gateway_to(first)
        goes, stays = before.new_hold(), before.new_hold()
        before.pause_held(stays)
        before.send(mail("ok+1", wait=2 * SECOND, hold=goes))
        before.send(mail("ok+2", wait=2 * SECOND, hold=stays))
    with start_sandbox(config) as second:
        until(lambda: standing(second) == {"ok+1": None, "ok+2": "paused"})
        gateway_to(second).cancel_held(stays)
        until(lambda: get(second, "/sandbox/summary")["held"] == 0)
        assert standing(second) == {"ok+1": None, "ok+2": "cancelled"}
        assert mailbox(second) == ["ok+1"]


def test_a_reset_forgets_what_is_held(sandbox: RunningSandbox, gateway: SendGridGateway) -> None:
    hold = gateway.new_hold()
    gateway.send(mail(wait=HOUR, hold=hold))
    httpx.post(f"{sandbox.url}/sandbox/reset")
    at_its_time(sandbox)
    assert standing(sandbox) == {}
    with pytest.raises(ProviderError):
        gateway.cancel_held(hold)


def test_a_provider_that_is_down_is_an_error_with_a_next_step() -> None:
    with start_sandbox(SandboxConfig(**QUIET)) as sandbox:
        gateway = gateway_to(sandbox)
        hold = gateway.new_hold()
    for act in (
        gateway.new_hold,
        lambda: gateway.cancel_held(hold),
        lambda: gateway.pause_held(hold),
        lambda: gateway.release_held(hold),
    ):
        with pytest.raises(ProviderError, match="no answer from") as caught:
            act()
        assert "Try again" in str(caught.value.hint)
        assert "SG.sandbox" not in str(caught.value)
