"""The ``int`` of our paths (``/console/sends/{send_id:int}``): a number that fits a column.

Starlette's own takes any count of digits: 4,301 of them raise ValueError within the routing,
and what is larger than a BIGINT fails in the database. An address with such a number is one
that does not exist, so it is answered with 404 before a handler sees it.
"""

from starlette.convertors import Convertor, register_url_convertor


class PathNumber(Convertor[int]):
    """Up to 18 digits: less than 2**63, and more than any table will ever count."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        """The number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """The number as it stands in a path."""
        return str(value)


def register() -> None:
    """Let every route that is declared from now on read its numbers so."""
    register_url_convertor("int", PathNumber())
