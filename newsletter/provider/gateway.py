"""What hands mail to a provider, whichever it is: one request, one of four outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Protocol


class Recipient(NamedTuple):
    """One person's part of a request. A million of these are made: a tuple is the cheapest."""

    email: str
    #: Tag as it stands in subject, text and html → what this person reads there.
    substitutions: Mapping[str, str]
    headers: Mapping[str, str]
    #: Comes back with every event of this recipient.
    custom_args: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MailRequest:
    """One body for up to 1,000 recipients."""

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
    #: Whether the provider measures who clicks and who opens. A single email never asks for it.
    track_clicks: bool = False
    track_opens: bool = False
    #: An answer to what the recipient asked for, which they get although they have left.
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the whole request."""

    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider has none of it and never will, unless somebody changes something."""

    status: int
    reason: str
    #: Index of the recipient that the complaint is about, where the provider says so.
    recipient: int | None = None
    #: The field that all recipients share and that the complaint is about, likewise.
    shared: str = ""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The provider has none of it, and the same request may succeed later."""

    reason: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may have all of it or nothing: the answer never came, or made no sense."""

    reason: str


Outcome = Accepted | Refused | NotSent | Unknown


class Gateway(Protocol):
    """Hands one request over. Never raises for what the network or the provider does."""

    def send(self, request: MailRequest) -> Outcome:
        """What became of the request."""
        ...
