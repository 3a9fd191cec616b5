"""`make bench`: every benchmark, one after the other. ``ARGS="dispatch"`` runs one."""

import importlib
import sys
from collections.abc import Callable

#: Name → what it measures; each is a module with ``run()``.
BENCHMARKS = {
    "dispatch": "planning and dispatching 100,000 recipients, against what the SDK alone can do",
    "importing": "importing and exporting people, against a bare executemany of the same rows",
    "segments": "counting segments of a million people",
    "signup": "signup requests a second, and the slowest of a hundred",
}


def main() -> None:
    """Run those that are named, or all."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        known = "\n".join(f"  {name}: {what}" for name, what in BENCHMARKS.items())
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}. There are:\n{known}")
    for name in names:
        run: Callable[[], None] = importlib.import_module(f"bench.{name}").run
        run()


if __name__ == "__main__":
    main()
