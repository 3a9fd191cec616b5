"""`newsletter settings`."""

from typing import Annotated

import typer

from newsletter.cli.output import rows
from newsletter.settings.load import load_with_origins

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def show(as_json: AsJson = False) -> None:
    """Print all settings and their origins; secrets are masked."""
    _, origins = load_with_origins()
    records = [{"setting": o.key, "value": o.shown, "from": o.source} for o in origins]
    rows(records, ["setting", "value", "from"], as_json=as_json, empty="")
