"""An issue file as text: small enough, UTF-8, without what no text may hold."""

import re
from hashlib import sha256
from pathlib import Path

from newsletter.errors import IssueError

#: Twice what Gmail shows of a mail; larger texts would take seconds to render.
MOST_BYTES = 200_000
#: An issue has no use for these, and XML libraries and mail servers choke on them.
FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def read_text(path: Path) -> str:
    """A UTF-8 file's text, ``\\n`` for every line break; IssueError when it cannot be had."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise IssueError(f"cannot be read: {reason}", place=str(path)) from None
    if len(data) > MOST_BYTES:
        raise too_large(len(data), str(path))
    try:
        return normalised(data.decode(), name=str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise IssueError(
            f"this is not UTF-8 (byte 0x{data[error.start]:02x})",
            place=f"{path}:{line}",
            hint="Save the file as UTF-8.",
        ) from None


def normalised(text: str, *, name: str) -> str:
    """The text without byte order mark, ``\\n`` for every line break.

    Raises IssueError for a text that is too large, and for a control character, which no issue
    has a use for.
    """
    if (size := len(text.encode(errors="replace"))) > MOST_BYTES:
        raise too_large(size, name)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if bad := FORBIDDEN.search(text):
        raise IssueError(
            f"a character that no text may hold (U+{ord(bad[0]):04X})",
            place=f"{name}:{text.count(chr(10), 0, bad.start()) + 1}",
            hint="Remove it; this may not be a text file.",
        )
    return text


def too_large(size: int, name: str) -> IssueError:
    """What to raise for a text of more than MOST_BYTES."""
    return IssueError(
        f"an issue has at most {MOST_BYTES:,} bytes, this one {size:,}",
        place=name,
        hint="Gmail cuts a mail at 102 KB: shorten it, or link to the rest.",
    )


def content_digest(source: str) -> str:
    """The same for two issue files that differ in slug and archive alone, in 32 hex digits.

    A restored database may get an issue once more under another name: it is the same to whoever
    had it.
    """
    lines = [line.rstrip() for line in source.rstrip().split("\n")]
    closing = next((n for n, line in enumerate(lines) if n and line == "---"), 0)
    said = [
        line
        for n, line in enumerate(lines)
        if n >= closing or line.partition(":")[0].rstrip() not in {"slug", "archive"}
    ]
    return sha256("\n".join(said).encode(errors="replace")).hexdigest()[:32]
