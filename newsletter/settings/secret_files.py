"""Reads secrets from files: `NEWSLETTER_LINKS__KEYS_FILE` names the file with `links.keys`.

Docker and Kubernetes mount secrets as files, and systemd hands credentials over as files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from newsletter.errors import SettingsError

SUFFIX: Final = "_FILE"
#: The settings that may be read from files. The database's URL contains a password.
SETTINGS: Final = (
    "database_url",
    "sendgrid.api_key",
    "links.keys",
    "subscribers.address_key",
    "inbound.key",
    "metrics.token",
)
_MOST_BYTES: Final = 100_000


def resolved(variables: Mapping[str, tuple[str, str]], prefix: str) -> dict[str, tuple[str, str]]:
    """The variables with each `…_FILE` replaced by the variable and its value from the file.

    ``variables`` maps names to place and value. SettingsError if a file cannot be read, or if a
    variable is set both ways.
    """
    result = dict(variables)
    for setting in SETTINGS:
        name = prefix + setting.upper().replace(".", "__")
        if (found := result.pop(name + SUFFIX, None)) is None:
            continue
        place, path = found
        if name in result:
            raise SettingsError(
                f"{name} is set, too", place=place, hint="Keep one of the two: value or file."
            )
        text = _read(Path(path), place)
        if setting == "links.keys" and not text.startswith("["):
            text = ",".join(text.splitlines())  # one key in each line
        result[name] = (f"{place} ({path})", text)
    return result


def _read(path: Path, place: str) -> str:
    shown = f"{place}: {path}"
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise SettingsError(
            f"cannot be read: {error.strerror}",
            place=shown,
            hint="The file has to exist, and the user of this program has to be able to read it.",
        ) from None
    except ValueError:  # not UTF-8, or not a path
        raise SettingsError("is not the path of a text file", place=shown) from None
    if len(raw) > _MOST_BYTES:
        raise SettingsError(f"the file is longer than {_MOST_BYTES:,} bytes", place=shown)
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SettingsError("the file is empty", place=shown, hint="Write the secret into it.")
    return text
