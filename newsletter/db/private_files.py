"""Creates files and folders with personal data, readable only by the user that runs this program.

The mode is set when a file is created, so that there is no moment in which others can read it.
Existing files keep their modes: somebody changed them on purpose.
"""

import os
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents; OSError if that fails."""
    for folder in (*reversed(path.absolute().parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def opener(path: str, flags: int) -> int:
    """For ``open(path, "w", opener=opener)``: a new file is private."""
    return os.open(path, flags, FILE_MODE)


def make(path: Path) -> None:
    """Create an empty file if there is none; OSError if that fails."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
