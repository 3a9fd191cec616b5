"""The limit of open files: each connection, database file and request needs one."""

import resource
from typing import Final

#: The most to request: some systems report an unlimited hard limit, and then refuse it.
_ENOUGH: Final = 65_536
#: Files that the process itself needs: database, departure log, provider, lookups, uploads.
_OURS: Final = 200
#: Connections that the kernel accepts before the service does. They need files in addition.
BACKLOG: Final = 256
#: Files of one connection: its socket, and a body on disk.
_EACH: Final = 2


def raise_limit() -> int:
    """Raise the soft limit to the hard limit; returns the resulting limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    requested = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < requested:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (requested, hard))
        except (ValueError, OSError):
            # A container may forbid this; then the old limit remains.
            return soft
        return requested
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def connections_within(files: int, *, most: int) -> int:
    """The number of connections that this many files allow: at most ``most``, at least a few."""
    return max(10, min(most, (files - _OURS - BACKLOG) // _EACH))
