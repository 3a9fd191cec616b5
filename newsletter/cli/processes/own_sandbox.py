"""The stand-in for SendGrid within `newsletter serve --sandbox`, at the settings' own address.

Other commands in the same folder send to that address, too, so their emails are in its mailbox.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from newsletter import readiness
from newsletter.db import private_files
from newsletter.db.engine import beside
from newsletter.errors import MachineError, SettingsError
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import Settings
from newsletter.settings.new_installation import SANDBOX_HOST

#: Keeps its emails, beside the database.
_FILE: Final = "sandbox.db"


@contextmanager
def own_sandbox(settings: Settings) -> Iterator[tuple[RunningSandbox, Settings]]:
    """The running stand-in, and the settings with the key that verifies its events.

    SettingsError if the settings would send elsewhere, or lack keys.
    """
    host = settings.sendgrid.host
    address = urlsplit(host)
    if not readiness.is_local(settings) or address.scheme != "http" or address.hostname is None:
        raise SettingsError(
            f"is {host}, and with --sandbox nothing may leave this machine",
            place="sendgrid.host",
            hint=f"Set it to {SANDBOX_HOST}, as `newsletter init --sandbox` does in a new folder.",
        )
    if lacks := readiness.missing(settings):
        raise readiness.lacking_key(settings, lacks[0].key)
    file = beside(settings.database_url, _FILE)
    config = SandboxConfig(
        host=address.hostname,
        port=address.port or 80,
        api_keys=frozenset({settings.sendgrid.api_key.get_secret_value()}),
        database=file,
    )
    try:
        private_files.make_folder(file.parent)
        private_files.make(file)
        running = start_sandbox(config)
    except OSError as error:
        raise MachineError(f"cannot be written: {error.strerror}", place=str(file)) from None
    except MachineError as error:
        raise MachineError(
            error.message,
            place=error.place,
            hint="Stop the program that uses the port, or set sendgrid.host to another port.",
        ) from None
    with running:
        keys = [running.public_key, *settings.sendgrid.webhook_public_keys]
        sendgrid = settings.sendgrid.model_copy(update={"webhook_public_keys": keys})
        yield running, settings.model_copy(update={"sendgrid": sendgrid})
