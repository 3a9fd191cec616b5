"""The table that says, for each answer and each missing answer, whether SendGrid has the request.

A request is retried automatically only if it certainly was not accepted: SendGrid says so, or no
byte of it can have been sent. Everything else may have been accepted, because requests have no
idempotency key. A test runs the table on real sockets, and
docs/how-it-works/delivery-guarantees.md shows it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Acceptance(StrEnum):
    """Whether SendGrid has the request."""

    ACCEPTED = "accepted"
    #: It does not have it and will never accept it.
    REFUSED = "refused"
    #: It does not have it and may accept the same request later.
    NOT_ACCEPTED = "not accepted"
    #: It may have the whole request or nothing.
    UNCERTAIN = "uncertain"


class Answer(NamedTuple):
    """One row of the table."""

    what: str
    acceptance: Acceptance
    #: The documentation, or the reason.
    source: str


#: Twilio SendGrid's API reference, as of November 2026.
_REFERENCE = "https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api"
_REFUSAL = Answer(
    "400, 401, 403, 404, 405, 413, 415",
    Acceptance.REFUSED,
    f"{_REFERENCE}/errors: there was a problem with the request",
)
_FAILURE = Answer(
    "500, 502, 503, 504",
    Acceptance.UNCERTAIN,
    f"{_REFERENCE}/errors: a valid request failed while SendGrid processed it, or its API was "
    "not available; of neither it says that nothing was queued. 502 and 504 are not documented",
)

#: The meaning of a complete answer with one of these statuses.
STATUSES: Final[Mapping[int, Answer]] = {
    202: Answer("202", Acceptance.ACCEPTED, f"{_REFERENCE}/responses: valid, and queued"),
    429: Answer(
        "429",
        Acceptance.NOT_ACCEPTED,
        f"{_REFERENCE}/rate-limits: try again after X-RateLimit-Reset",
    ),
    **dict.fromkeys((400, 401, 403, 404, 405, 413, 415), _REFUSAL),
    **dict.fromkeys((500, 502, 503, 504), _FAILURE),
}
#: A complete answer with any other status.
OTHER_STATUS: Final = Answer(
    "any other status, also a redirect",
    Acceptance.UNCERTAIN,
    "not documented for mail send, so it may come from something else. A redirect is not "
    "followed, because the client would request the new URL without the email",
)
NO_CONNECTION: Final = Answer(
    "no connection: refused, unknown host, no route, no TLS, no free file descriptor, timeout",
    Acceptance.NOT_ACCEPTED,
    "HTTP needs an established connection (RFC 9112, 9.1), and with TLS a finished handshake "
    "(RFC 8446, 2): before that, no byte of the request was sent",
)
NO_ANSWER: Final = Answer(
    "connected, and no answer: closed, reset, or none within sendgrid.timeout",
    Acceptance.UNCERTAIN,
    "the server may process a request even if its answer is lost",
)
BROKEN_ANSWER: Final = Answer(
    "an answer that is cut off, or is not HTTP",
    Acceptance.UNCERTAIN,
    "a message without its proper end is incomplete (RFC 9112, 8)",
)

#: All rows, in the order of the documentation.
TABLE: Final = (
    STATUSES[202],
    STATUSES[429],
    NO_CONNECTION,
    _REFUSAL,
    _FAILURE,
    OTHER_STATUS,
    NO_ANSWER,
    BROKEN_ANSWER,
)


def of_status(status: int) -> Acceptance:
    """The meaning of a complete answer with this status."""
    return STATUSES.get(status, OTHER_STATUS).acceptance
