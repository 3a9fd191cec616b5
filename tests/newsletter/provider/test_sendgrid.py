"""The provider's edge: every answer and every silence becomes one of four outcomes."""

import base64
import io
import json
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest
import time_machine
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from newsletter.errors import ProviderError
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Recipient, Refused, Unknown
from newsletter.provider.payload import payload
from newsletter.provider.sendgrid import SendGridGateway, WebhookVerifier
from tests.newsletter.provider.conftest import gateway, provider, says

ALICE = Recipient(
    "alice@example.org", {"-x-": "Ä"}, {"List-Unsubscribe": "<https://x/u>"}, {"i": "1"}
)
REQUEST = MailRequest(
    sender_email="news@example.org",
    sender_name="News; and, more",
    reply_to="editors@example.org",
    subject="Hello -x-",
    text="Hello -x-",
    html="<p>Hello -x-</p>",
    recipients=[ALICE],
    custom_args={"nl_send": "1"},
)


def test_a_202_is_accepted_and_the_request_is_what_sendgrid_documents() -> None:
    seen: list[BaseHTTPRequestHandler] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler)
        says(202, X_Message_Id="abc")(handler)

    with provider(answer) as host:
        assert gateway(host).send(REQUEST) == Accepted("abc")
    (handler,) = seen
    assert handler.path == "/v3/mail/send"
    assert handler.headers["Authorization"] == "Bearer SG.key"
    assert json.loads(handler.body) == payload(REQUEST)  # type: ignore[attr-defined]


def test_no_log_shows_the_key_or_an_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with provider(says(202, X_Message_Id="abc")) as host:
        assert gateway(host).send(REQUEST) == Accepted("abc")
    with provider(says(201, {})) as host:
        gateway(host).ask("post", "asm/suppressions/global", body=["alice@example.org"])
    assert "SG.key" not in caplog.text
    assert "alice@example.org" not in caplog.text


def test_the_payload_holds_what_all_share_once_and_each_persons_part_apart() -> None:
    body = payload(REQUEST)
    assert [part["type"] for part in body["content"]] == ["text/plain", "text/html"]
    assert body["reply_to"] == {"email": "editors@example.org"}
    assert body["personalizations"] == [
        {
            "to": [{"email": "alice@example.org"}],
            "substitutions": {"-x-": "Ä"},
            "headers": {"List-Unsubscribe": "<https://x/u>"},
            "custom_args": {"i": "1"},
        }
    ]
    assert body["tracking_settings"]["subscription_tracking"] == {"enable": False}


def test_an_answer_reaches_also_who_has_left_and_an_issue_does_not() -> None:
    answered = payload(replace(REQUEST, answers=True))
    assert answered["mail_settings"] == {
        "bypass_unsubscribe_management": {"enable": True},
        "bypass_bounce_management": {"enable": True},
        "bypass_spam_management": {"enable": True},
    }
    assert "mail_settings" not in payload(REQUEST)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415])
def test_a_refusal_is_final_and_carries_the_providers_words(status: int) -> None:
    complaint = {"errors": [{"message": "no good", "field": "personalizations.7.to.0.email"}]}
    with provider(says(status, complaint)) as host:
        assert gateway(host).send(REQUEST) == Refused(status, "no good", recipient=7)


def test_a_refusal_without_json_is_still_explained() -> None:
    with provider(says(403, b"<h1>proxy says no</h1>")) as host:
        assert gateway(host).send(REQUEST) == Refused(403, "<h1>proxy says no</h1>")


@pytest.mark.parametrize("key", ["SG.s3cret\n", "SG.s3cret…", "SG.s3 cret"])
def test_a_key_that_no_request_can_carry_is_refused_before_anything_leaves(key: str) -> None:
    asked: list[str] = []
    with provider(lambda handler: asked.append(handler.path)) as host:
        unfit = SendGridGateway(api_key=key, host=host, timeout=timedelta(seconds=5))
        outcome = unfit.send(REQUEST)
    assert isinstance(outcome, Refused)
    assert (outcome.status, asked) == (401, [])
    assert "s3" not in outcome.reason


@pytest.mark.parametrize("reset", ["30", lambda: str(int(time.time()) + 30)])
def test_a_429_is_not_sent_and_waits_for_the_reset_in_either_notation(reset) -> None:
    value = reset if isinstance(reset, str) else reset()
    with provider(says(429, X_RateLimit_Reset=value)) as host:
        outcome = gateway(host).send(REQUEST)
    assert isinstance(outcome, NotSent)
    assert outcome.retry_after is not None
    assert timedelta(seconds=25) < outcome.retry_after <= timedelta(seconds=31)


@pytest.mark.parametrize(("reset", "seconds"), [("-3", 0), ("nan", 0), ("inf", 3600)])
def test_a_reset_that_is_no_time_to_come_is_a_length_of_time_still(
    reset: str, seconds: int
) -> None:
    with provider(says(429, X_RateLimit_Reset=reset)) as host:
        outcome = gateway(host).send(REQUEST)
    assert isinstance(outcome, NotSent)
    assert outcome.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_unknown(status: int) -> None:
    with provider(says(status)) as host:
        assert isinstance(gateway(host).send(REQUEST), Unknown)


def test_a_200_is_no_acceptance() -> None:
    with provider(says(200)) as host:
        assert isinstance(gateway(host).send(REQUEST), Unknown)


def test_a_redirect_followed_as_a_get_is_no_acceptance() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        target = f"http://127.0.0.1:{handler.server.server_port}/elsewhere"  # type: ignore[attr-defined]
        says(302, Location=target)(handler) if handler.command == "POST" else says(200)(handler)

    with provider(lambda h: answer(_with_length(h))) as host:
        assert isinstance(gateway(host).send(REQUEST), (Unknown, Refused))


@pytest.mark.parametrize("target", ["http://[", "http://nowhere:port/", "http://a b\x7f/"])
def test_a_redirect_to_nonsense_is_unknown(target: str) -> None:
    with provider(says(302, Location=target)) as host:
        assert isinstance(gateway(host).send(REQUEST), Unknown)


def _with_length(handler: BaseHTTPRequestHandler) -> BaseHTTPRequestHandler:
    return handler


def test_a_connection_lost_after_the_body_is_unknown() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        # RST instead of FIN.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True
        handler.wfile = io.BytesIO()

    with provider(answer) as host:
        assert isinstance(gateway(host).send(REQUEST), Unknown)


def test_an_answer_that_never_comes_is_unknown_after_the_timeout() -> None:
    with provider(lambda _: time.sleep(1)) as host:
        began = time.monotonic()
        assert isinstance(gateway(host, seconds=0.2).send(REQUEST), Unknown)
        assert time.monotonic() - began < 1


def test_a_refused_connection_and_an_unknown_host_are_surely_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert isinstance(gateway(f"http://127.0.0.1:{port}").send(REQUEST), NotSent)
    assert isinstance(gateway("http://nowhere.invalid").send(REQUEST), NotSent)


def signer() -> tuple[str, Callable[[bytes, str], str]]:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def sign(body: bytes, timestamp: str) -> str:
        return base64.b64encode(
            key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        ).decode()

    return base64.b64encode(der).decode(), sign


BODY = '[{"event":"open","naïve":true}]\r\n'.encode()


def test_a_signed_body_is_proved_and_any_changed_byte_is_not() -> None:
    public, sign = signer()
    now = str(int(time.time()))
    signature = sign(BODY, now)
    verifier = WebhookVerifier([public], max_age=timedelta(hours=25))
    assert verifier.verify(BODY, signature=signature, timestamp=now)
    for position in range(len(BODY)):
        bent = BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :]
        assert not verifier.verify(bent, signature=signature, timestamp=now)
    assert not verifier.verify(BODY, signature=signature, timestamp=str(int(now) + 1))


#: A post that SendGrid signed, as its SDKs publish it with their tests of the verifier.
PUBLISHED_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3G"
    "Rqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
)
PUBLISHED_SIGNATURE = (
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15Tl"
    "uLtEZtM="
)
PUBLISHED_TIME = 1600112502
PUBLISHED_BODY = (
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>",'
    b'"timestamp":1600112492}]\r\n'
)


def test_what_sendgrid_itself_signed_is_proved_and_any_changed_byte_is_not() -> None:
    verifier = WebhookVerifier([PUBLISHED_KEY], max_age=timedelta(hours=25))
    known = {"signature": PUBLISHED_SIGNATURE, "timestamp": str(PUBLISHED_TIME)}
    with time_machine.travel(PUBLISHED_TIME + 24 * 3600, tick=False):
        assert verifier.verify(PUBLISHED_BODY, **known)
        assert not verifier.verify(PUBLISHED_BODY.rstrip(), **known)
        for position in range(len(PUBLISHED_BODY)):
            bent = bytearray(PUBLISHED_BODY)
            bent[position] ^= 1
            assert not verifier.verify(bytes(bent), **known)
    assert not verifier.verify(PUBLISHED_BODY, **known)


def test_keys_rotate() -> None:
    old, sign = signer()
    new, _ = signer()
    now = str(int(time.time()))
    verifier = WebhookVerifier([new, old], max_age=timedelta(hours=25))
    assert verifier.verify(BODY, signature=sign(BODY, now), timestamp=now)
    assert not WebhookVerifier([new], max_age=timedelta(hours=25)).verify(
        BODY, signature=sign(BODY, now), timestamp=now
    )


def test_a_retry_within_the_window_is_taken_and_an_old_post_is_not() -> None:
    public, sign = signer()
    verifier = WebhookVerifier([public], max_age=timedelta(hours=25))
    for hours, taken in ((24, True), (26, False), (-1, False)):
        stamp = str(int(time.time() - hours * 3600))
        assert verifier.verify(BODY, signature=sign(BODY, stamp), timestamp=stamp) is taken


@pytest.mark.parametrize(
    ("signature", "timestamp"),
    [("", ""), ("not base64 !", "1"), ("AAAA", "1"), ("AAAA", "soon"), ("ÄÖ", "1")],
)
def test_nonsense_for_a_signature_is_refused_quietly(signature: str, timestamp: str) -> None:
    public, _ = signer()
    stamp = timestamp if not timestamp.isdigit() else str(int(time.time()))
    verifier = WebhookVerifier([public], max_age=timedelta(hours=25))
    assert not verifier.verify(BODY, signature=signature, timestamp=stamp)


def test_without_a_key_nothing_is_taken() -> None:
    _, sign = signer()
    now = str(int(time.time()))
    verifier = WebhookVerifier([], max_age=timedelta(hours=25))
    assert not verifier.verify(BODY, signature=sign(BODY, now), timestamp=now)


def test_a_key_that_is_none_is_explained() -> None:
    with pytest.raises(ProviderError, match="not a public key"):
        WebhookVerifier(["MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE…"], max_age=timedelta(hours=25))
