"""The publication's errors. Each says what, where and what to do; none knows HTTP.

Exit codes, for scripts: 2 something given is wrong, 3 there is nothing to do,
4 the provider refused, 5 the database does not fit, 6 the machine stands in the way.
"""

from subscribers.errors import UserError as UserError


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
