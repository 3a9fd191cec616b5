"""SendGrid's events in our words."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsletter.provider.events import Event, Kind, Malformed, parse


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
    assert one(event="bounce").kind is Kind.BOUNCE
    assert one(event="bounce", type="bounce").kind is Kind.BOUNCE
    assert one(event="bounce", type="blocked").kind is Kind.BLOCKED
    assert one(event="bounce", type="expired").kind is Kind.BLOCKED


def test_an_unknown_kind_and_unknown_fields_are_kept() -> None:
    event = one(event="account_status_change", something=[1, {"a": None}])
    assert event.kind is Kind.OTHER
    assert json.loads(event.raw)["something"] == [1, {"a": None}]


def test_a_retry_under_a_new_event_id_is_the_same_happening() -> None:
    first = one(sg_event_id="a", sg_message_id="m.server.1")
    again = one(sg_event_id="b", sg_message_id="m.server.1")
    assert first.key == again.key
    assert one(sg_message_id="m.server.2").key != first.key
    assert one(sg_message_id="m.server.1", event="open").key != first.key
    assert one(sg_message_id="m.server.1", timestamp=1774594801).key != first.key


def test_two_links_clicked_in_one_second_are_two_happenings() -> None:
    assert one(event="click", url="https://a").key != one(event="click", url="https://b").key


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


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b'{"event":"open"}', b"\xff"])
def test_a_body_that_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


# A busy machine makes examples slowly; that is no fault of the parser.
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
