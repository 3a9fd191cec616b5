"""Webhooks over real HTTP: signed, in order, at least once, and harmless to everybody else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.db.webhook_queue import WebhookEndpoint, WebhookEvent
from newsletter.webhooks import deliveries, endpoints, sender
from tests.newsletter.webhooks.conftest import BY, HOST, Hooks, Receiver, free_port, until

_endpoint = table_of(WebhookEndpoint)
pytestmark = pytest.mark.both_databases


def serve(environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    """A service in a process of its own, which may post to a receiver."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("newsletter"), "serve", "--port", "0"],
        env={"PATH": os.environ["PATH"], **environment, "NEWSLETTER_WEBHOOKS__ALLOW_HOSTS": HOST},
        cwd=folder,
    )


def ask(hooks: Hooks, number: int) -> int:
    """Queue a test of an endpoint; the delivery's number."""
    with transaction(hooks.database) as session:
        return endpoints.send_test(session, number, by=BY, now=datetime.now(UTC))


def test_a_delivery_has_the_headers_of_the_scheme_and_is_settled(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, secret = hooks.add(receiver.url)
    receiver.answer, receiver.text = 200, b"thanks"
    ask(hooks, number)
    hooks.send()
    (post,) = receiver.posts
    (row,) = hooks.rows()
    assert post.verified(secret)
    assert post.id == f"msg_{row.message_id}"
    assert post.headers["content-type"] == "application/json"
    assert post.data == {"sequence": 1, "asked_by": "test"}
    assert (row.state, row.status, row.answer, row.attempt) == ("delivered", 200, "thanks", 1)
    with pytest.raises(Exception, match="matching signature"):
        post.verified("whsec_" + "A" * 43 + "=")


def test_the_standard_s_own_example_is_signed_as_it_says() -> None:
    from standardwebhooks import Webhook

    from newsletter.webhooks import signatures

    secret, at = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", datetime.now(UTC)
    body = b'{"test": 2432232314}'
    made = dict(
        signatures.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", int(at.timestamp()), body, [secret])
    )
    expected = Webhook(secret).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body.decode())
    assert made["webhook-signature"] == expected


def test_both_secrets_sign_for_a_day_after_a_rotation(hooks: Hooks, receiver: Receiver) -> None:
    number, old = hooks.add(receiver.url)
    with transaction(hooks.database) as session:
        new = endpoints.rotate(session, number, by=BY, now=datetime.now(UTC))
    ask(hooks, number)
    hooks.send()
    assert receiver.posts[0].verified(old, new)
    with transaction(hooks.database) as session:
        over = {"old_secret_until": datetime.now(UTC)}
        session.execute(update(_endpoint).values(over))
    ask(hooks, number)
    hooks.send()
    assert receiver.posts[1].verified(new)
    with pytest.raises(Exception, match="matching signature"):
        receiver.posts[1].verified(old)


def test_an_error_is_tried_again_with_the_same_id_until_it_is_accepted(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url)
    ask(hooks, number)
    receiver.answer, receiver.text = 500, b"x" * 5000
    hooks.send()
    hooks.send()
    (row,) = hooks.rows()
    assert len(receiver.posts) == 1
    assert (row.state, row.status, len(row.answer)) == ("pending", 500, 1000)
    assert timedelta(seconds=3) < row.not_before - row.sent_at < timedelta(seconds=20)
    assert hooks.endpoint(number).failures == 1
    receiver.answer = 204
    hooks.past(datetime.now(UTC))
    hooks.send()
    assert {post.id for post in receiver.posts} == {f"msg_{row.message_id}"}
    assert [post.data["sequence"] for post in receiver.posts] == [1, 1]
    assert hooks.rows()[0].state == "delivered"
    assert hooks.endpoint(number).failing_since is None


def test_one_bad_delivery_is_given_up_after_all_retries_and_holds_up_no_other(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url)
    bad = ask(hooks, number)
    receiver.answer = 500
    for _ in range(len(deliveries.RETRIES) + 1):
        hooks.past(datetime.now(UTC))
        hooks.send()
    row = hooks.rows()[0]
    assert (row.id, row.state, row.attempt) == (bad, "failed", len(deliveries.RETRIES) + 1)
    receiver.answer = 200
    ask(hooks, number)
    hooks.past(datetime.now(UTC))
    hooks.send()
    assert [one.state for one in hooks.rows()] == ["failed", "delivered"]
    assert sum(deliveries.RETRIES, timedelta(0)) >= timedelta(days=3)


def test_after_an_outage_everything_follows_at_once_in_its_first_order(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url)
    receiver.answer = 503
    for _ in range(6):
        ask(hooks, number)
    for _ in range(4):
        with transaction(hooks.database) as session:
            # The endpoint's rest ends, and the waits of what was tried go on.
            session.execute(update(_endpoint).values(not_before=datetime.now(UTC)))
        hooks.send()
    assert hooks.endpoint(number).failures == 4
    receiver.answer = 200
    receiver.posts.clear()
    with transaction(hooks.database) as session:
        session.execute(update(_endpoint).values(not_before=datetime.now(UTC)))
    hooks.send()
    assert [post.data["sequence"] for post in receiver.posts] == [5, 1, 2, 3, 4, 6]
    assert {row.state for row in hooks.rows()} == {"delivered"}


def test_410_disables_the_endpoint_and_operators_are_told(hooks: Hooks, receiver: Receiver) -> None:
    number, _ = hooks.add(receiver.url)
    ask(hooks, number)
    ask(hooks, number)
    receiver.answer = 410
    hooks.send()
    assert len(receiver.posts) == 1
    assert [row.state for row in hooks.rows()] == ["failed", "pending"]
    assert hooks.endpoint(number).disabled_reason == "it answered 410 Gone"
    with reading(hooks.database) as session:
        (message,) = operator_messages.latest(session, limit=5)
    assert (message.kind, message.subject) == (MessageKind.WEBHOOK_DISABLED, str(number))
    receiver.answer = 200
    with transaction(hooks.database) as session:
        endpoints.enable(session, number, by=BY, now=datetime.now(UTC))
    hooks.send()
    assert [row.state for row in hooks.rows()] == ["failed", "delivered"]


def test_an_endpoint_that_fails_for_three_days_is_disabled(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(f"http://{HOST}:{free_port()}/")
    ask(hooks, number)
    hooks.send()
    assert hooks.endpoint(number).disabled_at is None
    with transaction(hooks.database) as session:
        long_ago = {"failing_since": datetime.now(UTC) - timedelta(days=3, seconds=1)}
        session.execute(update(_endpoint).values(long_ago))
    hooks.past(datetime.now(UTC))
    hooks.send()
    assert hooks.endpoint(number).disabled_reason == "it accepted nothing for three days"
    with reading(hooks.database) as session:
        (message,) = operator_messages.latest(session, limit=5)
    assert message.kind == MessageKind.WEBHOOK_DISABLED


def _redirect(handler: Any) -> None:
    handler.send_response(302)
    handler.send_header("location", f"{handler.server.url}/elsewhere")
    handler.send_header("content-length", "0")
    handler.end_headers()


def _close(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.close()


def _nonsense(handler: Any) -> None:
    handler.close_connection = True
    handler.wfile.write(b"\x00\x01 not http\r\n\r\n")


def _gigabyte(handler: Any) -> None:
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("content-length", str(2**30))
    handler.end_headers()
    part = b"y" * 65536
    for _ in range(2**14):
        handler.wfile.write(part)
        handler.server.text += b"."


def _hang(handler: Any) -> None:
    handler.close_connection = True
    handler.server.hold.wait(60)


def _drip(handler: Any) -> None:
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    while not handler.server.hold.wait(0.05):
        handler.wfile.write(b"1\r\nz\r\n")


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (_redirect, 302, ""),
        (_close, None, "disconnected"),
        (_nonsense, None, ""),
        (_hang, None, "did not answer within 0.5 seconds"),
        (_drip, None, "did not answer within 0.5 seconds"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(
    hooks: Hooks,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Any], None],
    status: int | None,
    text: str,
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT", timedelta(seconds=0.5))
    number, _ = hooks.add(receiver.url)
    ask(hooks, number)
    receiver.answer = answer
    hooks.send()
    (row,) = hooks.rows()
    assert [post.path for post in receiver.posts] == ["/hook"]
    assert (row.state, row.status) == ("pending", status)
    assert text in row.answer


def test_of_an_endless_answer_little_is_read(hooks: Hooks, receiver: Receiver) -> None:
    number, _ = hooks.add(receiver.url)
    ask(hooks, number)
    receiver.answer = _gigabyte
    hooks.send()
    (row,) = hooks.rows()
    assert (row.state, row.status, row.answer) == ("delivered", 200, "y" * 1000)
    # Only what the operating system buffers.
    assert len(receiver.text) < 500


def test_a_hanging_endpoint_does_not_delay_another(
    hooks: Hooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT", timedelta(seconds=3))
    receiver.answer = lambda handler: (
        _hang(handler) if handler.path == "/slow" else _answer(handler)
    )
    slow, _ = hooks.add(receiver.url.replace("/hook", "/slow"))
    quick, _ = hooks.add(receiver.url)
    for number in (slow, *[quick] * 5):
        ask(hooks, number)
    running = threading.Thread(target=hooks.send)
    running.start()
    assert until(lambda: [row.state for row in hooks.rows()].count("delivered") == 5)
    assert running.is_alive()
    assert hooks.rows()[0].state == "pending"
    receiver.hold.set()
    running.join()


def _answer(handler: Any) -> None:
    handler.send_response(204)
    handler.end_headers()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.1.2.3/",
        "https://192.168.0.1:8443/",
        "https://2130706433/",
        "https://0/",
        "https://[::ffff:127.0.0.1]/",
        "http://public.com/",
        "https://user:secret@public.com/",
        "ftp://public.com/",
        "https://",
        "https://public.com/#part",
        "https://public.com:0/",
        "https://public.com:99999/",
        "https://pub lic.com/",
        "https://büro.example/",
        "https://public.com/" + "a" * 2000,
        "",
    ],
)
def test_an_address_that_is_not_public_is_refused_at_once(hooks: Hooks, url: str) -> None:
    with pytest.raises(endpoints.WebhookError), transaction(hooks.database) as session:
        endpoints.create(session, url, [WebhookEvent.SEND_FINISHED], by=BY, now=datetime.now(UTC))


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "0"],
)
def test_a_name_that_leads_into_a_private_network_is_refused_at_the_connection(
    hooks: Hooks, receiver: Receiver, host: str
) -> None:
    number, _ = hooks.add(receiver.url)
    with transaction(hooks.database) as session:
        # As if the name had led elsewhere when the endpoint was created.
        changed = {"url": f"http://{host}:{receiver.server_port}/"}
        session.execute(update(_endpoint).values(changed))
    ask(hooks, number)
    hooks.allow_hosts = []
    hooks.send()
    (row,) = hooks.rows()
    assert receiver.posts == []
    assert row.status is None
    assert "private network" in row.answer or "no such host" in row.answer


def test_two_senders_never_post_to_an_endpoint_at_once(hooks: Hooks, receiver: Receiver) -> None:
    number, _ = hooks.add(receiver.url)
    for _ in range(40):
        ask(hooks, number)
    senders = [threading.Thread(target=hooks.send) for _ in range(4)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    hooks.send()
    assert receiver.most == 1
    assert len({post.id for post in receiver.posts}) == len(receiver.posts) == 40
    assert [post.data["sequence"] for post in receiver.posts] == list(range(1, 41))


def test_a_lease_that_is_over_settles_nothing_of_its_successor(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url)
    ask(hooks, number)
    now = datetime.now(UTC)
    with transaction(hooks.database) as session:
        first = deliveries.lease(session, now=now)
        assert first is not None
        sent = deliveries.take(session, first, now=now)
        assert sent is not None
        assert deliveries.lease(session, now=now) is None
    later = now + deliveries.LEASE + timedelta(seconds=1)
    with transaction(hooks.database) as session:
        second = deliveries.lease(session, now=later)
        assert second is not None
        again = deliveries.take(session, second, now=later)
        assert again is not None
        assert (again.message_id, again.attempt) == (sent.message_id, 2)
    with transaction(hooks.database) as session:
        answer = deliveries.Answer(500, "")
        assert deliveries.take(session, first, now=later) is None
        assert deliveries.settle(session, first, sent, answer, now=later) is False
    assert (hooks.rows()[0].state, hooks.rows()[0].status) == ("pending", None)
    assert hooks.endpoint(number).failures == 0


def test_a_delivery_is_sent_again_on_request(hooks: Hooks, receiver: Receiver) -> None:
    number, _ = hooks.add(receiver.url)
    delivery = ask(hooks, number)
    hooks.send()
    with transaction(hooks.database) as session:
        assert deliveries.resend(session, delivery, by=BY, now=datetime.now(UTC)) == number
    hooks.send()
    assert [post.id for post in receiver.posts] == [receiver.posts[0].id] * 2
    assert receiver.posts[0].body == receiver.posts[1].body


def test_deliveries_are_kept_for_thirty_days(hooks: Hooks) -> None:
    number, _ = hooks.add("https://public.example/")
    ask(hooks, number)
    for days, left in ((29, 1), (31, 0)):
        with transaction(hooks.database) as session:
            deliveries.delete_old(session, now=datetime.now(UTC) + timedelta(days=days))
        assert len(hooks.rows()) == left


def test_a_started_sender_sends_at_once_and_without_work_it_has_one_thread(
    hooks: Hooks, receiver: Receiver
) -> None:
    number, _ = hooks.add(receiver.url)
    running = hooks.sender()
    running.start()
    try:
        ask(hooks, number)
        assert until(lambda: hooks.rows()[0].state == "delivered")
        assert until(
            lambda: not [t for t in threading.enumerate() if t.name.startswith("webhook_")]
        )
    finally:
        running.stop()


@pytest.mark.slow
def test_a_killed_process_sends_again_with_the_same_id(
    hooks: Hooks, receiver: Receiver, environment: dict[str, str], tmp_path: Path
) -> None:
    receiver.answer = _hang
    number, secret = hooks.add(receiver.url)
    ask(hooks, number)
    process = serve(environment, tmp_path)
    try:
        assert until(lambda: receiver.posts)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    receiver.hold.set()
    receiver.answer = 204
    assert hooks.rows()[0].state == "pending"
    # The dead process's lease ends after a minute.
    hooks.past(datetime.now(UTC))
    hooks.send()
    first, second = receiver.posts
    assert first.id == second.id
    assert first.body == second.body
    assert second.verified(secret)
    assert hooks.rows()[0].state == "delivered"


@pytest.mark.slow
def test_two_processes_never_post_to_an_endpoint_at_once(
    hooks: Hooks, receiver: Receiver, environment: dict[str, str], tmp_path: Path
) -> None:
    number, _ = hooks.add(receiver.url)
    processes = [serve(environment, tmp_path) for _ in range(2)]
    try:
        for _ in range(200):
            ask(hooks, number)
        assert until(lambda: {row.state for row in hooks.rows()} == {"delivered"})
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait() for process in processes]
    assert codes == [0, 0]
    assert receiver.most == 1
    assert [post.data["sequence"] for post in receiver.posts] == list(range(1, 201))
