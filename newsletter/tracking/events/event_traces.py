"""The spans of posts of events: one for each batch that a post has new events of."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence

from sqlalchemy import Engine

from newsletter import tracing
from newsletter.db.engine import SQLAlchemyError, reading
from newsletter.provider.events import Event
from newsletter.sending import traces
from newsletter.tracing import Value

_log = logging.getLogger(__name__)


def record(database: Engine, events: Sequence[Event], *, begun: int) -> None:
    """Write the spans of a post of new events, which is committed; ``begun`` is when it came."""
    ended = tracing.now()
    kinds: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for event in events:
        if event.send_id is not None and event.batch is not None:
            kinds[event.send_id, event.batch][str(event.kind)] += 1
    if not kinds:
        return
    try:
        with reading(database) as session:
            batches = traces.of_batches(session, kinds)
    except SQLAlchemyError as error:
        # The events are stored, so the provider must not be told otherwise.
        _log.warning("a post of events is not in the traces: %s", type(error).__name__)
        return
    for key, one in batches.items():
        counts: dict[str, Value] = {"events.all": kinds[key].total()}
        counts |= {f"events.{kind}": number for kind, number in sorted(kinds[key].items())}
        tracing.write(
            one.send,
            "receive events",
            begun=begun,
            ended=ended,
            parent=tracing.batch_key(one.number, one.attempt),
            kind="consumer",
            attributes={"batch": one.number, "attempt": one.attempt, **counts},
        )
