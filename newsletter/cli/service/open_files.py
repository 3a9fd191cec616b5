"""The limit of open files: each connection, database file and request needs one."""

import resource
from typing import Final

#: No more than this is asked for: some systems name a limit without an end, and then refuse it.
_ENOUGH: Final = 65_536
#: Files for ourselves: the database, the journal, the provider, lookups, uploads. Connections
#: that the system accepted and that we have not looked at yet come on top (BACKLOG).
_OURS: Final = 200
#: How many connections wait to be accepted. Each may be accepted before the first is looked at.
BACKLOG: Final = 256
#: Files of one connection: itself, and a body that went to disk.
_EACH: Final = 2


def raise_limit() -> int:
    """Raise the soft limit to the hard limit; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            # A sandbox around the process may forbid it; then the old limit holds.
            return soft
        return wanted
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def connections_within(files: int, *, most: int) -> int:
    """The number of connections that this many files allow: at most ``most``, at least a few."""
    return max(10, min(most, (files - _OURS - BACKLOG) // _EACH))
