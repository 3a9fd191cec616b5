"""Decodes a file to lines of text, in flat memory, and records each flaw by line number.

Only a line feed ends a line, as in CSV and JSON Lines; a carriage return does in files without
any line feed. All encodings are first converted to UTF-8 bytes and then to text, so that there is
one path for undecodable bytes: the line has such bytes as ``\\xe9``, and a flaw is recorded.
"""

import codecs
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import BinaryIO

from newsletter.errors import UserError

#: The longest line in bytes, and the longest field in characters, that is read.
LONGEST = 1_000_000
#: Bytes that are read to detect the format.
SAMPLE = 1 << 16
_BLOCK = 1 << 18
#: Most lines of a row: texts of several lines have some dozens.
_MOST_LINES = 2000
#: Bytes kept of a line that is too long, so that it can be found.
_SHOWN = 200
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PACKED = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet (.xlsx)",
    b"\x1f\x8b": "compressed by gzip",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls)",
}
#: Replaces undecodable UTF-16: a byte that is not UTF-8 either.
_DAMAGED = "subscribers.damaged"
codecs.register_error(_DAMAGED, lambda error: ("\udc80", getattr(error, "end", 0)))


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a file: codec, length of the byte order mark, and a note on a guess."""

    codec: str
    offset: int = 0
    note: str | None = None


def encoding_of(file: BinaryIO, name: str, asked: str | None = None) -> Encoding:
    """The encoding of the file; UserError if it is not text.

    A byte order mark decides, then ``asked``. Without both, a file is UTF-8 if at least one line
    is UTF-8 beyond ASCII: other bytes are then flaws of their lines. A file with bytes beyond
    ASCII and no such line is read as Windows-1252.
    """
    file.seek(0)
    head = file.read(SAMPLE)
    for begin, what in _PACKED.items():
        if head.startswith(begin):
            raise UserError(
                f"this is {what}, not text",
                place=name,
                hint="Unpack it, or save it as CSV (UTF-8), and import each file by itself.",
            )
    for mark, codec in _BOMS:
        if head.startswith(mark):
            return Encoding(codec, len(mark))
    if asked:
        try:
            b"".decode(asked)  # fails for codecs that are not for text
            return Encoding(codecs.lookup(asked).name, note=f"read as {asked}, as asked for")
        except (LookupError, UnicodeError):
            raise UserError(
                f"there is no encoding called {asked}",
                place=name,
                hint="Usual ones are utf-8, windows-1252, windows-1250, latin-9 and utf-16.",
            ) from None
    if head[:2000].count(0) > len(head[:2000]) // 4:
        raise UserError(
            "this is not text, or UTF-16 without a byte order mark",
            place=name,
            hint="Save it as UTF-8.",
        )
    file.seek(0)
    return _guessed(file)


def _guessed(file: BinaryIO) -> Encoding:
    rest = b""
    foreign = False
    while block := file.read(_BLOCK):
        if block.isascii() and rest.isascii():
            rest = b""
            continue
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if not newline and len(rest) < LONGEST:
            continue
        verdict = _utf8(whole or rest)
        if verdict:
            return Encoding("utf-8")
        foreign = foreign or verdict is False
        rest = rest if newline else b""
    last = _utf8(rest)
    if last or not (foreign or last is False):
        return Encoding("utf-8")
    return Encoding("cp1252", note="not UTF-8, so it was read as Windows-1252")


def _utf8(text: bytes) -> bool | None:
    """Whether a line is UTF-8 beyond ASCII; None if all are ASCII, False if none is UTF-8."""
    if text.isascii():
        return None
    try:
        text.decode()
    except UnicodeDecodeError:
        return any(not line.isascii() and _decodes(line) for line in text.split(b"\n"))
    return True


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class EndlessRowError(Exception):
    """A row with too many lines or characters; the message says how many are allowed."""


class Lines:
    """Numbers the lines, records flaws, and can return lines to be read again."""

    def __init__(self, file: BinaryIO, encoding: Encoding) -> None:
        #: The number of the latest line.
        self.number = 0
        #: The lines of the current row: those since the reader last cleared this.
        self.taken: list[str] = []
        #: Line number → flaw.
        self.flaws: dict[int, str] = {}
        self._again: deque[str] = deque()
        #: Up to this line, a row that began on an earlier line has no end; and the reason.
        self._endless, self._why = 0, ""
        #: Characters of the current row.
        self._size = 0
        #: Whether the current line has been truncated.
        self._too_long = False
        self._source = self._read(file, encoding)

    def each(self) -> Iterator[str]:
        """The remaining lines.

        Raises EndlessRowError if the current row has too many lines or characters, or is already
        known to have no end.
        """
        taken = self.taken
        while self._again:
            yield self._next(self._again.popleft(), taken)
        for line in self._source:
            yield self._next(line, taken)

    def _next(self, line: str, taken: list[str]) -> str:
        self._size = self._size + len(line) if taken else len(line)
        self.number += 1
        taken.append(line)
        if len(taken) > 1 and self.number <= self._endless:
            raise EndlessRowError(self._why)
        if len(taken) > _MOST_LINES:
            raise EndlessRowError(f"a row of more than {_MOST_LINES:,} lines")
        if self._size > LONGEST and len(taken) > 1:
            raise EndlessRowError(f"a row of more than {LONGEST:,} characters")
        return line

    @property
    def first(self) -> int:
        """The first line of the current row."""
        return self.number - len(self.taken) + 1

    def flaw(self) -> str | None:
        """The first flaw of the current row's lines."""
        found = [self.flaws.pop(n, None) for n in range(self.first, self.number + 1)]
        return next((flaw for flaw in found if flaw), None)

    def read_again(self, why: str) -> None:
        """Return the current row's lines except the first, because the row has no end.

        The other lines were all within quotes, and so are those of any row that begins on one of
        them: none of these ends either. So each line is read at most twice, whatever the file has.
        """
        if self.number > self._endless:
            self._endless, self._why = self.number, why
        again = self.taken[1:]
        self._again.extendleft(reversed(again))
        self.number -= len(again)
        self.taken.clear()

    def _read(self, file: BinaryIO, encoding: Encoding) -> Iterator[str]:
        rest = b""
        for block in _utf8_blocks(file, encoding):
            whole, newline, tail = block.rpartition(b"\n")
            if newline:
                yield from self._lines(rest + whole + newline)
                rest = tail
            else:
                rest += block
                if len(rest) > LONGEST:
                    rest = self._cut(rest)
        if rest:
            yield from self._lines(rest)

    def _cut(self, rest: bytes) -> bytes:
        """The beginning of a line that is too long.

        It keeps an odd or even number of quotes like the whole line, so that the CSV reader still
        finds the end of the row.
        """
        shown = rest[:_SHOWN]
        if (rest.count(b'"') - shown.count(b'"')) % 2:
            shown += b'"'
        self._too_long = True
        return shown

    def _lines(self, block: bytes) -> Iterator[str]:
        if not (self._too_long or len(block) > LONGEST or b"\0" in block):
            text = _decoded(block)
            if text is not None:
                yield from StringIO(text, newline="\n")
                return
        for part in _split(block):
            line, reason = part, None
            if self._too_long or len(part) > LONGEST:
                reason = f"the line is longer than {LONGEST:,} bytes"
                line = self._cut(part.rstrip(b"\r\n")) + b"\n"
                self._too_long = False
            elif b"\0" in part:
                reason = "a NUL byte"
            elif not _decodes(part):
                reason = "not in the encoding of the rest of the file"
            if reason:
                self.flaws[self.number + 1] = reason
            yield line.decode(errors="backslashreplace")


def _split(block: bytes) -> list[bytes]:
    parts = block.split(b"\n")
    last = parts.pop()
    return [part + b"\n" for part in parts] + ([last] if last else [])


def sample_of(file: BinaryIO, encoding: Encoding) -> str:
    """The first lines, complete unless the first is long, to detect the format."""
    block = next(_utf8_blocks(file, encoding), b"")[:SAMPLE]
    whole, newline, _ = block.rpartition(b"\n")
    return (whole + newline if newline else block).decode(errors="replace")


def _utf8_blocks(file: BinaryIO, encoding: Encoding) -> Iterator[bytes]:
    file.seek(encoding.offset)
    blocks = _plain_blocks(file) if encoding.codec == "utf-8" else _transcoded(file, encoding)
    first = next(blocks, b"")
    if b"\r" in first and b"\n" not in first:  # as Mac OS wrote until 2001
        yield first.replace(b"\r", b"\n")
        for block in blocks:
            yield block.replace(b"\r", b"\n")
    else:
        yield first
        yield from blocks


def _plain_blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _transcoded(file: BinaryIO, encoding: Encoding) -> Iterator[bytes]:
    # Bytes that Windows-1252 does not define stay as they are, so they are not UTF-8 either.
    errors = "surrogateescape" if encoding.codec == "cp1252" else _DAMAGED
    decoder = codecs.getincrementaldecoder(encoding.codec)(errors)
    while block := file.read(_BLOCK):
        yield decoder.decode(block).encode(errors="surrogateescape")
    if last := decoder.decode(b"", final=True):
        yield last.encode(errors="surrogateescape")


def _decoded(block: bytes) -> str | None:
    try:
        return block.decode()
    except UnicodeDecodeError:
        return None
