"""Escapes CSV cells so that no spreadsheet runs them as formulas, and reverses it.

Excel, LibreOffice and Google Sheets run a cell that begins with ``=+-@``, a tab or a line break as
a formula (OWASP, "CSV injection"). Such a cell gets a leading apostrophe. A cell that begins with
an apostrophe gets one more, so that ``plain(safe(text)) == text`` for every text.
"""

#: Spreadsheets treat full-width forms like the plain ones where East Asian input is usual.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def safe(text: str) -> str:
    """The text as a safe cell."""
    return f"'{text}" if text.startswith(_RISKY) else text


def plain(cell: str) -> str:
    """The text from which ``safe`` made this cell."""
    return cell[1:] if cell.startswith("'") else cell
