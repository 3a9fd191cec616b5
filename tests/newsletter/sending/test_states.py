"""The tables of states are total, and every state can be reached and left as documented."""

import pytest

from newsletter.sending.states import (
    BATCH_NEXT,
    DELIVERY_NEXT,
    MISSED,
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


def test_a_finished_send_goes_on_only_for_those_who_missed_it() -> None:
    assert SEND_NEXT[SendState.SENT] == {SendState.SENDING}
    assert SEND_NEXT[SendState.CANCELLED] == {SendState.SENDING}


def test_a_settled_batch_never_leaves_again() -> None:
    for settled in set(BatchState) - UNSETTLED:
        assert not BATCH_NEXT[settled] & UNSETTLED


def test_a_delivery_moves_backwards_only_when_the_person_surely_missed_it() -> None:
    order = list(DeliveryState)
    for state, after in DELIVERY_NEXT.items():
        backwards = {later for later in after if order.index(later) < order.index(state)}
        assert backwards == ({DeliveryState.PLANNED} if state in MISSED else set())
