"""What callers of the audience may catch: one tree, each error with its place and its remedy."""


class UserError(Exception):
    """Something that the person in charge can mend.

    ``message`` says what is wrong, ``place`` where (a file and line, a field, a
    setting), ``hint`` what to do about it. The command line prints all three and
    leaves with ``exit_code``; a page or an API shows the same words.
    """

    exit_code = 2

    def __init__(self, message: str, *, place: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n{self.hint}" if self.hint else head


class AddressError(UserError):
    """An email address that no mail can reach as it is written."""


class SegmentError(UserError):
    """A segment that is unknown, empty where it may not be, or wrongly written.

    ``span`` is where a rule is wrong: line and column, both from 1, and how many characters.
    """

    def __init__(
        self,
        message: str,
        *,
        place: str | None = None,
        hint: str | None = None,
        span: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(message, place=place, hint=hint)
        self.span = span
