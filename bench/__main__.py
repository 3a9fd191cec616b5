"""`make bench`: every benchmark, one after the other. ``ARGS="dispatch"`` runs one."""

import subprocess
import sys

#: Name → what it measures; each is a module with a command line of its own.
BENCHMARKS = {
    "console": "server time of each page with a million subscribers and a hundred past sends",
    "copying": "copying subscribers from SQLite to PostgreSQL and back, against a bare copy",
    "dispatch": "planning and dispatching 100,000 recipients, against what the SDK alone can do",
    "events": "signed posts of events, against a bare insert of the same rows",
    "idle": "processor time and bytes written of a service with nothing to do, and its awakening",
    "importing": "importing and exporting subscribers, against a bare executemany of the same rows",
    "recipients": "lists of who opened and clicked in a send of a million deliveries",
    "segments": "counting segments of a million subscribers",
    "signup": "signup requests a second, and the slowest of a hundred",
}


def main() -> None:
    """Run the benchmarks that are named, or all; options are passed to each of them."""
    words = sys.argv[1:]
    end = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    names, options = words[:end] or list(BENCHMARKS), words[end:]
    if unknown := set(names) - set(BENCHMARKS):
        known = "\n".join(f"  {name}: {what}" for name, what in BENCHMARKS.items())
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}. There are:\n{known}")
    for name in names:
        # In a process of its own: the peak of one is not counted for the next.
        subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=True)


if __name__ == "__main__":
    main()
