"""Cells that no spreadsheet takes for a formula, and the way back.

A cell that begins with one of ``=+-@``, a tab or a line break is run by Excel,
LibreOffice and Google Sheets, whoever wrote it (OWASP, "CSV injection"). Such a cell
gets a leading apostrophe. A cell that begins with an apostrophe gets one more, so
that ``plain(safe(text)) == text`` for every text.
"""

#: The full-width forms count as the plain ones where East Asian input is usual.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def safe(text: str) -> str:
    """The text as a cell."""
    return f"'{text}" if text.startswith(_RISKY) else text


def plain(cell: str) -> str:
    """The text that ``safe`` made into this cell."""
    return cell[1:] if cell.startswith("'") else cell
