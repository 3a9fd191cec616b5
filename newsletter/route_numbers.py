"""The ``int`` converter of routes (``/console/sends/{send_id:int}``), limited to BIGINT columns.

Starlette's own accepts any number of digits: 4,301 of them raise ValueError during routing, and a
number larger than BIGINT fails in the database. Such a path does not exist, so this converter
makes it a 404 before a handler is called.
"""

from starlette.convertors import Convertor, register_url_convertor


class PathNumber(Convertor[int]):
    """Up to 18 digits: less than 2**63, and more than any table has rows."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        """The number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """The number as text in a path."""
        return str(value)


def register() -> None:
    """Use this converter for ``int`` in all routes that are declared afterwards."""
    register_url_convertor("int", PathNumber())
