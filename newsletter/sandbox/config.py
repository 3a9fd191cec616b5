"""How a sandbox behaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from newsletter.sandbox.outcomes import DEFAULT_RATES


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What is decided before it starts."""

    host: str = "127.0.0.1"
    #: 0 takes a free one.
    port: int = 0
    api_keys: frozenset[str] = frozenset({"SG.sandbox"})
    #: Addresses or domains that may send; None lets every sender.
    verified_senders: frozenset[str] | None = None
    webhook_url: str | None = None
    #: None keeps mails in a temporary file that goes with the sandbox.
    database: Path | None = None
    #: Shares of happenings for addresses that are not magic.
    event_rates: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_RATES))
    seed: int = 1
    #: Seconds between two happenings to one mail.
    event_delay: float = 0.3
    #: Events to a post.
    event_batch: int = 1000
