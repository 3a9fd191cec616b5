"""Sentences made of messages: a capital at the beginning, and a full stop at the end.

Messages begin in lower case, because most are told behind a place. Where one stands alone it
becomes a sentence, unless it begins with what has a spelling of its own.
"""

import re

#: An ordinary word: letters, an apostrophe or a hyphen within, a comma or so behind it.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*[,;:.!?…]*")
_ENDS = (".", "!", "?", "…", "”", '"')
#: Whatever is glued to an address or a path is taken for a part of it.
_ADDRESS = re.compile(r"\S*(?://|@|/)\S*")


def capitalized(text: str) -> str:
    """The text with a capital at its beginning; an address, a path or a setting stays as it is."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text[:1].upper() + text[1:] if _WORD.fullmatch(first) else text


def sentence(text: str) -> str:
    """The text as a sentence of its own."""
    text = capitalized(text.rstrip())
    if not text:
        return ""
    return text if text.endswith(_ENDS) or _ADDRESS.fullmatch(text.split()[-1]) else f"{text}."
