"""The interface of a provider: one request, one of four outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Protocol


class Recipient(NamedTuple):
    """One recipient's part of a request. A tuple, because a send makes up to a million."""

    email: str
    #: Tag in subject, text and html → this recipient's value.
    substitutions: Mapping[str, str]
    headers: Mapping[str, str]
    #: The provider returns these with every event of this recipient.
    custom_args: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MailRequest:
    """One email for up to 1,000 recipients."""

    sender_email: str
    sender_name: str
    subject: str
    text: str
    html: str
    recipients: Sequence[Recipient]
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    custom_args: Mapping[str, str] = field(default_factory=dict)
    categories: Sequence[str] = ()
    #: Whether the provider tracks clicks and opens; never for transactional emails.
    track_clicks: bool = False
    track_opens: bool = False
    #: Whether it answers a request of the recipient, who gets it although they unsubscribed.
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the whole request."""

    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider does not have it and will refuse it again."""

    status: int
    reason: str
    #: Index of the recipient that caused the refusal, if the provider names one.
    recipient: int | None = None
    #: The shared field that caused the refusal, if the provider names one.
    shared: str = ""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The provider does not have it, and the same request may succeed later."""

    reason: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may have all of it or nothing: there was no valid answer."""

    reason: str


Outcome = Accepted | Refused | NotSent | Unknown


class Gateway(Protocol):
    """Sends one request. Faults of the network and the provider are outcomes, not exceptions."""

    def send(self, request: MailRequest) -> Outcome:
        """Send the request; returns its outcome."""
        ...
