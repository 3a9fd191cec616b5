"""A send of three batches dies at its first, second, third … commit, request and answer."""

from pathlib import Path

import pytest

from tests.chaos.crashes import KINDS, crashes
from tests.chaos.databases import Databases

#: PostgreSQL is asked at a few points: the protocol is the same, only its commits are others.
POINTS = [
    *(("sqlite", kind, 1) for kind in KINDS),
    ("postgresql", "before:commit", 4),
    ("postgresql", "after:commit", 4),
    ("postgresql", "after:request", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("database", "kind", "step"), POINTS)
def test_no_crash_point_loses_or_doubles_anybody(
    database: str, kind: str, step: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("_postgres") if database == "postgresql" else ""
    databases = Databases(tmp_path, postgres_url=server)
    points = 0
    try:
        for crash in crashes(databases, database, kind, step=step):
            assert crash.verdict.sound, f"{crash.point}: {crash.verdict}"
            assert crash.verdict.final.accepted == 15
            points += not crash.survived
    finally:
        databases.close()
    # Each of the three batches has a commit, a request and an answer of its own at least.
    assert points >= 3 // step
