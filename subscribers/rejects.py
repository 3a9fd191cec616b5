"""The reject file: every row that was not taken, with its line, the reason and the row."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subscribers.errors import UserError
from subscribers.rows import Reject
from subscribers.spreadsheet import safe

_COLUMNS = ("line", "reason", "row")
_EXAMPLES = 10


class Rejects:
    """Counts rejects, writes them where there is a file, and keeps the first few to show."""

    def __init__(self, writer: Any = None) -> None:  # noqa: ANN401 (csv's writer has no public type)
        self.count = 0
        self.examples: list[Reject] = []
        self._writer = writer

    def add(self, line: int, reason: str, text: str) -> None:
        """A row that is no person."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(Reject(line, reason, text))
        self.note(line, reason, text)

    def note(self, line: int, reason: str, text: str) -> None:
        """A row that was left out for a reason that is counted elsewhere."""
        if self._writer:
            self._writer.writerow((line, safe(reason), safe(text)))


@contextmanager
def open_rejects(path: Path | None) -> Iterator[Rejects]:
    """The file is made, or emptied, at once: an old one would tell of another import."""
    if path is None:
        yield Rejects()
        return
    try:
        file = path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
    except OSError as error:
        raise UserError(
            f"the reject file cannot be written: {error.strerror}", place=str(path)
        ) from None
    with file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        yield Rejects(writer)
