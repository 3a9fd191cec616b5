"""Parses whole numbers in untrusted text: ids, counts and times in paths, forms, headers and JSON.

Python's int() accepts digits of every script, raises an error for more than 4,300 of them, and
returns numbers that no column or float can hold. This accepts only ASCII digits without a sign, up
to the largest BIGINT.
"""

from typing import Final

#: The largest integer that SQLite and PostgreSQL (BIGINT) can store.
MOST: Final = 2**63 - 1
_MOST_DIGITS: Final = len(str(MOST))


def whole_number(text: str, *, most: int = MOST) -> int | None:
    """The number in the text, from 0 to ``most``; None for any other text."""
    if not (0 < len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
