"""The stand-in behaves as SendGrid documents, so that what works here works there."""

import base64
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import sendgrid
from python_http_client.exceptions import HTTPError
from sendgrid.helpers.eventwebhook import EventWebhook

from newsletter.errors import MachineError
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox

QUIET = {"event_rates": {}, "event_delay": 0.0}


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    config = SandboxConfig(verified_senders=frozenset({"example.com"}), **QUIET)
    with start_sandbox(config) as running:
        yield running


def message(*emails: str, **changes: Any) -> dict[str, Any]:
    body = {
        "from": {"email": "news@example.com", "name": "News"},
        "subject": "Hello -n-",
        "content": [
            {"type": "text/plain", "value": "Dear -n-"},
            {"type": "text/html", "value": '<p>Dear -nh-</p><a href="https://x.example">x</a>'},
        ],
        "personalizations": [
            {
                "to": [{"email": email}],
                "substitutions": {"-n-": "Zoë", "-nh-": "Zo&euml;"},
                "custom_args": {"nl_subscriber": str(n)},
                "headers": {"List-Unsubscribe": "<https://x.example/-n-/u>"},
            }
            for n, email in enumerate(emails or ("ok@example.org",))
        ],
        "custom_args": {"nl_send": "5", "nl_subscriber": "root"},
    }
    return {**body, **changes}


#: All that SendGrid can learn of an email, asked for.
MEASURED = {
    "tracking_settings": {
        "click_tracking": {"enable": True, "enable_text": False},
        "open_tracking": {"enable": True},
        "subscription_tracking": {"enable": True},
    },
    "asm": {"group_id": 1},
}


def send(sandbox: RunningSandbox, body: Any, key: str = "SG.sandbox") -> Any:
    client = sendgrid.SendGridAPIClient(key, host=sandbox.url)
    client.client.timeout = 60
    return client.client.mail.send.post(request_body=body)


def refused(sandbox: RunningSandbox, body: Any, key: str = "SG.sandbox") -> tuple[int, Any]:
    with pytest.raises(HTTPError) as caught:
        send(sandbox, body, key)
    return caught.value.status_code, json.loads(caught.value.body)["errors"][0]


def summary(sandbox: RunningSandbox) -> dict[str, Any]:
    return httpx.get(f"{sandbox.url}/sandbox/summary", timeout=60).json()


def settled(sandbox: RunningSandbox) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while summary(sandbox)["pending_events"] and time.monotonic() < deadline:
        time.sleep(0.02)
    return summary(sandbox)


def test_a_request_is_taken_with_202_no_body_and_an_id(sandbox: RunningSandbox) -> None:
    answer = send(sandbox, message("ok@example.org", "ok+2@example.org"))
    assert (answer.status_code, answer.body) == (202, b"")
    assert len(answer.headers["X-Message-Id"]) == 22
    assert summary(sandbox)["recipients"] == 2


def test_each_mail_is_read_with_its_own_values_and_headers_are_not_substituted(
    sandbox: RunningSandbox,
) -> None:
    send(sandbox, message("ok@example.org"))
    mail = httpx.get(f"{sandbox.url}/sandbox/messages/1").json()
    assert mail["subject"] == "Hello Zoë"
    assert mail["text"] == "Dear Zoë"
    assert mail["html"].startswith("<p>Dear Zo&euml;</p>")
    assert mail["headers"]["List-Unsubscribe"] == "<https://x.example/-n-/u>"
    assert mail["custom_args"] == {"nl_send": "5", "nl_subscriber": "0"}


def test_a_tag_inside_a_value_is_not_replaced_again(sandbox: RunningSandbox) -> None:
    body = message()
    body["personalizations"][0]["substitutions"] = {"-n-": "-nh-", "-nh-": "-n-"}
    send(sandbox, body)
    mail = httpx.get(f"{sandbox.url}/sandbox/messages/1").json()
    assert (mail["subject"], mail["text"]) == ("Hello -nh-", "Dear -nh-")


def test_a_wrong_key_is_a_401_in_sendgrids_words(sandbox: RunningSandbox) -> None:
    status, error = refused(sandbox, message(), key="SG.wrong")
    assert status == 401
    assert error["message"].startswith("The provided authorization grant is invalid")


def test_an_unverified_sender_is_a_403(sandbox: RunningSandbox) -> None:
    status, error = refused(sandbox, message(**{"from": {"email": "a@elsewhere.example"}}))
    assert status == 403
    assert "verified Sender Identity" in error["message"]


def test_a_wrong_content_type_is_a_415(sandbox: RunningSandbox) -> None:
    answer = httpx.post(
        f"{sandbox.url}/v3/mail/send",
        content=b"{}",
        headers={"Authorization": "Bearer SG.sandbox", "Content-Type": "text/plain"},
    )
    assert answer.status_code == 415


def person(**changes: Any) -> dict[str, Any]:
    return {"personalizations": [{"to": [{"email": "ok@example.org"}], **changes}]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": {}}, "from.email"),
        ({"from": {"email": "nobody"}}, "from.email"),
        ({"subject": ""}, "subject"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/html", "value": ""}]}, "content.0.value"),
        (
            {
                "content": [
                    {"type": "text/html", "value": "h"},
                    {"type": "text/plain", "value": "t"},
                ]
            },
            "content",
        ),
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": [{}]}, "personalizations.0.to"),
        ({"personalizations": [{"to": [{"email": "a b@c"}]}]}, "personalizations.0.to.0.email"),
        (person(to=[{"email": "a@b.example"}, {"email": "A@B.example"}]), "personalizations.0"),
        (person(substitutions={"-n-": 7}), "personalizations.0.substitutions"),
        (person(substitutions={"-n-": "x" * 10_000}), "personalizations.0.substitutions"),
        (person(custom_args={"a": None}), "personalizations.0.custom_args"),
        (person(headers={"Subject": "x"}), "personalizations.0.headers.Subject"),
        ({"custom_args": {"a": 1}}, "custom_args"),
    ],
)
def test_a_request_past_the_documented_limits_is_a_400_that_names_the_field(
    sandbox: RunningSandbox, changes: dict[str, Any], field: str
) -> None:
    status, error = refused(sandbox, message(**changes))
    assert (status, error["field"]) == (400, field)
    assert summary(sandbox)["recipients"] == 0


def test_a_thousand_recipients_are_taken_and_one_more_is_not(sandbox: RunningSandbox) -> None:
    people = [f"ok+{n}@example.org" for n in range(1001)]
    assert send(sandbox, message(*people[:1000])).status_code == 202
    assert refused(sandbox, message(*people))[1]["field"] == "personalizations"


MAGIC = {
    "ok": ["processed", "delivered"],
    "bounce": ["processed", "bounce"],
    "blocked": ["processed", "bounce"],
    "drop": ["dropped"],
    "defer": ["processed", "deferred", "delivered"],
    "open": ["processed", "delivered", "open"],
    "machine": ["processed", "delivered", "open"],
    "click": ["processed", "delivered", "open", "click"],
    "spam": ["processed", "delivered", "spamreport"],
    "unsub": ["processed", "delivered", "unsubscribe"],
    "groupunsub": ["processed", "delivered", "group_unsubscribe"],
}


def test_magic_addresses_have_their_fate_and_events_are_signed_as_the_sdk_expects(
    sandbox: RunningSandbox, hook
) -> None:
    url, posts, _ = hook
    sandbox.set_webhook_url(url)
    send(sandbox, message(*(f"{magic}+x@example.org" for magic in MAGIC), **MEASURED))
    settled(sandbox)
    verifier = EventWebhook(sandbox.public_key)
    happened: dict[str, list[str]] = {}
    for headers, body in posts:
        stamp = headers["X-Twilio-Email-Event-Webhook-Timestamp"]
        signature = headers["X-Twilio-Email-Event-Webhook-Signature"]
        assert verifier.verify_signature(body.decode(), signature, stamp)
        assert not verifier.verify_signature(body.decode() + " ", signature, stamp)
        for event in json.loads(body):
            happened.setdefault(event["email"].partition("+")[0], []).append(event["event"])
            assert event["nl_send"] == "5"
            assert event["nl_subscriber"].isdigit()
            assert event["sg_message_id"].count(".") >= 2
    assert happened == MAGIC


@pytest.mark.slow
def test_events_that_are_not_taken_are_posted_again(sandbox: RunningSandbox, hook) -> None:
    url, posts, statuses = hook
    statuses += [500, 503]
    sandbox.set_webhook_url(url)
    send(sandbox, message("ok@example.org"))
    assert settled(sandbox)["failed_posts"] == 2
    assert len(posts) >= 3


def test_duplicate_events_come_when_switched_on_also_under_new_ids(
    sandbox: RunningSandbox, hook
) -> None:
    url, posts, _ = hook
    sandbox.set_webhook_url(url)
    sandbox.set_faults(webhook_new_ids=1)
    send(sandbox, message("ok@example.org"))
    settled(sandbox)
    events = [event for _, body in posts for event in json.loads(body)]
    assert len(events) == 4
    assert len({event["sg_event_id"] for event in events}) == 4


@pytest.mark.parametrize(
    ("first", "kind", "reason"),
    [
        ("bounce", "bounces", "Bounced Address"),
        ("spam", "spam_reports", "Spam Reporting Address"),
        ("unsub", "unsubscribes", "Unsubscribed Address"),
    ],
)
def test_the_account_drops_who_stands_on_its_lists(
    sandbox: RunningSandbox, hook, first: str, kind: str, reason: str
) -> None:
    url, posts, _ = hook
    email = f"{first}@example.org"
    send(sandbox, message(email, **MEASURED))
    settled(sandbox)
    listed = httpx.get(
        f"{sandbox.url}/v3/suppression/{kind}", headers={"Authorization": "Bearer SG.sandbox"}
    ).json()
    assert [row["email"] for row in listed] == [email]
    sandbox.set_webhook_url(url)
    send(sandbox, message(email))
    settled(sandbox)
    (event,) = json.loads(posts[0][1])
    assert (event["event"], event["reason"]) == ("dropped", reason)


def test_an_answer_reaches_who_left_and_nobody_else_on_a_list(
    sandbox: RunningSandbox, hook
) -> None:
    url, posts, _ = hook
    people = ("unsub@example.org", "spam@example.org")
    send(sandbox, message(*people, **MEASURED))
    settled(sandbox)
    sandbox.set_webhook_url(url)
    bypass = {"bypass_unsubscribe_management": {"enable": True}}
    send(sandbox, message(*people, mail_settings=bypass))
    settled(sandbox)
    happened = {(event["email"], event["event"]) for _, body in posts for event in json.loads(body)}
    assert ("unsub@example.org", "delivered") in happened
    assert ("spam@example.org", "dropped") in happened
    assert ("spam@example.org", "delivered") not in happened


def lost(sandbox: RunningSandbox) -> type[Exception]:
    with pytest.raises((urllib.error.URLError, OSError)) as caught:
        send(sandbox, message())
    return type(caught.value)


def test_faults_strike_as_often_as_told(sandbox: RunningSandbox) -> None:
    sandbox.set_faults(rate_limit={"times": 1, "seconds": 7})
    with pytest.raises(HTTPError) as caught:
        send(sandbox, message())
    assert caught.value.status_code == 429
    assert int(caught.value.headers["X-RateLimit-Reset"]) == pytest.approx(time.time() + 7, abs=2)
    assert send(sandbox, message()).status_code == 202
    sandbox.set_faults(server_error={"times": 1})
    assert refused(sandbox, message())[0] == 500
    assert summary(sandbox)["requests"] == 1
    sandbox.set_faults(refuse={"times": 1})
    lost(sandbox)
    assert summary(sandbox)["requests"] == 1
    sandbox.set_faults(accept_then_lose={"times": 1})
    lost(sandbox)
    assert summary(sandbox)["requests"] == 2
    sandbox.set_faults(error_after_accepting={"times": 1})
    assert refused(sandbox, message())[0] == 500
    assert summary(sandbox)["requests"] == 3
    sandbox.set_faults(unavailable={"times": 1})
    assert refused(sandbox, message())[0] == 503
    assert summary(sandbox)["requests"] == 3
    sandbox.set_faults(unavailable_after_accepting={"times": 1})
    assert refused(sandbox, message())[0] == 503
    assert summary(sandbox)["requests"] == 4


def test_an_unknown_fault_is_refused(sandbox: RunningSandbox) -> None:
    answer = httpx.post(f"{sandbox.url}/sandbox/faults", json={"gremlins": 1})
    assert answer.status_code == 400
    assert "rate_limit" in answer.json()["errors"][0]["message"]


def test_accepted_mails_are_listed_person_by_person(sandbox: RunningSandbox) -> None:
    send(sandbox, message("ok+1@example.org", "ok+2@example.org"))
    lines = httpx.get(f"{sandbox.url}/sandbox/accepted").text.splitlines()
    assert [json.loads(line)["email"] for line in lines] == ["ok+1@example.org", "ok+2@example.org"]
    assert json.loads(lines[1])["custom_args"] == {"nl_send": "5", "nl_subscriber": "1"}


def test_the_same_address_and_seed_have_the_same_fate() -> None:
    from newsletter.sandbox.outcomes import DEFAULT_RATES, outcome_of

    def fates(seed: int) -> list[object]:
        return [
            outcome_of(f"r{n}@x.example", "m", rates=DEFAULT_RATES, seed=seed, listed_on=None)
            for n in range(2000)
        ]

    assert fates(1) == fates(1) != fates(2)
    bounces = sum("bounce" in one.kinds for one in fates(1))  # type: ignore[attr-defined]
    assert bounces / 2000 == pytest.approx(0.012, abs=0.01)


def test_hostile_content_stays_text_in_the_mailbox(sandbox: RunningSandbox) -> None:
    evil = "<script>alert(1)</script>"
    send(
        sandbox,
        message("ok@example.org", subject=evil, content=[{"type": "text/plain", "value": evil}]),
    )
    for path in ("/", "/mail/1", "/mail/1?view=text", "/mail/1?view=source"):
        page = httpx.get(sandbox.url + path)
        assert page.status_code == 200
        assert evil not in page.text
        assert "script-src" not in page.headers["content-security-policy"]
    frame = httpx.get(f"{sandbox.url}/mail/1/html")
    assert "sandbox" in frame.headers["content-security-policy"]


def test_one_click_goes_to_this_machine_only(sandbox: RunningSandbox, hook) -> None:
    url, posts, _ = hook
    body = message("ok@example.org", "ok+2@example.org")
    body["personalizations"][0]["headers"]["List-Unsubscribe"] = f"<{url}u/TOKEN>"
    send(sandbox, body)
    assert sandbox.one_click(1) == 200
    assert posts[0][1] == b"List-Unsubscribe=One-Click"
    assert sandbox.one_click(2) == 0


def test_a_port_in_use_is_named(sandbox: RunningSandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(MachineError, match="cannot listen there") as caught:
        start_sandbox(SandboxConfig(port=port))
    assert caught.value.place == f"127.0.0.1:{port}"


def test_the_public_key_is_a_p256_key_in_der(sandbox: RunningSandbox) -> None:
    shown = httpx.get(f"{sandbox.url}/sandbox/public-key").json()["public_key"]
    assert shown == sandbox.public_key
    assert len(base64.b64decode(shown, validate=True)) == 91
