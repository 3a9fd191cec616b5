"""The states of sends, batches and deliveries: what each means, and what may follow it.

These tables are complete, and the only place that allows a transition. The ledger reads
them, database triggers enforce them, and a test compares the documentation with them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class SendState(StrEnum):
    """States of a send."""

    #: In preparation; nothing starts it.
    DRAFT = "draft"
    #: Its content is final; it has no time yet.
    APPROVED = "approved"
    #: Starts at ``scheduled_for``.
    SCHEDULED = "scheduled"
    #: Its deliveries are being written, in one transaction.
    PLANNING = "planning"
    #: Workers may claim its batches.
    SENDING = "sending"
    #: Workers claim no batch until an operator resumes it; requests in flight still end.
    PAUSED = "paused"
    #: Every delivery is accepted, skipped or rejected.
    SENT = "sent"
    #: Ended by an operator; emails that had left cannot be recalled.
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """States of a batch."""

    #: Waits for its ``not_before``.
    PENDING = "pending"
    #: A worker reads its recipients; the request has not left.
    CLAIMED = "claimed"
    #: The request may have left. Committed before the first byte goes out.
    IN_FLIGHT = "in_flight"
    #: The provider accepted it: a 202, or an event that only follows an accepted request.
    ACCEPTED = "accepted"
    #: The provider refused it for good, or its send was cancelled.
    REJECTED = "rejected"
    #: No answer came; an event, the policy or an operator resolves it.
    UNCERTAIN = "uncertain"
    #: Every recipient had unsubscribed or was suppressed since planning: nothing to send.
    SKIPPED = "skipped"


class DeliveryState(StrEnum):
    """States of a delivery: one issue to one subscriber."""

    #: Not sent yet.
    PLANNED = "planned"
    #: The provider accepted it.
    ACCEPTED = "accepted"
    #: The provider did not try to deliver it.
    DROPPED = "dropped"
    #: The recipient's mail server accepted it.
    DELIVERED = "delivered"
    #: The recipient's mail server refused it for good.
    BOUNCED = "bounced"
    #: The recipient marked it as spam.
    COMPLAINED = "complained"
    #: The subscriber unsubscribed, paused or was suppressed since planning.
    SKIPPED = "skipped"
    #: The provider refused the request for good, or the send was cancelled.
    REJECTED = "rejected"


class LogState(StrEnum):
    """States of a departure log; all but the settled ones stop all sending."""

    #: The database has everything in it.
    CURRENT = "current"
    #: The database was restored since; the log's machine has to compare it.
    WAITING = "waiting"
    #: It is no longer in its folder, and no other machine can have it.
    MISSING = "missing"
    #: A part of it is damaged or missing.
    UNREADABLE = "unreadable"
    #: It was written for another database.
    FOREIGN = "foreign"
    #: The database is older than the oldest lines of the log.
    SHORT = "short"
    #: It has a send that the database lost; an older version wrote it without the issue.
    UNNAMED = "unnamed"
    #: An operator decided that sending goes on without it.
    SET_ASIDE = "set aside"


#: States of logs that do not block sending.
SETTLED_LOGS: Final = frozenset({LogState.CURRENT, LogState.SET_ASIDE})


SEND_NEXT: Final[Mapping[SendState, frozenset[SendState]]] = {
    SendState.DRAFT: frozenset({SendState.APPROVED, SendState.CANCELLED}),
    SendState.APPROVED: frozenset({SendState.SCHEDULED, SendState.CANCELLED}),
    SendState.SCHEDULED: frozenset({SendState.PLANNING, SendState.PAUSED, SendState.CANCELLED}),
    SendState.PLANNING: frozenset({SendState.SENDING, SendState.PAUSED, SendState.CANCELLED}),
    SendState.SENDING: frozenset({SendState.PAUSED, SendState.SENT, SendState.CANCELLED}),
    # A send paused before it was planned goes back to its schedule.
    SendState.PAUSED: frozenset({SendState.SENDING, SendState.SCHEDULED, SendState.CANCELLED}),
    # A retry sends to those who missed the issue.
    SendState.SENT: frozenset({SendState.SENDING}),
    SendState.CANCELLED: frozenset({SendState.SENDING}),
}

BATCH_NEXT: Final[Mapping[BatchState, frozenset[BatchState]]] = {
    # Accepted or uncertain at once when an event or a departure log proves it: a backup was
    # restored, or the batch was uncertain and waits to be resent.
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
    # Back to pending only when the request was certainly not accepted.
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
    # A server may accept an email and bounce it later; a recipient may complain after reading.
    DeliveryState.DELIVERED: frozenset({DeliveryState.BOUNCED, DeliveryState.COMPLAINED}),
    DeliveryState.BOUNCED: frozenset({DeliveryState.COMPLAINED}),
    DeliveryState.COMPLAINED: frozenset(),
    # Recipients who missed the issue may be planned again, by a retry or another send of it.
    # After an uncertain batch was resent, one copy may be dropped and the other delivered.
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

#: The states that events report, weakest first. Each may become any later one, so that the
#: strongest remains, in whatever order the events arrive.
REPORTED: Final = (
    DeliveryState.DROPPED,
    DeliveryState.DELIVERED,
    DeliveryState.BOUNCED,
    DeliveryState.COMPLAINED,
)

#: States of a send that has ended.
ENDED: Final = frozenset({SendState.SENT, SendState.CANCELLED})
#: States of recipients whom the provider has not accepted.
NOT_ACCEPTED: Final = frozenset(
    {DeliveryState.PLANNED, DeliveryState.SKIPPED, DeliveryState.REJECTED}
)
#: States of recipients who missed the issue: their mail servers never got it.
MISSED: Final = frozenset({DeliveryState.DROPPED, DeliveryState.SKIPPED, DeliveryState.REJECTED})

#: States of deliveries with a problem. They always have a reason, and are indexed by it.
PROBLEMS: Final = (
    DeliveryState.SKIPPED,
    DeliveryState.REJECTED,
    DeliveryState.DROPPED,
    DeliveryState.BOUNCED,
    DeliveryState.COMPLAINED,
)

#: States of batches whose send is not sent yet.
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
