"""Writes the reject file: each rejected row with its line and the reason, ready to be corrected.

After the line, the reason and the original row, it has the file's own columns with the row's
cells, as far as possible. So it can be corrected in a spreadsheet and imported as it is: the import
ignores the first three columns. A rejected JSON Lines object is corrected in its cell.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from newsletter.db import private_files
from newsletter.errors import UserError
from subscribers.list_files.csv_safety import safe
from subscribers.list_files.row import RejectedRow

#: The columns before the file's own columns.
COLUMNS = ("line", "reason", "row")
_EXAMPLES = 10


def is_reject_file(header: Sequence[str]) -> bool:
    """Whether a file with this header is a reject file, corrected or not."""
    return tuple(header[: len(COLUMNS)]) == COLUMNS


class Rejects:
    """Counts rejected rows, writes them to the file, if any, and keeps the first few to show."""

    def __init__(self, writer: Any = None) -> None:  # noqa: ANN401 (csv's writer has no public type)
        self.count = 0
        self.examples: list[RejectedRow] = []
        self._writer = writer
        self._header: Sequence[str] = ()
        self._delimiter = ","
        self._email: int | None = None

    def begin(self, header: Sequence[str], delimiter: str | None, email: int | None) -> None:
        """Write the header. ``header`` is the imported file's own; JSON Lines have none."""
        self._header = header if delimiter else ()
        self._delimiter = delimiter or ","
        self._email = email
        if self._writer:
            self._writer.writerow((*COLUMNS, *map(safe, self._header)))

    def add(self, line: int, reason: str, text: str) -> None:
        """Reject a row that cannot be read."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(RejectedRow(line, reason, text))
        if self._writer:
            self._write(line, reason, text, self._cells(text))

    def note(self, line: int, reason: str, email: str) -> None:
        """Write a row that was skipped for a reason that is counted elsewhere."""
        if self._writer:
            cells = [""] * len(self._header)
            if self._email is not None and self._email < len(cells):
                cells[self._email] = email
            self._write(line, reason, email, cells)

    def _write(self, line: int, reason: str, text: str, cells: Sequence[str]) -> None:
        self._writer.writerow((line, safe(reason), safe(text), *map(safe, cells)))

    def _cells(self, text: str) -> list[str]:
        """The row's cells, as many as the header has; empty if the row is not CSV."""
        width = len(self._header)
        found: list[str] = []
        if width:
            with suppress(csv.Error):
                lines = StringIO(text, newline="")
                found = next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        if len(found) > width:
            return [""] * width
        return [*found, *[""] * (width - len(found))]


@contextmanager
def open_rejects(path: Path | None) -> Iterator[Rejects]:
    """Create or empty the file at once: an old one would be of another import."""
    if path is None:
        yield Rejects()
        return
    try:
        file = open(  # noqa: SIM115 (yielded below)
            path,
            "w",
            encoding="utf-8",
            newline="",
            errors="backslashreplace",
            opener=private_files.opener,
        )
    except OSError as error:
        raise UserError(
            f"the reject file cannot be written: {error.strerror}", place=str(path)
        ) from None
    with file:
        yield Rejects(csv.writer(file))
