"""A small storm of each kind on each database: `python -m tests.chaos` plays the large ones."""

from pathlib import Path

import pytest

from tests.chaos.databases import Databases
from tests.chaos.rounds import Row, run, table
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.world import Plan, has_log_file

#: A failing test names it with its round: `python -m tests.chaos --seed 1 --only NAME`.
SEED = 1
SMALL = Plan(people=200, batch_size=5)
#: The others take as long and find what these find; the long run plays them all.
ALSO = {"kill", "outage", "moved", "restored backup", "restored copy without the send"}
PLAYED = [
    scenario for scenario in SCENARIOS if scenario.database == "sqlite" or scenario.name in ALSO
]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", PLAYED, ids=lambda one: f"{one.name} on {one.database}")
def test_a_small_storm(scenario: Scenario, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if scenario.needs_log_file and not has_log_file():
        pytest.skip("this version keeps no departure log")
    server = request.getfixturevalue("_postgres") if scenario.database == "postgresql" else ""
    databases = Databases(tmp_path, postgres_url=server)
    try:
        row = run(scenario, databases, seed=SEED, rounds=1, plan=SMALL, fork=True)
    finally:
        databases.close()
    assert row.sound, "\n".join(row.troubles)
    assert row.people == SMALL.people
    assert row.accepted + row.rejected + row.skipped + row.left_out == SMALL.people


def test_the_table_tells_a_broken_round_from_a_sound_one() -> None:
    sound, broken = Row("kill", "sqlite", {1}), Row("kill", "sqlite", {1, 3}, duplicates=1)
    lines = table([sound, broken]).splitlines()
    assert lines[2].endswith("| sound   |")
    assert lines[3].endswith("| BROKEN  |")
    assert "1–3" in lines[3]
