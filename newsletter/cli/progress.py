"""Progress displays on terminals: text, and a bar if the terminal is wide enough."""

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

from newsletter.cli.output import err

#: Columns of a terminal that has room for a bar.
_WIDE = 72


def progress() -> Progress:
    """A display of tasks; each shows the text in its field ``said``.

    It shows nothing without cursor control (in a pipe, on a dumb terminal, with NO_COLOR).
    """
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if err.width >= _WIDE:
        columns.append(BarColumn(bar_width=24))
    words = Column(no_wrap=False, overflow="fold")
    columns.append(TextColumn("{task.fields[said]}", markup=False, table_column=words))
    return Progress(*columns, console=err, disable=err.is_plain)
