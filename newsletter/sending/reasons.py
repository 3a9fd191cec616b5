"""Why a send is paused: a code for each cause, and what an operator does about it.

The code is a column of the send. The column beside it, ``reason``, says what happened in that
one case, often in the provider's words; nothing compares or parses it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class PauseCause(StrEnum):
    """What paused a send."""

    #: An operator did.
    OPERATOR = "operator"
    #: Too many bounces, blocks, drops or complaints (newsletter.tracking.circuit_breaker).
    CIRCUIT_BREAKER = "circuit_breaker"
    #: The provider does not accept the API key.
    API_KEY = "api_key"
    #: The provider does not let this key or this sender send.
    PERMISSION = "permission"
    #: The service at the configured address is not the provider's.
    PROVIDER_HOST = "provider_host"
    #: The provider refused a batch for a reason that all batches share.
    REFUSED = "refused"
    #: The provider could not be reached, or did not answer, for too long.
    OUTAGE = "outage"
    #: The request of a batch could not be built.
    REQUEST = "request"
    #: The departure log could not be written.
    DEPARTURE_LOG = "departure_log"
    #: It was due while nothing ran, longer ago than sending.late_limit.
    LATE = "late"
    #: It could not be planned.
    START = "start"
    #: Its timetable could not be made anew.
    TIMETABLE = "timetable"
    #: The winner of its A/B test could not be chosen.
    WINNER = "winner"
    #: An operator had paused or cancelled it before the database was restored.
    RESTORE = "restore"
    #: Recipients are in no batch: a defect of this program.
    DEFECT = "defect"


#: What to do, in words that fit a page and a terminal alike.
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


def remedy(cause: str | None) -> str:
    """What an operator does about a pause; empty while the send is not paused."""
    return "" if cause is None else _REMEDIES[PauseCause(cause)]
