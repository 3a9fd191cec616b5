"""Each benchmark runs to its end and prints its table; how fast it is, is not asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

#: Options that make each benchmark small.
SMALL = {
    "console": ["--people", "2000", "--sends", "3"],
    "copying": ["--people", "2000", "--sends", "2"],
    "dispatch": ["--people", "2000", "--workers", "1"],
    "events": ["--people", "2000", "--events", "4000"],
    "idle": ["--seconds", "1", "--sends", "1", "--database", "sqlite"],
    "importing": ["--rows", "2000"],
    "recipients": ["--people", "2000", "--database", "sqlite"],
    "segments": ["--people", "2000"],
    "signup": ["--requests", "100"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_its_table(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, *SMALL[name]],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "----" in done.stdout
