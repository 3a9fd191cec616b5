"""A send of three batches dies at its first, second, third … commit, request and answer."""

from pathlib import Path

import pytest

from tests.chaos.crashes import KINDS, crashes
from tests.chaos.databases import Databases


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_crash_point_loses_or_doubles_anybody(
    database: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("_postgres") if database == "postgresql" else ""
    databases = Databases(tmp_path, postgres_url=server)
    # PostgreSQL is asked at a few points: the protocol is the same, its commits are others.
    step = 1 if database == "sqlite" else 5
    points = 0
    try:
        for crash in crashes(databases, database, kind, step=step):
            assert crash.verdict.sound, f"{crash.point}: {crash.verdict}"
            assert crash.verdict.final.accepted == 15
            points += not crash.survived
    finally:
        databases.close()
    # Three batches: each has a commit, a request and an answer of its own at least.
    assert points >= (3 if database == "sqlite" else 1)
