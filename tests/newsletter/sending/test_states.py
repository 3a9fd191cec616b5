"""The tables of states are total, and every state can be reached and left as documented."""

import pytest

from newsletter.sending.states import (
    BATCH_NEXT,
    DELIVERY_NEXT,
    SEND_NEXT,
    UNSETTLED,
    BatchState,
    DeliveryState,
    SendState,
)


@pytest.mark.parametrize(
    ("states", "table", "first"),
    [
        (SendState, SEND_NEXT, SendState.DRAFT),
        (BatchState, BATCH_NEXT, BatchState.PENDING),
        (DeliveryState, DELIVERY_NEXT, DeliveryState.PLANNED),
    ],
)
def test_each_table_is_total_and_every_state_can_be_reached(states, table, first) -> None:
    assert set(table) == set(states)
    reached, frontier = {first}, [first]
    while frontier:
        frontier = [s for s in {n for f in frontier for n in table[f]} if s not in reached]
        reached.update(frontier)
    assert reached == set(states)


def test_a_finished_send_stays_finished() -> None:
    assert not SEND_NEXT[SendState.SENT]
    assert not SEND_NEXT[SendState.CANCELLED]


def test_a_settled_batch_never_leaves_again() -> None:
    assert {state for state in BatchState if not BATCH_NEXT[state]} == set(BatchState) - UNSETTLED


def test_no_delivery_moves_backwards() -> None:
    order = list(DeliveryState)
    for state, after in DELIVERY_NEXT.items():
        assert all(order.index(later) > order.index(state) for later in after)
