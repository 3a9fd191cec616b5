"""SendGrid's events in our words."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsletter.provider.events import Event, EventKind, Malformed, parse


def one(**fields: Any) -> Event:
    entry = {"email": "Alice@example.org", "event": "delivered", "timestamp": 1774594800, **fields}
    (event,) = parse(json.dumps([entry]).encode())
    assert isinstance(event, Event)
    return event


def test_our_custom_args_find_the_delivery_and_the_batch() -> None:
    event = one(nl_issue="3", nl_send="5", nl_batch="2", nl_subscriber="17")
    assert (event.issue_id, event.send_id, event.batch, event.subscriber_id) == (3, 5, 2, 17)


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "９", "9" * 30, None, [], {}])
def test_a_foreign_custom_arg_is_no_id(value: object) -> None:
    assert one(nl_subscriber=value).subscriber_id is None


def test_a_block_is_told_from_a_bounce() -> None:
    assert one(event="bounce").kind is EventKind.BOUNCE
    assert one(event="bounce", type="bounce").kind is EventKind.BOUNCE
    assert one(event="bounce", type="blocked").kind is EventKind.BLOCKED
    assert one(event="bounce", type="expired").kind is EventKind.BLOCKED


def test_an_unknown_kind_and_unknown_fields_are_kept() -> None:
    event = one(event="account_status_change", something=[1, {"a": None}])
    assert event.kind is EventKind.OTHER
    assert json.loads(event.raw)["something"] == [1, {"a": None}]


def test_a_retry_under_a_new_event_id_is_the_same_happening() -> None:
    first = one(sg_event_id="a", sg_message_id="m.server.1")
    again = one(sg_event_id="b", sg_message_id="m.server.1")
    assert first.key == again.key
    assert one(sg_message_id="m.server.2").key != first.key
    assert one(sg_message_id="m.server.1", event="open").key != first.key
    assert one(sg_message_id="m.server.1", timestamp=1774594801).key != first.key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"event": "click", "url": "https://a"}, {"event": "click", "url": "https://b"}),
        ({"event": "click", "url": "https://a/X"}, {"event": "click", "url": "https://a/x"}),
        (
            {"event": "click", "url": "https://a", "url_offset": {"index": 0, "type": "html"}},
            {"event": "click", "url": "https://a", "url_offset": {"index": 1, "type": "html"}},
        ),
        ({"event": "click", "ip": "192.0.2.1"}, {"event": "click", "ip": "192.0.2.2"}),
        ({"event": "open", "sg_machine_open": True}, {"event": "open"}),
        ({"event": "deferred", "attempt": "1"}, {"event": "deferred", "attempt": "2"}),
        ({"event": "bounce", "type": "bounce"}, {"event": "bounce", "type": "blocked"}),
        ({"event": "bounce", "reason": "550 no"}, {"event": "bounce", "reason": "552 full"}),
        ({"event": "bounce", "nl_send": "1"}, {"event": "bounce", "nl_send": "2"}),
        ({"event": "news", "what": 1}, {"event": "news", "what": 2}),
        ({"event": "group_unsubscribe", "asm_group_id": 1}, {"event": "group_unsubscribe"}),
    ],
)
def test_two_happenings_within_a_second_are_two(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert one(**first).key != one(**second).key


@pytest.mark.parametrize("event", ["delivered", "news"])
@pytest.mark.parametrize(
    "again",
    [
        {"sg_event_id": "another"},
        {"timestamp": 1774594800.0},
        {"timestamp": "1774594800"},
        {"email": "ALICE@example.org"},
    ],
)
def test_a_happening_told_a_little_otherwise_is_the_same(event: str, again: dict[str, Any]) -> None:
    assert one(event=event, **again).key == one(event=event).key


def test_the_order_of_fields_and_numbers_as_text_do_not_matter() -> None:
    one_way = one(event="deferred", attempt=3, url_offset={"index": 0, "type": "html"})
    other = one(url_offset={"type": "html", "index": 0}, attempt="3", event="deferred")
    assert one_way.key == other.key


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://x.example/a?b=1#c", "https://x.example/a?b=1#c"),
        ("https://n.example/unsubscribe/AQ-_x", "https://n.example/unsubscribe/…"),
        ("https://n.example/view/AQ-_x?b=1", "https://n.example/view/…?b=1"),
        ("https://x.example/" + "a" * 900, "https://x.example/" + "a" * 482),
    ],
)
def test_a_link_is_kept_without_who_followed_it(url: str, link: str) -> None:
    assert one(event="click", url=url).link == link


@pytest.mark.parametrize(
    ("email", "domain"),
    [("a@B.Example", "b.example"), ('"a@b"@c.example', "c.example"), ("a", "a"), ("", "")],
)
def test_the_mail_domain_is_what_follows_the_last_at(email: str, domain: str) -> None:
    assert one(email=email).domain == domain


#: One of each kind as the Event Webhook reference describes them, with values of our own.
OF_EACH: list[tuple[dict[str, Any], EventKind, dict[str, Any]]] = [
    (
        {"event": "processed", "smtp-id": "<a@sendgrid>", "send_at": 1774594900},
        EventKind.PROCESSED,
        {},
    ),
    (
        {"event": "deferred", "response": "451 4.7.1 later", "attempt": "5", "domain": "b.example"},
        EventKind.DEFERRED,
        {"reason": "451 4.7.1 later"},
    ),
    (
        {"event": "delivered", "response": "250 2.0.0 OK", "ip": "192.0.2.1", "tls": 1},
        EventKind.DELIVERED,
        {"reason": "250 2.0.0 OK"},
    ),
    (
        {
            "event": "bounce",
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 nobody",
            "bounce_classification": "Invalid Address",
        },
        EventKind.BOUNCE,
        {"status": "5.1.1", "classification": "Invalid Address", "bounce_type": "bounce"},
    ),
    (
        {"event": "bounce", "type": "blocked", "status": "4.0.0", "reason": "421 who are you"},
        EventKind.BLOCKED,
        {"reason": "421 who are you", "bounce_type": "blocked"},
    ),
    (
        {"event": "dropped", "reason": "Bounced Address", "status": "5.0.0"},
        EventKind.DROPPED,
        {"reason": "Bounced Address"},
    ),
    (
        {"event": "open", "useragent": "Mozilla/4.0", "ip": "192.0.2.1", "sg_content_type": "html"},
        EventKind.OPEN,
        {"by_machine": False, "agent": "Mozilla/4.0"},
    ),
    (
        {"event": "open", "sg_machine_open": True, "useragent": "Mozilla/5.0"},
        EventKind.OPEN,
        {"by_machine": True},
    ),
    (
        {
            "event": "click",
            "url": "https://x.example/",
            "url_offset": {"index": 0, "type": "html"},
            "useragent": "Mozilla/4.0",
        },
        EventKind.CLICK,
        {"link": "https://x.example/", "by_machine": False},
    ),
    ({"event": "spamreport"}, EventKind.SPAM_REPORT, {}),
    ({"event": "unsubscribe"}, EventKind.UNSUBSCRIBE, {}),
    (
        {"event": "group_unsubscribe", "asm_group_id": 10, "useragent": "Mozilla/4.0"},
        EventKind.GROUP_UNSUBSCRIBE,
        {},
    ),
    ({"event": "group_resubscribe", "asm_group_id": 10}, EventKind.GROUP_RESUBSCRIBE, {}),
    ({"event": "account_status_change", "type": "compliance_suspend"}, EventKind.OTHER, {}),
]


@pytest.mark.parametrize(("entry", "kind", "known"), OF_EACH)
def test_an_event_of_each_kind_is_understood(
    entry: dict[str, Any], kind: EventKind, known: dict[str, Any]
) -> None:
    common = {
        "category": ["news"],
        "sg_event_id": "x",
        "sg_message_id": "m.server.1",
        "nl_send": "5",
    }
    event = one(**common, **entry)
    assert (event.kind, event.send_id) == (kind, 5)
    assert {name: getattr(event, name) for name in known} == known
    raw = json.loads(event.raw)
    assert raw == {**raw, **common, **entry}


def test_every_kind_has_a_sample() -> None:
    assert {kind for _, kind, _ in OF_EACH} == set(EventKind)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        "x",
        [],
        {},
        {"event": "open"},
        {"event": "open", "timestamp": "soon"},
        {"event": "open", "timestamp": 1e300},
    ],
)
def test_a_malformed_entry_does_not_lose_its_neighbours(entry: object) -> None:
    good = {"event": "open", "timestamp": 1, "email": "a@b.example"}
    first, bad, last = parse(json.dumps([good, entry, good]).encode())
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert isinstance(bad, Malformed)
    assert bad.index == 1


@pytest.mark.parametrize(
    "odd", [rb'"\ud83d"', b"NaN", b"-Infinity", b"1e999", b"9" * 5000, rb'{"\udc00": [1e999]}']
)
def test_what_is_no_json_in_one_event_does_not_lose_it_nor_its_neighbours(odd: bytes) -> None:
    good = b'{"event":"open","timestamp":1,"email":"a@b.example"}'
    event = b'{"event":"click","timestamp":2,"nl_send":"5","useragent":' + odd + b"}"
    first, second, last = parse(b"[" + b",".join([good, event, good]) + b"]")
    assert isinstance(first, Event)
    assert first == last
    assert isinstance(second, Event)
    assert (second.kind, second.send_id) == (EventKind.CLICK, 5)
    json.loads(second.raw)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"nonsense", b'{"event":"open"}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


# A busy machine makes examples slowly; that is no fault of the parser.
@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["event", "timestamp", "email", "type", "reason", "nl_send"]), _json
        ),
        max_size=4,
    )
)
def test_no_json_brings_a_traceback(entries: list[dict[str, Any]]) -> None:
    assert len(parse(json.dumps(entries).encode())) == len(entries)
