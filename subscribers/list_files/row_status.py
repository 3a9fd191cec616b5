"""Combines what the columns of a row say about its status: subscribed, unconfirmed or left.

Each column has a role, and each cell a word. Where two columns disagree, the stronger exclusion
counts: a row that is ``active`` and has an ``unsubscribed_at`` has unsubscribed. An empty cell in
a consent column means no consent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from subscribers.list_files.dates import UnreadableDateError, is_date, parse_moment
from subscribers.list_files.status_words import (
    LEAVING,
    STRENGTH,
    SUBSCRIBED,
    UNCONFIRMED,
    fold,
    is_nothing,
    state_of,
    yes_or_no,
)
from subscribers.models import SuppressionReason

#: A status, and its time if the cell has one.
StatusAt = tuple[str, datetime | None]

#: The role of a column whose non-empty cells exclude → the status they give.
EXCLUDING = {
    "unsubscribed": SuppressionReason.UNSUBSCRIBED.value,
    "bounced": SuppressionReason.BOUNCED.value,
    "complained": SuppressionReason.COMPLAINED.value,
    "suppressed": SuppressionReason.MANUAL.value,
    "pending": UNCONFIRMED,
}
#: Suffix of an excluding role: any text excludes, as it is the reason.
TEXT = " text"
#: A column whose meaning is still open: rows with a non-empty cell are not emailed.
UNDECIDED = "undecided"
STATE_ROLES = frozenset(
    {
        "status",
        "consent",
        "confirmed_at",
        UNDECIDED,
        *EXCLUDING,
        *(f"{role}{TEXT}" for role in EXCLUDING),
    }
)
_CACHED = 10_000


class UnknownWordError(Exception):
    """A cell of a status column has an unknown word."""


def key_of(word: str) -> str:
    """The key of a word, equal for all its spellings; for words of only punctuation, the word."""
    return fold(word) or word.strip()


def read_state(
    role: str, text: str, order: str | None = None, chosen: Mapping[str, str] | None = None
) -> StatusAt:
    """The status in one cell; ``chosen`` are words that the operator explained, by ``key_of``.

    Raises UnknownWordError. A column with nothing against the person returns SUBSCRIBED.
    """
    word = text.strip()
    if chosen and (state := chosen.get(key_of(word))) is not None:
        return state, None
    if role == UNDECIDED:
        return (SUBSCRIBED if is_nothing(word) else UNCONFIRMED), None
    if (status := EXCLUDING.get(role.removesuffix(TEXT))) is not None:
        return _excluded(word, status, order, any_text=role.endswith(TEXT))
    if is_nothing(word):
        return UNCONFIRMED, None
    if state := state_of(word):
        return state, None
    if role != "status":
        agreed = yes_or_no(word)
        if role == "confirmed_at" and word == "2":  # Brevo's “no” in DOUBLE_OPT-IN
            agreed = False
        if agreed is not None:
            return _agreed(role, yes=agreed), None
        if is_date(word):
            return SUBSCRIBED, None
    raise UnknownWordError


def _agreed(role: str, *, yes: bool) -> str:
    if yes:
        return SUBSCRIBED
    return UNCONFIRMED if role == "confirmed_at" else SuppressionReason.UNSUBSCRIBED.value


def _excluded(word: str, status: str, order: str | None, *, any_text: bool) -> StatusAt:
    if is_nothing(word):
        return SUBSCRIBED, None
    known = yes_or_no(word)
    if known is None and word.isdecimal() and len(word) < 8:
        known = int(word) > 0
    if known is not None:
        return (status if known else SUBSCRIBED), None
    state = state_of(word)
    if state in LEAVING or state == UNCONFIRMED:
        return max(state, status, key=STRENGTH.__getitem__), None
    if state and fold(word).startswith("subscribed"):
        return SUBSCRIBED, None
    if is_date(word):
        try:
            return status, parse_moment(word, order)
        except UnreadableDateError:
            return status, None  # a question asks for the order of day and month
    if any_text or word.startswith(("[", "{")):
        return status, None
    raise UnknownWordError


class CellReader:
    """Reads the cells of one column; caches each text, since a status column has few."""

    def __init__(self, role: str, order: str | None, chosen: Mapping[str, str]) -> None:
        self.role = role
        self._order = order
        self._chosen = chosen
        self._known: dict[str, StatusAt] = {}

    def __call__(self, text: str) -> StatusAt:
        said = self._known.get(text)
        if said is None:
            said = read_state(self.role, text, self._order, self._chosen)
            if len(self._known) < _CACHED:
                self._known[text] = said
        return said


def strongest(said: Sequence[StatusAt]) -> StatusAt:
    """The status that excludes most, and its time if a column has one."""
    state = max((one for one, _ in said), key=STRENGTH.__getitem__, default=SUBSCRIBED)
    return state, next((at for one, at in said if one == state and at), None)
