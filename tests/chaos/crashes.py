"""Every crash point of a small send, one after the other: before and after the k-th step."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.aftermath import Verdict, put_right
from tests.chaos.databases import Databases
from tests.chaos.process import POINTS
from tests.chaos.rounds import Row
from tests.chaos.world import Plan, World

#: Three batches of five.
SMALL = Plan(people=15, batch_size=5, concurrency=1, refusals=False)
#: A send that needs more steps than this has lost its way.
_ENOUGH = 100
KINDS = tuple(f"{when}:{what}" for what in POINTS for when in ("before", "after"))


@dataclass(frozen=True, slots=True)
class Crash:
    """One point and what came of it."""

    point: str
    #: Whether the command ended before it came to the point.
    survived: bool
    verdict: Verdict
    faults: Counter[str]


def crashes(databases: Databases, database: str, kind: str, *, step: int = 1) -> Iterator[Crash]:
    """Crash at each ``step``-th point of this kind until a run survives."""
    for number in range(1, _ENOUGH, step):
        crash = crash_at(databases, database, f"{kind}:{number}")
        yield crash
        if crash.survived:
            return
    raise AssertionError(f"{kind}: more than {_ENOUGH} steps for three batches")


def crash_at(databases: Databases, database: str, point: str) -> Crash:
    """A fresh send that dies there; then an ordinary process, events, and the operator."""
    with (
        tempfile.TemporaryDirectory(prefix="newsletter-crash-") as folder,
        World(Path(folder), databases.make(database, Path(folder)), SMALL, fork=True) as world,
    ):
        world.populate()
        words = ("send", str(world.issue), "--segment", "everybody")
        code = world.begin(*words, worse=["--die", point]).wait(60)
        assert code in {0, -9}, f"{point}: exit code {code}"
        world.at_rest()
        if not world.find_send():
            # It died before there was a send: whoever typed the command types it again.
            assert not world.taken(), "something left before there was a send"
            world.command(*words)
            assert world.find_send(), "no send was made"
        return Crash(point, code == 0, put_right(world), world.relay.answers)


#: What the table calls it.
NAME = "every crash point"


def row(databases: Databases, database: str) -> Row:
    """All points of all kinds, as a line of the table."""
    line = Row(NAME, database, workers={1})
    for kind in KINDS:
        try:
            for crash in crashes(databases, database, kind):
                line.rounds, line.people = line.rounds + 1, line.people + SMALL.people
                line.kills += not crash.survived
                line.faults.update(crash.faults)
                line.add(crash.verdict, crash.point)
        except (AssertionError, TimeoutError) as error:
            line.troubles.append(f"{database}, {kind}: {error}")
    return line
