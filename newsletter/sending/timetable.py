"""When each batch may leave. Pure.

The pace is written into the plan: a worker on any machine only has to look at the
clock, and nobody counts tokens.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta


def departures(sizes: Iterable[int], *, start: datetime, rate: float | None) -> Iterator[datetime]:
    """The moment for each batch of so many recipients; ``rate`` is recipients a second."""
    ahead = 0
    for size in sizes:
        yield start + timedelta(seconds=ahead / rate if rate else 0)
        ahead += size
