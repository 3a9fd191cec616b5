"""Says so when emails go to a stand-in for SendGrid on this machine that does not run."""

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from newsletter import readiness
from newsletter.cli.output import err
from newsletter.settings.load import Settings

_PATIENCE = 1.0  # seconds


def warn_if_silent(settings: Settings, say: Callable[[str], None] = err.print) -> None:
    """Say a warning if ``sendgrid.host`` is on this machine and nothing listens there."""
    if not readiness.is_local(settings):
        return
    address = urlsplit(settings.sendgrid.host)
    port = address.port or {"https": 443}.get(address.scheme, 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        say(
            f"Nothing answers at {settings.sendgrid.host} yet, and emails wait for it: "
            "newsletter serve --sandbox"
        )
