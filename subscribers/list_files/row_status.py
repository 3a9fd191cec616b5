"""What the columns of a row say of its person together: may they be mailed, or did they leave.

Each column has a role and each cell a word. Wherever two columns disagree, the one that keeps
the person out counts: a row that is ``active`` and has an ``unsubscribed_at`` has left. A
column of consent with an empty cell is no consent.
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

#: A state, and since when where the cell tells.
Said = tuple[str, datetime | None]

#: The role of a column that bars whoever has something in it → the state that they get.
BARRING = {
    "unsubscribed": SuppressionReason.UNSUBSCRIBED.value,
    "bounced": SuppressionReason.BOUNCED.value,
    "complained": SuppressionReason.COMPLAINED.value,
    "suppressed": SuppressionReason.MANUAL.value,
    "pending": UNCONFIRMED,
}
#: Behind a barring role: any text bars, for it is the reason why.
TEXT = " text"
#: A column that is still to be decided: whoever has something in it is not mailed.
UNDECIDED = "undecided"
STATE_ROLES = frozenset(
    {
        "status",
        "consent",
        "confirmed_at",
        UNDECIDED,
        *BARRING,
        *(f"{role}{TEXT}" for role in BARRING),
    }
)
_CACHED = 10_000


class UnknownWordError(Exception):
    """A cell of a column of states whose word is not known."""


def key_of(word: str) -> str:
    """What two spellings of a word share; for words of signs alone, the word."""
    return fold(word) or word.strip()


def read_state(
    role: str, text: str, order: str | None = None, chosen: Mapping[str, str] | None = None
) -> Said:
    """What one cell says; ``chosen`` are words that the operator explained, by ``key_of``.

    Raises UnknownWordError. SUBSCRIBED is also what a column says that has nothing against it.
    """
    word = text.strip()
    if chosen and (state := chosen.get(key_of(word))) is not None:
        return state, None
    if role == UNDECIDED:
        return (SUBSCRIBED if is_nothing(word) else UNCONFIRMED), None
    if (bars := BARRING.get(role.removesuffix(TEXT))) is not None:
        return _barred(word, bars, order, any_text=role.endswith(TEXT))
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


def _barred(word: str, bars: str, order: str | None, *, any_text: bool) -> Said:
    if is_nothing(word):
        return SUBSCRIBED, None
    known = yes_or_no(word)
    if known is None and word.isdecimal() and len(word) < 8:
        known = int(word) > 0
    if known is not None:
        return (bars if known else SUBSCRIBED), None
    state = state_of(word)
    if state in LEAVING or state == UNCONFIRMED:
        return max(state, bars, key=STRENGTH.__getitem__), None
    if state and fold(word).startswith("subscribed"):
        return SUBSCRIBED, None
    if is_date(word):
        try:
            return bars, parse_moment(word, order)
        except UnreadableDateError:
            return bars, None  # the order of day and month is asked elsewhere
    if any_text or word.startswith(("[", "{")):
        return bars, None
    raise UnknownWordError


class CellReader:
    """Reads the cells of one column, each text once: a column of states has few."""

    def __init__(self, role: str, order: str | None, chosen: Mapping[str, str]) -> None:
        self.role = role
        self._order = order
        self._chosen = chosen
        self._known: dict[str, Said] = {}

    def __call__(self, text: str) -> Said:
        said = self._known.get(text)
        if said is None:
            said = read_state(self.role, text, self._order, self._chosen)
            if len(self._known) < _CACHED:
                self._known[text] = said
        return said


def strongest(said: Sequence[Said]) -> Said:
    """The state that keeps out most, and since when as far as a column tells."""
    state = max((one for one, _ in said), key=STRENGTH.__getitem__, default=SUBSCRIBED)
    return state, next((at for one, at in said if one == state and at), None)
