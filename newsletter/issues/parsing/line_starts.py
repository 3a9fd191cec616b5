"""How lines of Markdown begin: indentation by columns, and the markers of blocks."""

import re
from dataclasses import dataclass
from typing import Final

FENCE: Final = re.compile(r"(`{3,})(?=[^`]*$)|(~{3,})")
BULLET: Final = re.compile(r"[-+*](?=[ \t]|$)")
NUMBER: Final = re.compile(r"(\d{1,9})[.)](?=[ \t]|$)")
RULE: Final = re.compile(r"(?:\*[ \t]*){3,}$|(?:-[ \t]*){3,}$|(?:_[ \t]*){3,}$")
HEADING: Final = re.compile(r"#{1,6}(?=[ \t]|$)")
UNDERLINE: Final = re.compile(r"(?:=+|-+)[ \t]*$")


@dataclass(slots=True)
class MarkdownLine:
    """A line and the position in it. Tabs go to the next multiple of four columns."""

    text: str
    at: int = 0
    column: int = 0
    #: The column where the text of the innermost container begins.
    base: int = 0
    #: Columns of the tab before the position that were not consumed yet.
    left: int = 0

    def indent(self) -> int:
        """The columns of whitespace from the position on."""
        column = self.column + self.left
        for letter in self.text[self.at :]:
            if letter == "\t":
                column += 4 - column % 4
            elif letter == " ":
                column += 1
            else:
                break
        return column - self.column

    def take(self, columns: int) -> None:
        """Skip up to this many columns of whitespace."""
        goal = self.column + columns
        end = self.column + self.left
        while end < goal and self.at < len(self.text) and self.text[self.at] in " \t":
            end += 4 - end % 4 if self.text[self.at] == "\t" else 1
            self.at += 1
        self.column = min(goal, end)
        self.left = end - self.column

    def skip(self, letters: int) -> None:
        """Skip characters that are not tabs."""
        self.at += letters
        self.column += letters

    @property
    def is_blank(self) -> bool:
        """Whether the rest of the line is whitespace."""
        return not self.text[self.at :].strip(" \t")


def begins_block(rest: str) -> bool:
    """Whether this line can end the paragraph above it; ``rest`` has no leading whitespace."""
    number = NUMBER.match(rest)
    return bool(
        FENCE.match(rest)
        or HEADING.match(rest)
        or RULE.match(rest)
        or (BULLET.match(rest) and rest[1:].strip(" \t"))
        or (number and number[1] == "1" and rest[number.end() :].strip(" \t"))
    )
