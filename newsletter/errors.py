"""The errors of both packages. Each says what is wrong, where, and what to do; none knows HTTP.

Exit codes for scripts: 2 an argument or a file is wrong, 3 there is nothing to do, 4 the provider
refused, 5 the database does not fit, 6 the machine cannot do it.
"""


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


class SettingsError(UserError):
    """A setting is unknown, missing or of the wrong kind."""


class IssueError(UserError):
    """An issue file is malformed; ``place`` is ``file:line``."""


class TemplateError(UserError):
    """An email template is malformed; ``place`` is ``file:line``."""


class LinkError(UserError):
    """A link's token is forged, cut short or signed with a key no longer kept."""


class AccountError(UserError):
    """What was asked of somebody's account in the console cannot be done."""


class BusyError(UserError):
    """Too much of the same is under way; a moment later it is not."""


class SendError(UserError):
    """A send cannot do what was asked of it in the state it is in."""


class NothingToDoError(UserError):
    """Everything is in order and there is nobody or nothing to act on."""

    exit_code = 3


class ProviderError(UserError):
    """The provider refused: a wrong key, an unverified sender, a rejected request."""

    exit_code = 4


class DatabaseError(UserError):
    """The database cannot be opened, or is of another version than the code."""

    exit_code = 5


class MachineError(UserError):
    """The machine stands in the way: a port in use, a folder not writable."""

    exit_code = 6
