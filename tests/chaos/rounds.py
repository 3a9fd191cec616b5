"""Rounds of scenarios, and the table that tells of them."""

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tests.chaos.aftermath import Verdict, put_right
from tests.chaos.databases import Databases
from tests.chaos.scenarios import Scenario
from tests.chaos.world import Plan, World, has_log_file

_OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}
_NO_LOG = "skipped: this version keeps no departure log"


@dataclass(slots=True)
class Row:
    """One scenario's line of the table, over all its rounds."""

    scenario: str
    database: str
    workers: set[int] = field(default_factory=set)
    rounds: int = 0
    people: int = 0
    kills: int = 0
    #: Why sends paused themselves.
    pauses: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    duplicates: int = 0
    missing: int = 0
    doubtful: int = 0
    rejected: int = 0
    skipped: int = 0
    #: Left before they were planned: the plan says how many.
    left_out: int = 0
    #: What did not hold, in words; with the round's seed, so that it can be had again.
    troubles: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def sound(self) -> bool:
        """Whether the promise held in every round."""
        return not (self.troubles or self.duplicates or self.missing)

    def add(self, verdict: Verdict, seed: str) -> None:
        """Count a round in."""
        for where, found in (("after the crash", verdict.crashed), ("at the end", verdict.final)):
            if not found.sound:
                self.troubles.append(f"{seed}, {where}: {found}")
        final, crashed = verdict.final, verdict.crashed
        self.accepted += final.accepted
        self.duplicates += max(len(final.duplicates), len(crashed.duplicates))
        self.missing += max(len(final.missing), len(crashed.missing))
        self.doubtful += verdict.in_doubt
        self.rejected += final.rejected
        self.skipped += final.skipped
        self.left_out += final.left_out


def run(
    scenario: Scenario,
    databases: Databases,
    *,
    seed: int,
    rounds: int,
    plan: Plan,
    fork: bool = False,
) -> Row:
    """Play a scenario so many times, each on a fresh world."""
    row = Row(scenario.name, scenario.database)
    if scenario.needs_log_file and not has_log_file():
        row.note = _NO_LOG
        return row
    for number in range(1, rounds + 1):
        name = f"{scenario.name}, {scenario.database}, seed {seed}, round {number}"
        # Of its own name only: a round is the same whichever others are played.
        dice = random.Random(f"{seed} {scenario.name} {scenario.database} {number}")
        workers = dice.randint(*scenario.workers)
        sized = replace(plan, batch_size=scenario.batch_size or plan.batch_size)
        with (
            tempfile.TemporaryDirectory(prefix="newsletter-chaos-") as folder,
            World(
                Path(folder),
                databases.make(scenario.database, Path(folder)),
                sized,
                fork=fork,
                elsewhere=partial(databases.make, _OTHER[scenario.database], Path(folder)),
            ) as world,
        ):
            row.rounds, row.people = number, row.people + plan.people
            row.workers.add(workers)
            try:
                world.populate()
                if scenario.by_schedule:
                    world.hand_to_schedule()
                else:
                    world.schedule()
                scenario.play(world, dice, workers)
                verdict = put_right(
                    world,
                    later=scenario.later,
                    set_back=scenario.needs_log_file,
                    by_schedule=scenario.by_schedule,
                )
                row.add(verdict, name)
            except (AssertionError, TimeoutError) as error:
                row.troubles.append(f"{name}: {error}")
            finally:
                row.kills += world.kills
                row.pauses += world.pauses
                row.faults.update(world.relay.answers)
    return row


_COLUMNS = (
    "scenario", "database", "workers", "rounds", "people", "kills", "pauses", "faults seen",
    "accepted", "duplicates", "missing", "doubtful", "rejected", "skipped", "left out", "verdict",
)  # fmt: skip


def table(rows: Iterable[Row]) -> str:
    """The table, as Markdown that reads as plain text."""
    lines = [list(_COLUMNS), *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    text = [_joined(line, widths) for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(c.ljust(width) for c, width in zip(cells, widths, strict=True)) + " |"


def _cells(row: Row) -> list[str]:
    if row.note:
        return [row.scenario, row.database, *["–"] * (len(_COLUMNS) - 3), row.note]
    seen = {kind: number for kind, number in sorted(row.faults.items()) if number}
    seen.pop("202", None)
    least, most = min(row.workers, default=0), max(row.workers, default=0)
    return [
        row.scenario,
        row.database,
        str(most) if least == most else f"{least}–{most}",
        *(f"{n:,}" for n in (row.rounds, row.people, row.kills, len(row.pauses))),
        ", ".join(f"{number:,} {kind}" for kind, number in seen.items()) or "none",
        *(
            f"{n:,}"
            for n in (
                row.accepted, row.duplicates, row.missing, row.doubtful, row.rejected, row.skipped,
                row.left_out,
            )
        ),
        "sound" if row.sound else "BROKEN",
    ]  # fmt: skip
