"""Files and folders that hold people's data: for the user that runs us, and nobody else.

The modes are asked for when a file is made, so that no umask widens them and nobody can look in
between. What exists keeps its mode: whoever changed it did so on purpose.
"""

import os
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are missing; OSError when that fails."""
    for folder in (*reversed(path.absolute().parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def opener(path: str, flags: int) -> int:
    """For ``open(path, "w", opener=opener)``: a new file is private."""
    return os.open(path, flags, FILE_MODE)


def make(path: Path) -> None:
    """Make an empty file, unless there is one; OSError when that fails."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
