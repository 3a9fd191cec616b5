"""The account that the sandbox plays: closed to strangers, healthy, and ill when told so."""

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from tests.newsletter.sandbox.test_server import MEASURED, QUIET, message, send, settled

KEY = {"Authorization": "Bearer SG.sandbox"}


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(**QUIET)) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "scopes"),
        ("GET", "user/webhooks/event/settings/all"),
        ("GET", "user/webhooks/event/settings/signed/sandbox"),
        ("GET", "user/webhooks/parse/settings"),
        ("GET", "whitelabel/domains"),
        ("GET", "tracking_settings/open"),
        ("GET", "asm/suppressions"),
        ("DELETE", "suppression/bounces/a@example.org"),
        ("DELETE", "asm/groups/1/suppressions/a@example.org"),
    ],
)
def test_strangers_learn_nothing(sandbox: RunningSandbox, method: str, path: str) -> None:
    assert httpx.request(method, f"{sandbox.url}/v3/{path}").status_code == 401


def test_no_webhook_is_shown_while_events_are_posted_nowhere(sandbox: RunningSandbox) -> None:
    url = f"{sandbox.url}/v3/user/webhooks/event/settings/all"
    assert httpx.get(url, headers=KEY).json()["webhooks"] == []
    sandbox.set_webhook_url("http://127.0.0.1:9/events")
    (hook,) = httpx.get(url, headers=KEY).json()["webhooks"]
    assert (hook["url"], hook["enabled"], hook["bounce"]) == (
        "http://127.0.0.1:9/events",
        True,
        True,
    )


def test_answers_can_be_replaced_and_healed(sandbox: RunningSandbox) -> None:
    url, change = f"{sandbox.url}/v3/scopes", f"{sandbox.url}/sandbox/account"
    assert httpx.post(change, json={"scopes": {"scopes": ["mail.send"]}}).status_code == 200
    assert httpx.get(url, headers=KEY).json() == {"scopes": ["mail.send"]}
    httpx.post(change, json={"scopes": 403})
    assert httpx.get(url, headers=KEY).status_code == 403
    assert httpx.post(change, content=b"[]").status_code == 400
    httpx.post(change, json={})
    assert "suppression.read" in httpx.get(url, headers=KEY).json()["scopes"]


def test_who_leaves_the_group_is_listed(sandbox: RunningSandbox) -> None:
    send(sandbox, message("groupunsub@example.org", **MEASURED))
    settled(sandbox)
    url = f"{sandbox.url}/v3/asm/suppressions"
    (row,) = httpx.get(url, headers=KEY).json()
    assert (row["email"], row["group_id"]) == ("groupunsub@example.org", 1)
    gone = f"{sandbox.url}/v3/asm/groups/1/suppressions/groupunsub@example.org"
    assert [httpx.delete(gone, headers=KEY).status_code for _ in range(2)] == [204, 404]
    assert httpx.get(url, headers=KEY).json() == []


def test_only_lists_that_exist_can_be_changed(sandbox: RunningSandbox) -> None:
    for path in ("suppression/friends/a@example.org", "asm/groups/2/suppressions/a@example.org"):
        assert httpx.delete(f"{sandbox.url}/v3/{path}", headers=KEY).status_code == 404
