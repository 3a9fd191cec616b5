"""Why a send is paused: a code for each cause, and what an operator can do about it.

The code is a column of the send. Another column, ``reason``, describes the single case, often
with the provider's text; code does not compare or parse it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class PauseCause(StrEnum):
    """What paused a send."""

    #: An operator paused it.
    OPERATOR = "operator"
    #: Too many bounces, blocks, drops or complaints, or no events at all
    #: (newsletter.tracking.circuit_breaker).
    CIRCUIT_BREAKER = "circuit_breaker"
    #: The provider does not accept the API key.
    API_KEY = "api_key"
    #: The provider does not allow this key or this sender to send.
    PERMISSION = "permission"
    #: There is another service at the provider's configured address.
    PROVIDER_HOST = "provider_host"
    #: The provider refused a batch for a reason that applies to all batches.
    REFUSED = "refused"
    #: The provider could not be reached, or did not answer, for too long.
    OUTAGE = "outage"
    #: The request of a batch could not be built.
    REQUEST = "request"
    #: The departure log could not be written.
    DEPARTURE_LOG = "departure_log"
    #: It was due while the service did not run, longer ago than sending.late_limit.
    LATE = "late"
    #: It could not be planned.
    START = "start"
    #: It could not be rescheduled.
    TIMETABLE = "timetable"
    #: The winner of its A/B test could not be chosen.
    WINNER = "winner"
    #: An operator had paused or cancelled it before the database was restored.
    RESTORE = "restore"
    #: Recipients are in no batch, because of a bug.
    DEFECT = "defect"


#: What an operator can do; shown on pages and in terminals.
_REMEDIES: Final[Mapping[PauseCause, str]] = {
    PauseCause.OPERATOR: "Resume the send to continue.",
    PauseCause.CIRCUIT_BREAKER: "When that is done, resume the send or cancel it.",
    PauseCause.API_KEY: "Check the setting sendgrid.api_key, then resume the send.",
    PauseCause.PERMISSION: (
        "Verify the sender's domain or address in SendGrid, or give the API key the Mail Send "
        "permission, then resume the send."
    ),
    PauseCause.PROVIDER_HOST: "Check the setting sendgrid.host, then resume the send.",
    PauseCause.REFUSED: "Correct what SendGrid refused, then resume the send.",
    PauseCause.OUTAGE: "When SendGrid works again, resume the send.",
    PauseCause.REQUEST: "Correct the issue or the subscriber's data, then resume the send.",
    PauseCause.DEPARTURE_LOG: "Make room for the departure log, then resume the send.",
    PauseCause.LATE: "Resume the send to start it now.",
    PauseCause.START: "Correct this, then resume the send to try again.",
    PauseCause.TIMETABLE: "Change the pace of the send, then resume it.",
    PauseCause.WINNER: "Choose the winner yourself, then resume the send.",
    PauseCause.RESTORE: "Cancel the send, or resume it.",
    PauseCause.DEFECT: "This is a bug; please report it.",
}


#: Pauses that somebody, or a rule, has decided; all others are failures.
_DECIDED: Final = frozenset({PauseCause.OPERATOR, PauseCause.CIRCUIT_BREAKER, PauseCause.RESTORE})


def is_failure(cause: PauseCause) -> bool:
    """Whether a send that was paused for this cause could not go on."""
    return cause not in _DECIDED


def remedy(cause: str | None) -> str:
    """What an operator can do about a pause; empty while the send is not paused."""
    return "" if cause is None else _REMEDIES[PauseCause(cause)]
