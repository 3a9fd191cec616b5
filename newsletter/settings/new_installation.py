"""Writes the two files of a new installation: `newsletter.toml`, and `.env` with new keys."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from newsletter.db import private_files
from newsletter.errors import MachineError, SettingsError
from newsletter.settings import env_file
from newsletter.settings.kinds import masked_url
from newsletter.settings.load import FILE, INITIAL, load

#: Where the stand-in for SendGrid listens, and the key that it accepts.
SANDBOX_HOST: Final = "http://127.0.0.1:8025"
SANDBOX_KEY: Final = "SG.sandbox"

_HEAD: Final = """\
# The settings of this installation that differ from the defaults. Run `newsletter` in this folder.
# `newsletter settings` lists all settings, and where the value of each comes from.
# The keys are in .env, beside this file. The environment wins over both files.
"""
_ENV_HEAD: Final = """\
# Keys: keep this file private, and back it up with the database (newsletter db backup).
"""
_WEBHOOK_KEY: Final = "# The verification key of SendGrid's signed event webhook.\n"
_WEBHOOK: Final = """\
# Paste the verification key of SendGrid's signed event webhook here, in quotes. The webhook posts
# to the path /webhooks/sendgrid/events of this service.
webhook_public_keys = []
"""
_PROXY: Final = """\
[web]
# The reverse proxy on this machine that ends TLS. If it is elsewhere, write its network instead.
trusted_proxies = ["127.0.0.1"]
"""


@dataclass(frozen=True, slots=True)
class NewInstallation:
    """The answers of the person who sets it up. No API key: the stand-in for SendGrid."""

    name: str
    sender_name: str
    sender_email: str
    base_url: str
    api_key: str = ""
    postal_address: str = ""
    database_url: str = ""
    webhook_key: str = ""

    def environment(self) -> dict[str, str]:
        """The answers as environment variables, for `load`."""
        given = {
            "NEWSLETTER_SITE__NAME": self.name,
            "NEWSLETTER_SITE__BASE_URL": self.base_url,
            "NEWSLETTER_SITE__POSTAL_ADDRESS": self.postal_address,
            "NEWSLETTER_SENDER__NAME": self.sender_name,
            "NEWSLETTER_SENDER__EMAIL": self.sender_email,
            "NEWSLETTER_SENDGRID__HOST": "" if self.api_key else SANDBOX_HOST,
            "NEWSLETTER_SENDGRID__API_KEY": self.api_key or SANDBOX_KEY,
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": self.webhook_key,
            "NEWSLETTER_DATABASE_URL": self.database_url,
        }
        return {name: value for name, value in given.items() if value}


def write(folder: Path, new: NewInstallation) -> None:
    """Write both files, or neither.

    SettingsError if a file exists or a value is invalid, MachineError if they cannot be written.
    """
    load(new.environment())  # raises SettingsError for an invalid value
    require_new(folder, new.database_url)
    texts = {env_file.NAME: _env(new), FILE: _toml(new)}
    written: list[Path] = []
    try:
        private_files.make_folder(folder)
        for name, text in texts.items():
            # "x" fails if the file exists, also if it was created just now.
            path = folder / name
            with open(path, "x", encoding="utf-8", opener=private_files.opener) as file:
                written.append(path)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise MachineError(
            f"cannot be written: {error.strerror}", place=str(error.filename or folder)
        ) from None


def require_new(folder: Path, database_url: str = "") -> None:
    """Raise SettingsError if the folder has an installation, or parts of one."""
    for name in (FILE, env_file.NAME):
        if os.path.lexists(folder / name):
            raise SettingsError(
                "the file exists, and it is never overwritten",
                place=str(folder / name),
                hint="Edit it, or choose another folder: newsletter init FOLDER",
            )
    url = make_url(database_url or load({}).database_url)
    if url.get_backend_name() == "sqlite" and (folder / (url.database or "")).exists():
        raise SettingsError(
            "this database exists, and it belongs to its own keys",
            place=str(folder / (url.database or "")),
            hint="Bring back the .env that was backed up with it, or choose another folder.",
        )


def _toml(new: NewInstallation) -> str:
    sections: dict[str, Mapping[str, str]] = {
        "site": {"base_url": new.base_url},
        "sendgrid": {} if new.api_key else {"host": SANDBOX_HOST},
        INITIAL: {
            "site.name": new.name,
            "site.postal_address": new.postal_address,
            "sender.name": new.sender_name,
            "sender.email": new.sender_email,
        },
    }
    explained = {
        "base_url": "The public address of this service: each link in an email begins with it.",
        "site.name": "The publication begins with these, and its database takes them over. Then "
        "change them\n# on the page Settings of the console, or with `newsletter settings set`.",
        "site.postal_address": "Most countries require it in every email.",
        "sender.email": "The From address. SendGrid must have verified it.",
        "host": "The stand-in for SendGrid, which `newsletter serve --sandbox` runs. For real "
        "email,\n# delete this line, and put SendGrid's API key into .env.",
    }
    parts = [_HEAD]
    if new.database_url and not _has_password(new.database_url):
        parts.append(f"database_url = {_quoted(new.database_url)}\n")
    for section, values in sections.items():
        parts.append(f"[{section}]\n")
        for key, value in values.items():
            if value:
                comment = f"# {explained[key]}\n" if key in explained else ""
                parts[-1] += f"{comment}{key} = {_quoted(value)}\n"
        if section == "sendgrid":
            if new.webhook_key:
                parts[-1] += f"{_WEBHOOK_KEY}webhook_public_keys = [{_quoted(new.webhook_key)}]\n"
            elif new.api_key:
                parts[-1] += _WEBHOOK
            if new.base_url.startswith("https:"):
                parts.append(_PROXY)
    return "\n".join(parts)


def _env(new: NewInstallation) -> str:
    lines = [
        _ENV_HEAD,
        "# SendGrid's API key, with the Mail Send permission; or what the stand-in accepts.\n",
        _variable("NEWSLETTER_SENDGRID__API_KEY", new.api_key or SANDBOX_KEY),
        "# Signs the links in emails. Keep it for as long as these links should work.\n",
        _variable("NEWSLETTER_LINKS__KEYS", secrets.token_urlsafe(32)),
        "# Hashes addresses. The database belongs to it, so never change it.\n",
        _variable("NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY", secrets.token_urlsafe(32)),
    ]
    if _has_password(new.database_url):
        lines.append(_variable("NEWSLETTER_DATABASE_URL", new.database_url))
    return "".join(lines)


def _variable(name: str, value: str) -> str:
    return env_file.line(name, value) + "\n"


def _has_password(url: str) -> bool:
    return masked_url(url) != url


def _quoted(text: str) -> str:
    """A basic string of TOML. Settings have no control characters, so JSON writes the same."""
    return json.dumps(text, ensure_ascii=False)
