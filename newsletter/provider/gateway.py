"""The interface of a provider: one request, one of four outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
    #: With a zone. The provider holds the mail until then; SendGrid for at most 72 hours.
    send_at: datetime | None = None
    #: From Holds.new_hold: what the provider holds under it can be called back.
    hold_id: str | None = None
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


class Holds(Protocol):
    """Calls back what the provider holds until a set time.

    These are an operator's acts, not a worker's: each raises ProviderError with the next
    step when the provider refuses or cannot be reached, and each may be repeated safely.
    The provider promises nothing for what goes out within its last minutes (SendGrid: ten).
    """

    def new_hold(self) -> str:
        """An id to put into requests; SendGrid keeps it for ten days."""
        ...

    def cancel_held(self, hold_id: str) -> None:
        """What is held under the id is thrown away at its time, unless it is released before."""
        ...

    def pause_held(self, hold_id: str) -> None:
        """What is held under the id stays until it is released; 72 hours late it is thrown away."""
        ...

    def release_held(self, hold_id: str) -> None:
        """What is held under the id goes out at its time, or now if that has passed."""
        ...
