"""Whole numbers from outside: ids, counts and times in paths, queries, forms, headers and JSON.

Python reads digits of every script, refuses more than 4,300 of them with an error of its own,
and makes numbers that no column and no float can hold. Text from outside is therefore read
here: ASCII digits only, no sign, and never more than a database's BIGINT holds.
"""

from typing import Final

#: The largest number that SQLite and PostgreSQL (BIGINT) store, and that Python makes a float of.
MOST: Final = 2**63 - 1
_MOST_DIGITS: Final = len(str(MOST))


def whole_number(text: str, *, most: int = MOST) -> int | None:
    """The number that the text is, from 0 to ``most``; None for anything else."""
    if not (0 < len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
