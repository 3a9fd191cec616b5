"""The configuration of a sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from newsletter.sandbox.outcomes import DEFAULT_RATES


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Settings that apply when the sandbox starts."""

    host: str = "127.0.0.1"
    #: 0 takes a free port.
    port: int = 0
    api_keys: frozenset[str] = frozenset({"SG.sandbox"})
    #: Addresses or domains that may send; None allows every sender.
    verified_senders: frozenset[str] | None = None
    webhook_url: str | None = None
    #: None keeps emails in a temporary file that is deleted with the sandbox.
    database: Path | None = None
    #: Event kind → probability, for addresses that are not magic.
    event_rates: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_RATES))
    seed: int = 1
    #: Seconds between two events of one email.
    event_delay: float = 0.3
    #: Events in one post.
    event_batch: int = 1000
