"""Signatures of outgoing webhooks by the Standard Webhooks scheme (standardwebhooks.com)."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whsec_"
#: Bytes of a secret; the scheme asks for 24 to 64.
_BYTES: Final = 32


def new_secret() -> str:
    """A random secret, as receivers configure it."""
    return _PREFIX + b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(
    message_id: str, timestamp: int, body: bytes, secrets_in_force: Sequence[str]
) -> list[tuple[str, str]]:
    """The three headers of a request. During a rotation, both secrets sign."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (
        "v1," + b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()
        for secret in secrets_in_force
    )
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(signatures)),
    ]


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(_PREFIX))
