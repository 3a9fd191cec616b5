"""`python -m tests.chaos`: every storm, on both databases, and one table of what came of it."""

import argparse
import secrets
import sys
from collections import Counter
from pathlib import Path

from tests.chaos import crashes, rounds
from tests.chaos.databases import Databases, folder
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.world import Plan


def main() -> int:
    """Play, print, and say by the exit code whether the promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--rounds", type=int, default=3, help="of each scenario (3)")
    parser.add_argument("--people", type=int, default=1000, help="of each round (1000)")
    parser.add_argument("--only", default="", metavar="NAME", help="scenarios that begin so")
    asked = parser.parse_args()
    rows = []
    with folder() as home:
        databases = Databases(Path(home))
        try:
            for scenario in SCENARIOS:
                if scenario.name.startswith(asked.only):
                    _say(f"{scenario.name}, {scenario.database} …")
                    plan = Plan(asked.people)
                    played = rounds.run(
                        scenario, databases, seed=asked.seed, rounds=asked.rounds, plan=plan
                    )
                    rows.append(played)
            for database in ("sqlite", "postgresql"):
                if crashes.NAME.startswith(asked.only):
                    _say(f"{crashes.NAME}, {database} …")
                    rows.append(crashes.row(databases, database))
        finally:
            databases.close()
        _say("")
    print(rounds.table(rows))
    print(f"\nseed {asked.seed}")
    for reason, times in Counter(reason for row in rows for reason in row.pauses).most_common():
        print(f"paused itself {times} times: {reason}")
    troubles = [trouble for row in rows for trouble in row.troubles]
    for trouble in troubles:
        print(f"\n{trouble}")
    return int(not rows or not all(row.sound for row in rows))


def _say(what: str) -> None:
    """Where we are, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")


if __name__ == "__main__":
    sys.exit(main())
