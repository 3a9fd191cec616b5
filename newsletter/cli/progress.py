"""Progress on a terminal: a bar where there is room, words in any case; elsewhere nothing."""

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

from newsletter.cli.output import err

#: Columns of a terminal with room for a bar.
_WIDE = 72


def progress() -> Progress:
    """A display of tasks that say in their field ``said`` how far they are.

    Where cursor and color cannot be steered (a pipe, a dumb terminal, NO_COLOR), none.
    """
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if err.width >= _WIDE:
        columns.append(BarColumn(bar_width=24))
    words = Column(no_wrap=False, overflow="fold")
    columns.append(TextColumn("{task.fields[said]}", markup=False, table_column=words))
    return Progress(*columns, console=err, disable=err.is_plain)
