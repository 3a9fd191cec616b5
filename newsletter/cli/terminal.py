"""Who sits at the terminal: whose name stands in logs and under revisions."""

import getpass

from newsletter.accounts.audit import Actor


def who() -> Actor:
    """The machine's user, which is all that a command knows of them."""
    try:
        return Actor(None, f"command line ({getpass.getuser()})")
    except (OSError, KeyError):
        return Actor(None, "command line")
