"""The life of a send, a batch and a delivery: every state, what it means, what may follow.

These tables are total and are the only place where a transition is allowed; the
ledger asks them, the tests walk them, the documentation is checked against them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class SendState(StrEnum):
    """A send, from the operator's wish to the sum that adds up."""

    #: Being put together; nothing will happen by itself.
    DRAFT = "draft"
    #: Content frozen; waits for a time.
    APPROVED = "approved"
    #: Starts at ``scheduled_for``.
    SCHEDULED = "scheduled"
    #: Its deliveries are being written, in one transaction.
    PLANNING = "planning"
    #: Its batches may be claimed.
    SENDING = "sending"
    #: No batch is claimed until an operator resumes it; requests under way end as they end.
    PAUSED = "paused"
    #: Every delivery is accepted, skipped or rejected.
    SENT = "sent"
    #: Ended by an operator; what had left has left.
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """A batch, from plan to the provider's answer."""

    #: Waits for its ``not_before``.
    PENDING = "pending"
    #: A worker reads its people; the request has surely not left.
    CLAIMED = "claimed"
    #: The request may have left. Committed before the first byte goes out.
    IN_FLIGHT = "in_flight"
    #: The provider took it: a 202, or an event that only an accepted request brings.
    ACCEPTED = "accepted"
    #: The provider refused it for good, or its send was cancelled.
    REJECTED = "rejected"
    #: The answer never came; evidence, policy or an operator decides.
    UNCERTAIN = "uncertain"
    #: Everybody in it had left since planning; there was nothing to send.
    SKIPPED = "skipped"


class DeliveryState(StrEnum):
    """One issue to one person."""

    #: Will be handed over.
    PLANNED = "planned"
    #: The provider has it.
    ACCEPTED = "accepted"
    #: The provider did not try.
    DROPPED = "dropped"
    #: The person's mail server took it.
    DELIVERED = "delivered"
    #: The person's mail server refused it for good.
    BOUNCED = "bounced"
    #: The person called it spam.
    COMPLAINED = "complained"
    #: The person had left, paused or been suppressed since planning.
    SKIPPED = "skipped"
    #: The provider refused the request for good, or the send was cancelled.
    REJECTED = "rejected"


class LogState(StrEnum):
    """A departure log, as far as this database knows it: what is not settled stops all sending."""

    #: All that it says is known here.
    CURRENT = "current"
    #: The database was restored since; its machine compares it.
    WAITING = "waiting"
    #: It is not where it was, and no other machine could have it.
    MISSING = "missing"
    #: A part of it is damaged or gone.
    UNREADABLE = "unreadable"
    #: It was written for another database.
    FOREIGN = "foreign"
    #: The database is older than what it keeps.
    SHORT = "short"
    #: It knows a send that the database does not, and is of a version that does not say of what.
    UNNAMED = "unnamed"
    #: An operator said that sending goes on without it.
    SET_ASIDE = "set aside"


#: Logs that keep nothing from leaving.
SETTLED_LOGS: Final = frozenset({LogState.CURRENT, LogState.SET_ASIDE})


SEND_NEXT: Final[Mapping[SendState, frozenset[SendState]]] = {
    SendState.DRAFT: frozenset({SendState.APPROVED, SendState.CANCELLED}),
    SendState.APPROVED: frozenset({SendState.SCHEDULED, SendState.CANCELLED}),
    SendState.SCHEDULED: frozenset({SendState.PLANNING, SendState.PAUSED, SendState.CANCELLED}),
    SendState.PLANNING: frozenset({SendState.SENDING, SendState.PAUSED, SendState.CANCELLED}),
    SendState.SENDING: frozenset({SendState.PAUSED, SendState.SENT, SendState.CANCELLED}),
    # A send paused before it was planned goes back to its schedule.
    SendState.PAUSED: frozenset({SendState.SENDING, SendState.SCHEDULED, SendState.CANCELLED}),
    # `newsletter sends retry` sends to those who missed it.
    SendState.SENT: frozenset({SendState.SENDING}),
    SendState.CANCELLED: frozenset({SendState.SENDING}),
}

BATCH_NEXT: Final[Mapping[BatchState, frozenset[BatchState]]] = {
    # Accepted or uncertain at once when an event, or this machine's journal, knows more
    # than the database: a backup was restored, or a doubtful batch was to go out again.
    BatchState.PENDING: frozenset(
        {BatchState.CLAIMED, BatchState.REJECTED, BatchState.ACCEPTED, BatchState.UNCERTAIN}
    ),
    BatchState.CLAIMED: frozenset(
        {
            BatchState.PENDING,
            BatchState.IN_FLIGHT,
            BatchState.SKIPPED,
            BatchState.ACCEPTED,
            BatchState.UNCERTAIN,
        }
    ),
    # Back to pending only when the request was surely not taken.
    BatchState.IN_FLIGHT: frozenset(
        {BatchState.ACCEPTED, BatchState.REJECTED, BatchState.UNCERTAIN, BatchState.PENDING}
    ),
    BatchState.UNCERTAIN: frozenset({BatchState.ACCEPTED, BatchState.PENDING, BatchState.REJECTED}),
    BatchState.ACCEPTED: frozenset(),
    BatchState.REJECTED: frozenset(),
    BatchState.SKIPPED: frozenset(),
}

DELIVERY_NEXT: Final[Mapping[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.PLANNED: frozenset(
        {DeliveryState.ACCEPTED, DeliveryState.SKIPPED, DeliveryState.REJECTED}
    ),
    DeliveryState.ACCEPTED: frozenset(
        {
            DeliveryState.DELIVERED,
            DeliveryState.BOUNCED,
            DeliveryState.DROPPED,
            DeliveryState.COMPLAINED,
        }
    ),
    # A server may take a mail and bounce it later; a person may complain after reading.
    DeliveryState.DELIVERED: frozenset({DeliveryState.BOUNCED, DeliveryState.COMPLAINED}),
    DeliveryState.BOUNCED: frozenset({DeliveryState.COMPLAINED}),
    DeliveryState.COMPLAINED: frozenset(),
    # Whoever missed the issue may be planned again: by a retry, or by another send of it.
    # A copy that did leave, as a doubt may bring one, outweighs one that was dropped.
    DeliveryState.DROPPED: frozenset(
        {
            DeliveryState.PLANNED,
            DeliveryState.DELIVERED,
            DeliveryState.BOUNCED,
            DeliveryState.COMPLAINED,
        }
    ),
    DeliveryState.SKIPPED: frozenset({DeliveryState.PLANNED}),
    DeliveryState.REJECTED: frozenset({DeliveryState.PLANNED}),
}

#: States that events set, weakest first. Each may change to any later one, so that the strongest
#: is final, in whatever order the events arrive.
TOLD: Final = (
    DeliveryState.DROPPED,
    DeliveryState.DELIVERED,
    DeliveryState.BOUNCED,
    DeliveryState.COMPLAINED,
)

#: States of a send that is over.
ENDED: Final = frozenset({SendState.SENT, SendState.CANCELLED})
#: States of recipients whom the provider has not accepted.
NOT_ACCEPTED: Final = frozenset(
    {DeliveryState.PLANNED, DeliveryState.SKIPPED, DeliveryState.REJECTED}
)
#: States of recipients whose mail server certainly never got the email.
MISSED: Final = frozenset({DeliveryState.DROPPED, DeliveryState.SKIPPED, DeliveryState.REJECTED})

#: Deliveries that are few, or that something went wrong with. All have a reason: an index finds it.
APART: Final = (
    DeliveryState.SKIPPED,
    DeliveryState.REJECTED,
    DeliveryState.DROPPED,
    DeliveryState.BOUNCED,
    DeliveryState.COMPLAINED,
)

#: Batches that still keep their send from being sent.
UNSETTLED: Final = frozenset(
    {BatchState.PENDING, BatchState.CLAIMED, BatchState.IN_FLIGHT, BatchState.UNCERTAIN}
)


def may_become(target: DeliveryState) -> frozenset[DeliveryState]:
    """The delivery states from which ``target`` may follow."""
    return frozenset(state for state, after in DELIVERY_NEXT.items() if target in after)


def batches_that_may_become(target: BatchState) -> frozenset[BatchState]:
    """The batch states from which ``target`` may follow."""
    return frozenset(state for state, after in BATCH_NEXT.items() if target in after)


def sends_that_may_become(target: SendState) -> frozenset[SendState]:
    """The send states from which ``target`` may follow."""
    return frozenset(state for state, after in SEND_NEXT.items() if target in after)
