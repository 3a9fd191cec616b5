"""The errors of both packages. Each says what is wrong, where, and what to do.

Exit codes for scripts: 2 an argument or a file is wrong, 3 there is nothing to do, 4 the provider
refused, 5 the database cannot be used, 6 the machine prevents it.
"""


class UserError(Exception):
    """An error that the user can fix.

    ``message`` says what is wrong, ``place`` where (a file and line, a field, a setting), and
    ``hint`` what to do. The command line prints all three and exits with ``exit_code``; a page or
    an API shows the same texts.
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
    """An email address is malformed."""


class SegmentError(UserError):
    """A segment is unknown, or empty where it may not be, or its rule is wrong.

    ``span`` is the wrong part of the rule: line and column, both from 1, and length in characters.
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
    """A link's token is forged, truncated, or signed with a key that is no longer known."""


class AccountError(UserError):
    """A change of a user's account is not possible."""


class BusyError(UserError):
    """Too many such operations are running; try again in a moment."""


class SendError(UserError):
    """An operation is not possible in the send's current state."""


class BackupError(UserError):
    """A folder is no backup, is damaged, or does not fit the database or the settings."""


class NothingToDoError(UserError):
    """Nothing is wrong, but there is nothing to do."""

    exit_code = 3


class ProviderError(UserError):
    """The provider refused: a wrong key, an unverified sender, a rejected request."""

    exit_code = 4


class DatabaseError(UserError):
    """The database cannot be opened, or has another version than the code."""

    exit_code = 5


class MachineError(UserError):
    """The machine prevents it: a port is in use, or a folder is not writable."""

    exit_code = 6
