"""Makes sentences of error messages: a capital at the beginning, a period at the end.

Error messages begin in lower case, because most are shown after a place. A message shown alone
becomes a sentence. A first word such as an address keeps its spelling.
"""

import re

#: An ordinary word: letters, perhaps with an apostrophe, a hyphen, or punctuation at its end.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*[,;:.!?…]*")
_ENDS = (".", "!", "?", "…", "”", '"')
#: An address or a path, with any punctuation attached to it.
_ADDRESS = re.compile(r"\S*(?://|@|/)\S*")


def capitalized(text: str) -> str:
    """The text with a capital at its beginning; an address, a path or a setting stays as it is."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text[:1].upper() + text[1:] if _WORD.fullmatch(first) else text


def sentence(text: str) -> str:
    """The text as a sentence."""
    text = capitalized(text.rstrip())
    if not text:
        return ""
    return text if text.endswith(_ENDS) or _ADDRESS.fullmatch(text.split()[-1]) else f"{text}."
