"""Faults that can be switched on while the sandbox runs, each by probability or by count."""

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from newsletter.errors import UserError

#: Every fault, and what it does.
KINDS: Mapping[str, str] = {
    "rate_limit": "answer 429 with X-RateLimit-Reset",
    "server_error": "answer 500 and take nothing",
    "error_after_accepting": "take the request and answer 500",
    "unavailable": "answer 503 and take nothing",
    "unavailable_after_accepting": "take the request and answer 503",
    "accept_then_lose": "take the request and close the connection without an answer",
    "refuse": "close the connection without taking the request",
    "slow": "wait `seconds` before answering",
    "webhook_duplicates": "post every event of a batch twice",
    "webhook_new_ids": "post every event again under a new sg_event_id",
}


@dataclass(slots=True)
class _Fault:
    probability: float = 0.0
    times: int = 0
    seconds: float = 1.0


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: dict[str, _Fault] = {}

    def switch(self, faults: Mapping[str, object]) -> None:
        """Set all faults: kind → probability, or {"times": N}, {"probability": P, "seconds": S}.

        Raises UserError for an unknown kind or a value of another form.
        """
        parsed = {kind: _read(kind, value) for kind, value in faults.items()}
        with self._lock:
            self._on = parsed

    def happens(self, kind: str) -> bool:
        """Whether this fault happens now; counts down its ``times``."""
        with self._lock:
            fault = self._on.get(kind)
            if fault is None:
                return False
            if fault.times > 0:
                fault.times -= 1
                return True
            return random.random() < fault.probability  # noqa: S311 (a dice, not a secret)

    def seconds(self, kind: str) -> float:
        """How long this fault lasts."""
        with self._lock:
            fault = self._on.get(kind)
            return fault.seconds if fault else 0.0


def _read(kind: str, value: object) -> _Fault:
    if kind not in KINDS:
        raise UserError(
            "there is no such fault", place=kind, hint=f"Use one of: {', '.join(KINDS)}."
        )
    try:
        if isinstance(value, Mapping):
            return _Fault(**{name: type(getattr(_Fault(), name))(v) for name, v in value.items()})
        return _Fault(probability=float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError):
        raise UserError(
            "a fault is a probability, or times, probability and seconds", place=kind
        ) from None
