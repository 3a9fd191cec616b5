"""The stand-in obeys each field of a request: what is not asked for does not happen.

Sources: Twilio's OpenAPI for v3 Mail Send, its page of errors, and its page "Click Tracking &
HTML Best Practices".
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from newsletter.provider.gateway import MailRequest, Recipient
from newsletter.provider.payload import payload
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sandbox.tracking_settings import BYPASSES
from tests.newsletter.sandbox.test_server import (
    MEASURED,
    QUIET,
    message,
    person,
    refused,
    send,
    settled,
    summary,
)

Posts = list[tuple[dict[str, str], bytes]]


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(**QUIET)) as running:
        yield running


def happened(
    sandbox: RunningSandbox, hook: tuple[str, Posts, list[int]], body: dict[str, Any]
) -> list[dict[str, Any]]:
    """The events of this request."""
    url, posts, _ = hook
    sandbox.set_webhook_url(url)
    before = len(posts)
    assert send(sandbox, body).status_code in {200, 202}
    settled(sandbox)
    return [event for _, raw in posts[before:] for event in json.loads(raw)]


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


CLICKS, OPENS, LEAVES = "click_tracking", "open_tracking", "subscription_tracking"


@pytest.mark.parametrize(
    ("email", "kind", "settings", "comes"),
    [
        ("click", "click", {CLICKS: {"enable": True}}, True),
        ("click", "click", {CLICKS: {"enable": False}}, False),
        # A new account of SendGrid's tracks clicks and opens, and no subscriptions.
        ("click", "click", {}, True),
        ("click", "click", None, True),
        ("open", "open", {OPENS: {"enable": True}}, True),
        ("open", "open", {OPENS: {"enable": False}}, False),
        ("open", "open", None, True),
        ("machine", "open", {OPENS: {"enable": True}}, True),
        ("machine", "open", {OPENS: {"enable": False}}, False),
        ("click", "open", {CLICKS: {"enable": True}, OPENS: {"enable": False}}, False),
        ("click", "click", {CLICKS: {"enable": True}, OPENS: {"enable": False}}, True),
        ("oneclick", "open", {OPENS: {"enable": False}}, False),
        ("unsub", "unsubscribe", {LEAVES: {"enable": True}}, True),
        ("unsub", "unsubscribe", {LEAVES: {"enable": False}}, False),
        ("unsub", "unsubscribe", None, False),
    ],
)
def test_what_is_tracked_is_what_the_request_says(
    sandbox: RunningSandbox,
    hook: Any,
    email: str,
    kind: str,
    settings: dict[str, Any] | None,
    *,
    comes: bool,
) -> None:
    more = {} if settings is None else {"tracking_settings": settings}
    events = happened(sandbox, hook, message(f"{email}@example.org", **more))
    assert (kind in names(events)) is comes
    assert "delivered" in names(events)


@pytest.mark.parametrize("what", ["click", "open"])
def test_where_the_request_says_nothing_the_account_decides(
    sandbox: RunningSandbox, hook: Any, what: str
) -> None:
    told = {f"tracking_settings/{what}": {"enabled": False}}
    httpx.post(f"{sandbox.url}/sandbox/account", json=told)
    assert what not in names(happened(sandbox, hook, message(f"{what}@example.org")))
    asked = {"tracking_settings": {f"{what}_tracking": {"enable": True}}}
    assert what in names(happened(sandbox, hook, message(f"{what}@example.org", **asked)))


@pytest.mark.parametrize(
    ("html", "tracked"),
    [
        ('<a href="https://x.example/a">a</a>', True),
        ("<a href='https://x.example/a'>a</a>", True),
        ('<a target="_blank" style="color:red" href="http://x.example/a">a</a>', True),
        ('<A HREF="https://x.example/a">a</A>', True),
        ('<a clicktracking=off href="https://x.example/a">a</a>', False),
        ('<a clicktracking="off" href="https://x.example/a">a</a>', False),
        ('<a class="b" clicktracking=off target=_blank href="https://x.example/a">a</a>', False),
        # It is looked for before the href, and an attribute of another name is another one.
        ('<a href="https://x.example/a" clicktracking=off>a</a>', True),
        ('<a data-clicktracking=off href="https://x.example/a">a</a>', True),
        ('<a clicktracking=on href="https://x.example/a">a</a>', True),
        ('<a title="clicktracking=off" href="https://x.example/a">a</a>', True),
        # What SendGrid's page says that it does not find.
        ('<a href="x.example">a</a>', False),
        ("<a href=https://x.example/a>a</a>", False),
        ('<a href = "https://x.example/a">a</a>', False),
        ('<a href="-link-">a</a>', False),
        ('<a href="mailto:a@x.example">a</a>', False),
        ('<link href="https://x.example/a">', False),
        ('<img src="https://x.example/a">', False),
        ("https://x.example/a", False),
    ],
)
def test_a_link_is_tracked_in_the_form_that_sendgrid_documents(
    sandbox: RunningSandbox, hook: Any, html: str, *, tracked: bool
) -> None:
    content = [{"type": "text/plain", "value": "https://x.example/a"}]
    content.append({"type": "text/html", "value": f"<p>{html}</p>"})
    asked = {"tracking_settings": {CLICKS: {"enable": True, "enable_text": False}}}
    events = happened(sandbox, hook, message("click@example.org", content=content, **asked))
    assert ("click" in names(events)) is tracked


def test_links_of_the_text_are_tracked_when_asked_for(sandbox: RunningSandbox, hook: Any) -> None:
    content = [{"type": "text/plain", "value": "See https://x.example/text now"}]
    asked = {"tracking_settings": {CLICKS: {"enable": True, "enable_text": True}}}
    body = message("click@example.org", content=content, **asked)
    (click,) = [e for e in happened(sandbox, hook, body) if e["event"] == "click"]
    assert click["url"] == "https://x.example/text"
    asked["tracking_settings"][CLICKS]["enable_text"] = False
    body = message("click@example.org", content=content, **asked)
    assert "click" not in names(happened(sandbox, hook, body))


def test_an_open_needs_an_html_part(sandbox: RunningSandbox, hook: Any) -> None:
    content = [{"type": "text/plain", "value": "words"}]
    body = message("open@example.org", content=content, **MEASURED)
    assert "open" not in names(happened(sandbox, hook, body))


LISTS = {
    "bounces": "Bounced Address",
    "spam_reports": "Spam Reporting Address",
    "unsubscribes": "Unsubscribed Address",
    "invalid_emails": "Invalid",
}
LIFTS = {
    None: set(),
    "bypass_bounce_management": {"bounces"},
    "bypass_spam_management": {"spam_reports"},
    "bypass_unsubscribe_management": {"unsubscribes"},
    "bypass_list_management": {*LISTS, "group"},
}


def test_every_bypass_is_looked_at() -> None:
    assert set(LIFTS) - {None} == set(BYPASSES)


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("bypass", LIFTS)
def test_each_bypass_lifts_its_own_list_and_no_other(
    sandbox: RunningSandbox, hook: Any, bypass: str | None, *, enabled: bool
) -> None:
    for name in LISTS:
        sandbox.store.suppress(name, f"ok+{name}@example.org", "550")
    sandbox.store.suppress("blocks", "ok+blocks@example.org", "421")
    people = [f"ok+{name}@example.org" for name in (*LISTS, "blocks", "nothing")]
    more = {"mail_settings": {bypass: {"enable": enabled}}} if bypass else {}
    ends = {
        event["email"]: event.get("reason", "")
        for event in happened(sandbox, hook, message(*people, **more))
        if event["event"] in {"delivered", "dropped"}
    }
    free = LIFTS[bypass] if enabled else set()
    assert ends == {
        **{f"ok+{n}@example.org": "" if n in free else why for n, why in LISTS.items()},
        "ok+blocks@example.org": "",
        "ok+nothing@example.org": "",
    }


@pytest.mark.parametrize("bypass", [b for b in LIFTS if b and b != "bypass_list_management"])
def test_who_stands_on_two_lists_is_kept_by_the_other(
    sandbox: RunningSandbox, hook: Any, bypass: str
) -> None:
    (mine,) = LIFTS[bypass]
    for other in LISTS:
        if other != mine:
            email = f"ok+{other}@example.org"
            for name in (mine, other):
                sandbox.store.suppress(name, email, "550")
            body = message(email, mail_settings={bypass: {"enable": True}})
            (event,) = happened(sandbox, hook, body)
            assert (event["event"], event["reason"]) == ("dropped", LISTS[other])


def test_all_of_the_three_bypasses_lift_all_of_the_three_lists(
    sandbox: RunningSandbox, hook: Any
) -> None:
    three = [bypass for bypass in LIFTS if bypass and bypass != "bypass_list_management"]
    for name in ("bounces", "spam_reports", "unsubscribes"):
        sandbox.store.suppress(name, "ok@example.org", "550")
    settings = {bypass: {"enable": True} for bypass in three}
    assert "delivered" in names(happened(sandbox, hook, message(mail_settings=settings)))


GROUP = {"asm": {"group_id": 1}}


def lifted(bypass: str) -> dict[str, Any]:
    return {"mail_settings": {bypass: {"enable": True}}}


@pytest.mark.parametrize(
    ("more", "dropped"),
    [
        ({}, False),
        (GROUP, True),
        ({**GROUP, **lifted("bypass_unsubscribe_management")}, True),
        ({**GROUP, **lifted("bypass_list_management")}, False),
    ],
)
def test_a_group_is_asked_only_when_the_request_names_it(
    sandbox: RunningSandbox, hook: Any, more: dict[str, Any], *, dropped: bool
) -> None:
    sandbox.store.suppress("group", "ok@example.org", "")
    assert ("dropped" in names(happened(sandbox, hook, message(**more)))) is dropped


def test_leaving_a_group_needs_a_group(sandbox: RunningSandbox, hook: Any) -> None:
    events = happened(sandbox, hook, message("groupunsub@example.org"))
    assert "group_unsubscribe" not in names(events)
    events = happened(sandbox, hook, message("groupunsub@example.org", asm={"group_id": 1}))
    assert events[-1]["event"] == "group_unsubscribe"
    assert {event["asm_group_id"] for event in events} == {1}


def test_an_invalid_address_lands_on_its_list(sandbox: RunningSandbox, hook: Any) -> None:
    happened(sandbox, hook, message("drop@example.org"))
    url = f"{sandbox.url}/v3/suppression/invalid_emails"
    (row,) = httpx.get(url, headers={"Authorization": "Bearer SG.sandbox"}).json()
    assert row["email"] == "drop@example.org"


def test_sendgrids_own_sandbox_mode_takes_nothing(sandbox: RunningSandbox, hook: Any) -> None:
    mode = {"sandbox_mode": {"enable": True}}
    assert send(sandbox, message(mail_settings=mode)).status_code == 200
    assert happened(sandbox, hook, message(mail_settings=mode)) == []
    assert summary(sandbox)["requests"] == 0
    mode["sandbox_mode"]["enable"] = False
    assert "delivered" in names(happened(sandbox, hook, message(mail_settings=mode)))


def test_the_request_and_the_person_are_merged_and_the_person_wins(
    sandbox: RunningSandbox, hook: Any
) -> None:
    body = message(
        headers={"X-Root": "root", "List-Unsubscribe": "<https://x.example/root>"},
        categories=["a", "b"],
        reply_to={"email": "answers@example.com"},
        subject="Root",
    )
    body["personalizations"][0]["subject"] = "Own -n-"
    (event, *_) = happened(sandbox, hook, body)
    assert (event["category"], event["nl_send"], event["nl_subscriber"]) == (["a", "b"], "5", "0")
    mail = httpx.get(f"{sandbox.url}/sandbox/messages/1").json()
    assert mail["subject"] == "Own Zoë"
    assert mail["headers"]["X-Root"] == "root"
    assert mail["headers"]["List-Unsubscribe"] == "<https://x.example/-n-/u>"
    assert mail["headers"]["Reply-To"] == "answers@example.com"


def test_copies_go_to_their_recipients(sandbox: RunningSandbox, hook: Any) -> None:
    body = message()
    body["personalizations"][0] |= {
        "cc": [{"email": "ok+cc@example.org"}],
        "bcc": [{"email": "ok+bcc@example.org"}],
    }
    got = {e["email"] for e in happened(sandbox, hook, body) if e["event"] == "delivered"}
    assert got == {"ok@example.org", "ok+cc@example.org", "ok+bcc@example.org"}


ARGS, TAGS = "personalizations.0.custom_args", "personalizations.0.substitutions"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": {"email": "a@example.com", "name": 5}}, "from.name"),
        ({"subject": 5}, "subject"),
        (person(subject=""), "personalizations.0.subject"),
        ({"content": None}, "content"),
        ({"content": [{"value": "h"}]}, "content.0.type"),
        ({"content": [{"type": "text/html; charset=utf-8", "value": "h"}]}, "content.0.type"),
        ({"content": [{"type": "text/html"}]}, "content.0.value"),
        (
            {"content": [{"type": kind, "value": "c"} for kind in ("text/calendar", "text/html")]},
            "content",
        ),
        ({"reply_to": {}}, "reply_to.email"),
        ({"reply_to": {"email": "nobody"}}, "reply_to.email"),
        ({"reply_to": "a@example.com"}, "reply_to.email"),
        ({"headers": {"X-A": 5}}, "headers"),
        ({"headers": {"X A": "a"}}, "headers.X A"),
        ({"headers": {"X-Ä": "a"}}, "headers.X-Ä"),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "headers.x-a"),
        ({"headers": {"Reply-To": "a@example.com"}}, "headers.Reply-To"),
        *(
            (person(headers={name: "a"}), f"personalizations.0.headers.{name}")
            for name in (
                "x-sg-id", "X-SG-EID", "received", "DKIM-Signature", "Content-Type",
                "Content-Transfer-Encoding", "To", "From", "Subject", "Reply-To", "CC", "BCC",
            )
        ),
        ({"custom_args": {}}, "custom_args"),
        (person(custom_args={}), "personalizations.0.custom_args"),
        ({"custom_args": {"a": "x" * 10_000}}, "custom_args"),
        ({"custom_args": {"a": "x" * 5_000}, **person(custom_args={"b": "x" * 5_000})}, ARGS),
        (person(substitutions={f"-{n}-": "" for n in range(151)}), TAGS),
        (person(cc=[{"email": "OK@example.org"}]), "personalizations.0"),
        (person(bcc=[{"email": "nobody"}]), "personalizations.0.bcc.0.email"),
        ({"categories": "a"}, "categories"),
        ({"categories": ["a", 5]}, "categories"),
        ({"categories": ["a", "a"]}, "categories.1"),
        ({"categories": ["é"]}, "categories.0"),
        ({"categories": ["x" * 256]}, "categories.0"),
        ({"categories": [str(n) for n in range(11)]}, "categories"),
        ({"asm": {}}, "asm.group_id"),
        ({"asm": {"group_id": "1"}}, "asm.group_id"),
        ({"asm": {"group_id": 2}}, "asm.group_id"),
        ({"asm": {"group_id": 1, "groups_to_display": ["1"]}}, "asm.groups_to_display"),
        *(
            ({"tracking_settings": {name: {"enable": "yes"}}}, f"tracking_settings.{name}.enable")
            for name in (CLICKS, OPENS, LEAVES)
        ),
        *(
            ({"mail_settings": {name: {"enable": 1}}}, f"mail_settings.{name}.enable")
            for name in (*BYPASSES, "sandbox_mode")
        ),
        (
            {"tracking_settings": {CLICKS: {"enable": True, "enable_text": 1}}},
            "tracking_settings.click_tracking.enable_text",
        ),
        ({"tracking_settings": {CLICKS: True}}, "tracking_settings.click_tracking"),
        ({"tracking_settings": []}, "tracking_settings"),
        ({"mail_settings": "no"}, "mail_settings"),
        (
            {"mail_settings": {name: {"enable": True} for name in BYPASSES}},
            "mail_settings.bypass_list_management",
        ),
        # Known to SendGrid and not imitated: taken and ignored, they would seem to work.
        ({"attachments": [{"content": "", "filename": "a"}]}, "attachments"),
        ({"template_id": "d-1"}, "template_id"),
        ({"send_at": int(time.time()) + 60}, "send_at"),
        ({"batch_id": "a"}, "batch_id"),
        (person(send_at=1), "personalizations.0.send_at"),
        ({"tracking_settings": {"ganalytics": {"enable": True}}}, "tracking_settings.ganalytics"),
        ({"mail_settings": {"footer": {"enable": True}}}, "mail_settings.footer"),
    ],
)  # fmt: skip
def test_what_sendgrid_refuses_is_a_400_of_its_form_and_nothing_is_taken(
    sandbox: RunningSandbox, changes: dict[str, Any], field: str
) -> None:
    status, error = refused(sandbox, message(**changes))
    assert (status, error["field"]) == (400, field)
    assert set(error) == {"message", "field", "help"}
    assert summary(sandbox)["recipients"] == 0


def test_no_recipients_more_than_a_thousand_of_all_kinds(sandbox: RunningSandbox) -> None:
    body = message(*(f"ok+{n}@example.org" for n in range(1000)))
    body["personalizations"][0]["bcc"] = [{"email": "ok+more@example.org"}]
    assert refused(sandbox, body)[1]["field"] == "personalizations"


FULL = MailRequest(
    sender_email="news@example.com",
    sender_name="News",
    subject="Words",
    text="words",
    html='<a href="https://x.example/a">a</a>',
    recipients=[Recipient("ok@example.org", {"-a-": "b"}, {"X-A": "a"}, {"nl_subscriber": "1"})],
    reply_to="answers@example.com",
    headers={"X-B": "b"},
    custom_args={"nl_send": "1"},
    categories=("test",),
    answers=True,
)


def test_every_field_that_we_send_is_one_that_the_stand_in_looks_at(
    sandbox: RunningSandbox,
) -> None:
    """A field that we begin to send has to be taught to it first."""
    body = payload(FULL)
    known = {
        "from", "subject", "content", "personalizations", "tracking_settings", "reply_to",
        "headers", "custom_args", "categories", "mail_settings",
    }  # fmt: skip
    assert set(body) <= known
    assert set(body["personalizations"][0]) <= {"to", "substitutions", "headers", "custom_args"}
    assert set(body["tracking_settings"]) == {CLICKS, OPENS, LEAVES}
    assert set(body["mail_settings"]) <= {*BYPASSES, "sandbox_mode"}
    assert send(sandbox, body).status_code == 202


def test_what_is_empty_is_not_sent(sandbox: RunningSandbox) -> None:
    """SendGrid refuses custom args without any, so a single email would never leave."""
    bare = MailRequest(
        sender_email="news@example.com",
        sender_name="News",
        subject="Words",
        text="words",
        html="<p>words</p>",
        recipients=[Recipient("ok@example.org", {}, {}, {})],
    )
    body = payload(bare)
    assert body["personalizations"] == [{"to": [{"email": "ok@example.org"}]}]
    assert send(sandbox, body).status_code == 202
