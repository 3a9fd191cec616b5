"""Reads `.env`: lines NAME=VALUE that mean the same to this program, a shell and Docker Compose.

Values with blanks or signs of the shell are quoted. Lines with other programs' variables are
ignored, so that one file can serve several programs.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from newsletter.errors import SettingsError

NAME: Final = ".env"
_MOST_BYTES: Final = 1_000_000
_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
#: Single quotes, double quotes without escapes, or neither quotes nor signs of the shell.
_VALUE: Final = re.compile(r"""'([^']*)'|"([^"\\$`]*)"|([^\s'"\\$`#;&|<>()]*)""")
_WRITTEN: Final = "A line is written NAME='VALUE', or begins with #."


def line(name: str, value: str) -> str:
    """The line that sets a variable; SettingsError if no quotes can hold the value."""
    for written in (f"'{value}'", f'"{value}"'):
        if _VALUE.fullmatch(written) and not set(value) & {"\n", "\r"}:
            return f"{name}={written}"
    raise SettingsError(
        "both kinds of quotes, or a line break, cannot be written into the file", place=name
    )


def lines(path: Path, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Place (file and line), name and value of each variable whose name begins with ``prefix``.

    Nothing if there is no file. SettingsError if the file cannot be read, if a line is malformed or
    a name repeated, or if other users can read the values.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return  # a folder of this name may be a virtual environment
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}", place=str(path)) from None
    if len(raw) > _MOST_BYTES:
        raise SettingsError(f"the file is longer than {_MOST_BYTES:,} bytes", place=str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise SettingsError("this line is not UTF-8", place=f"{path}:{number}") from None
    found = list(_parsed(path, text, prefix))
    if found and mode & 0o004:
        raise SettingsError(
            "everybody on this machine can read the file, and it is made for keys",
            place=str(path),
            hint=f"Run: chmod 600 {path}",
        )
    yield from found


def _parsed(path: Path, text: str, prefix: str) -> Iterator[tuple[str, str, str]]:
    seen: dict[str, int] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        place, stripped = f"{path}:{number}", raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        # The message never shows the line, which may be a key.
        if match is None:
            raise SettingsError("this line sets no variable", place=place, hint=_WRITTEN)
        name, written = match[1], match[2]
        if not name.startswith(prefix):
            continue
        value = _VALUE.fullmatch(written)
        if value is None:
            raise SettingsError(
                f"the value of {name} is not quoted as it should be",
                place=place,
                hint=f"Put the whole value into single quotes. {_WRITTEN}",
            )
        if name in seen:
            raise SettingsError(
                f"{name} is set in line {seen[name]} already", place=place, hint="Delete one."
            )
        seen[name] = number
        yield place, name, next(group for group in (*value.groups(), "") if group is not None)
