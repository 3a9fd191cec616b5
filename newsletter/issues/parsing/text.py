"""Reads an issue file as text and checks its size, encoding and characters."""

import re
from hashlib import sha256
from pathlib import Path

from newsletter.errors import IssueError

#: Twice what Gmail shows of an email; larger texts would take seconds to render.
MOST_BYTES = 200_000
#: Control characters and noncharacters: XML libraries and mail servers fail on them.
FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def read_text(path: Path) -> str:
    """A UTF-8 file's text, with ``\\n`` for every line break; IssueError when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise IssueError(f"cannot be read: {reason}", place=str(path)) from None
    if len(data) > MOST_BYTES:
        raise too_large(len(data), str(path))
    try:
        return normalized(data.decode(), name=str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise IssueError(
            f"this is not UTF-8 (byte 0x{data[error.start]:02x})",
            place=f"{path}:{line}",
            hint="Save the file as UTF-8.",
        ) from None


def normalized(text: str, *, name: str) -> str:
    """The text without byte order mark, with ``\\n`` for every line break.

    Raises IssueError for a text that is too large or has a FORBIDDEN character.
    """
    if (size := len(text.encode(errors="replace"))) > MOST_BYTES:
        raise too_large(size, name)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if bad := FORBIDDEN.search(text):
        raise IssueError(
            f"a character that is not allowed (U+{ord(bad[0]):04X})",
            place=f"{name}:{text.count(chr(10), 0, bad.start()) + 1}",
            hint="Remove it; this may not be a text file.",
        )
    return text


def too_large(size: int, name: str) -> IssueError:
    """The error for a text of more than MOST_BYTES."""
    return IssueError(
        f"an issue has at most {MOST_BYTES:,} bytes, this one {size:,}",
        place=name,
        hint="Gmail clips emails at 102 KB: shorten the issue, or link to the rest.",
    )


def content_digest(source: str) -> str:
    """A digest of 32 hex digits that ignores the keys slug and archive.

    After a restore, the same issue may be imported under another slug. The digest shows that it is
    the same issue, so nobody gets it twice.
    """
    lines = [line.rstrip() for line in source.rstrip().split("\n")]
    closing = next((n for n, line in enumerate(lines) if n and line == "---"), 0)
    kept = [
        line
        for n, line in enumerate(lines)
        if n >= closing or line.partition(":")[0].rstrip() not in {"slug", "archive"}
    ]
    return sha256("\n".join(kept).encode(errors="replace")).hexdigest()[:32]
