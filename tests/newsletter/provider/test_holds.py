"""Calling back what the provider holds: what it says wrong, an operator reads with a next step."""

import json
import socket
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from newsletter.errors import ProviderError
from newsletter.provider.gateway import Holds
from newsletter.provider.sendgrid import SendGridGateway
from tests.newsletter.provider.conftest import Answer, gateway, provider, says

ACTS: dict[str, Callable[[Holds], object]] = {
    "new": lambda holds: holds.new_hold(),
    "cancel": lambda holds: holds.cancel_held("abc"),
    "pause": lambda holds: holds.pause_held("abc"),
    "release": lambda holds: holds.release_held("abc"),
}
each_act = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
STOPPED = "a status for this batch id exists, try PATCH to update the status"


def complaint(message: str) -> dict[str, object]:
    return {"errors": [{"field": None, "message": message}]}


def by_method(**answers: Answer) -> tuple[Answer, list[tuple[str, str, object]]]:
    """A server that answers each method as told, and what it was asked."""
    asked: list[tuple[str, str, object]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = handler.body  # type: ignore[attr-defined]
        asked.append((handler.command, handler.path, json.loads(body) if body else None))
        answers[handler.command](handler)

    return answer, asked


def failure(act: Callable[[Holds], object], holds: Holds) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        act(holds)
    shown = "".join(traceback.format_exception(caught.value))
    assert "SG.key" not in shown
    assert caught.value.hint
    return caught.value


def test_a_new_hold_is_the_batch_id_that_the_provider_gives_out() -> None:
    answer, asked = by_method(POST=says(201, {"batch_id": "abc"}))
    with provider(answer) as host:
        assert gateway(host).new_hold() == "abc"
    assert asked == [("POST", "/v3/mail/batch", None)]


def test_what_is_stopped_otherwise_already_is_changed() -> None:
    answer, asked = by_method(
        POST=says(400, complaint(STOPPED)),
        GET=says(200, [{"batch_id": "a/b", "status": "pause"}]),
        PATCH=says(204),
    )
    with provider(answer) as host:
        gateway(host).cancel_held("a/b")
    assert asked == [
        ("POST", "/v3/user/scheduled_sends", {"batch_id": "a/b", "status": "cancel"}),
        ("GET", "/v3/user/scheduled_sends/a%2Fb", None),
        ("PATCH", "/v3/user/scheduled_sends/a%2Fb", {"status": "cancel"}),
    ]


def test_what_is_stopped_so_already_is_left_alone() -> None:
    answer, asked = by_method(
        POST=says(400, complaint(STOPPED)), GET=says(200, [{"batch_id": "abc", "status": "cancel"}])
    )
    with provider(answer) as host:
        gateway(host).cancel_held("abc")
    assert [method for method, *_ in asked] == ["POST", "GET"]


def test_a_refusal_for_another_reason_keeps_the_providers_words() -> None:
    answer, _ = by_method(POST=says(400, complaint("max limit reached")), GET=says(200, []))
    with provider(answer) as host:
        error = failure(ACTS["pause"], gateway(host))
    assert error.message == "SendGrid answered 400: max limit reached"
    assert error.place == "hold abc"


@each_act
@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "api_key"),
        (403, "scopes"),
        (429, "rate limit"),
        (500, "Try again"),
        (503, "Try again"),
    ],
)
def test_each_refusal_has_its_next_step(
    act: Callable[[Holds], object], status: int, hint: str
) -> None:
    with provider(says(status, complaint("no"))) as host:
        error = failure(act, gateway(host))
    assert str(status) in error.message
    assert hint in str(error.hint)


@each_act
@pytest.mark.parametrize("body", [b"", b"<h1>welcome</h1>", b"[]", b'{"batch_id": 7}'])
def test_an_answer_of_another_kind_is_not_taken_for_done(
    act: Callable[[Holds], object], body: bytes
) -> None:
    with provider(says(200, body)) as host:
        assert host in str(failure(act, gateway(host)).hint)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"null", b'{"batch_id": ""}'])
def test_a_new_hold_without_an_id_is_none(body: bytes) -> None:
    with provider(says(201, body)) as host:
        error = failure(ACTS["new"], gateway(host))
        assert host in str(error.hint)
    assert error.place == "a new hold"
    assert error.message.startswith("the answer makes no sense")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"nonsense", "the answer makes no sense: no JSON"),
        (b'{"a": 1}', f"SendGrid answered 400: {STOPPED}"),
        (b"[1]", f"SendGrid answered 400: {STOPPED}"),
        # Some status, so it is changed.
        (b'[{"batch_id": "abc"}]', "SendGrid answered 404: no"),
    ],
)
def test_nonsense_about_what_is_stopped_is_an_error_too(body: bytes, message: str) -> None:
    answer, _ = by_method(
        POST=says(400, complaint(STOPPED)), GET=says(200, body), PATCH=says(404, complaint("no"))
    )
    with provider(answer) as host:
        error = failure(ACTS["cancel"], gateway(host))
    assert (error.message, error.place) == (message, "hold abc")


@each_act
def test_a_provider_out_of_reach_is_named_with_the_next_step(
    act: Callable[[Holds], object],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for host in (f"http://127.0.0.1:{port}", "http://nowhere.invalid"):
        error = failure(act, gateway(host))
        assert host in error.message
        assert "Try again" in str(error.hint)


@each_act
def test_an_answer_that_never_comes_ends_with_the_timeout(act: Callable[[Holds], object]) -> None:
    with provider(lambda _: time.sleep(1)) as host:
        assert "timed out" in failure(act, gateway(host, seconds=0.2)).message


@each_act
def test_a_key_that_no_header_can_carry_is_not_shown(act: Callable[[Holds], object]) -> None:
    for key in ("SG.key\n", "SG.key…"):
        holds = SendGridGateway(
            api_key=key, host="http://127.0.0.1:9", timeout=timedelta(seconds=1)
        )
        assert "sendgrid.api_key" in str(failure(act, holds).hint)
