"""Questions about the account: what goes wrong, an operator reads with a next step."""

import socket
import time
import traceback
from datetime import timedelta

import pytest

from newsletter.errors import ProviderError
from newsletter.provider.sendgrid import SendGridGateway
from tests.newsletter.provider.conftest import gateway, provider, says


def failure(asked: SendGridGateway) -> ProviderError:
    """What asking raises; it never shows the key, and names a next step."""
    with pytest.raises(ProviderError) as caught:
        asked.ask("get", "scopes")
    shown = "".join(traceback.format_exception(caught.value))
    assert "SG.key" not in shown
    assert caught.value.place == "scopes"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "try again"),
        (401, "api_key"),
        (403, "scope"),
        (404, "try again"),
        (429, "rate limit"),
        (500, "try again"),
        (503, "try again"),
    ],
)
def test_each_refusal_keeps_the_providers_words_and_has_its_next_step(
    status: int, hint: str
) -> None:
    with provider(says(status, {"errors": [{"field": None, "message": "no"}]})) as host:
        error = failure(gateway(host))
    assert error.message == f"SendGrid answered {status}: no"
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    ("status", "body", "what"), [(200, b"<h1>welcome</h1>", "not JSON"), (202, b"", "202")]
)
def test_an_answer_that_makes_no_sense_names_the_host(status: int, body: bytes, what: str) -> None:
    with provider(says(status, body)) as host:
        error = failure(gateway(host))
        assert host in str(error.hint)
    assert error.message.startswith("unexpected answer")
    assert what in error.message


def test_a_provider_out_of_reach_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for host in (f"http://127.0.0.1:{port}", "http://nowhere.invalid"):
        error = failure(gateway(host))
        assert host in error.message
        assert "try again" in str(error.hint)


def test_an_answer_that_never_comes_ends_with_the_timeout() -> None:
    with provider(lambda _: time.sleep(1)) as host:
        assert "timed out" in failure(gateway(host, seconds=0.2)).message


@pytest.mark.parametrize("key", ["SG.key\n", "SG.key…"])
def test_a_key_that_no_header_can_carry_is_not_shown(key: str) -> None:
    asked = SendGridGateway(api_key=key, host="http://127.0.0.1:9", timeout=timedelta(seconds=1))
    assert "sendgrid.api_key" in str(failure(asked).hint)
