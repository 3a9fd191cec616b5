"""`newsletter init`: the settings and keys of a new installation."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from newsletter import readiness
from newsletter.cli.output import err, out, print_error
from newsletter.errors import SettingsError
from newsletter.settings import env_file
from newsletter.settings.load import FILE, load
from newsletter.settings.new_installation import NewInstallation, require_new, write

_SANDBOX_URL = "http://127.0.0.1:8000"


def init(
    folder: Annotated[Path, typer.Argument(help="The folder; it is created if needed.")] = Path(),
    name: Annotated[str | None, typer.Option(help="The publication's name.")] = None,
    sender_name: Annotated[
        str | None, typer.Option(help="The name beside the From address; by default --name.")
    ] = None,
    sender_email: Annotated[str | None, typer.Option(help="The From address.")] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help=f"The public address of the service; with --sandbox {_SANDBOX_URL}."),
    ] = None,
    postal_address: Annotated[
        str | None, typer.Option(help="The sender's postal address; not needed with --sandbox.")
    ] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Use the stand-in for SendGrid on this machine.")
    ] = False,
    key_stdin: Annotated[
        bool,
        typer.Option("--sendgrid-key-stdin", help="Read SendGrid's API key from standard input."),
    ] = False,
    webhook_key: Annotated[
        str,
        typer.Option(help="The verification key of SendGrid's signed event webhook."),
    ] = "",
    database: Annotated[
        str, typer.Option(help="The URL of the database; by default SQLite in data/ beside.")
    ] = "",
) -> None:
    """Make the settings and keys of a new installation: newsletter.toml and .env.

    On a terminal, it asks for what options do not say. In a pipe, it never asks. It changes no
    file that exists.
    """
    if sandbox and key_stdin:
        raise SettingsError(
            "only one of these is possible", place="--sandbox, --sendgrid-key-stdin"
        )
    require_new(folder, _valid("NEWSLETTER_DATABASE_URL", database, "--database"))
    answers = _Answers(asks=sys.stdin.isatty() and not key_stdin)
    site = answers.text("Name of the publication", "--name", "NEWSLETTER_SITE__NAME", name)
    email = answers.text(
        "Email address of the sender", "--sender-email", "NEWSLETTER_SENDER__EMAIL", sender_email
    )
    sender = answers.text(
        "Name of the sender", "--sender-name", "NEWSLETTER_SENDER__NAME", sender_name, default=site
    )
    key = "" if sandbox else answers.key(from_input=key_stdin)
    url = answers.text(
        "Public address of the service, such as https://news.example.com",
        "--base-url",
        "NEWSLETTER_SITE__BASE_URL",
        base_url,
        default=None if key else _SANDBOX_URL,
    )
    postal = answers.text(
        "Postal address of the sender, in one line",
        "--postal-address",
        "NEWSLETTER_SITE__POSTAL_ADDRESS",
        postal_address,
        default=None if key else "",
        asked=bool(key),
    )
    answers.require_complete()
    new = NewInstallation(
        site,
        sender,
        email,
        url,
        key,
        postal,
        database,
        _valid("NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS", webhook_key.strip(), "--webhook-key"),
    )
    write(folder, new)
    _report(folder, new)


def _report(folder: Path, new: NewInstallation) -> None:
    err.print(f"{folder / FILE}: the settings")
    err.print(f"{folder / env_file.NAME}: the keys. Only you can read it. Back it up.")
    if others := sorted(key for key in os.environ if key.startswith("NEWSLETTER_")):
        err.print(f"The environment wins over these files, and it sets: {', '.join(others)}")
    if new.api_key:
        for problem in readiness.unfit(load(new.environment())):
            err.print(f"Before you send: {problem.line}")
    err.print("Next:")
    if folder != Path():
        out.print(f"cd {shlex.quote(str(folder))}")
    if new.database_url.startswith("postgres"):
        out.print("newsletter db upgrade")
    out.print("newsletter serve" if new.api_key else "newsletter serve --sandbox")


class _Answers:
    """Answers from options, or else from the person at the terminal."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._has_asked = False
        self._missing: list[tuple[str, str]] = []

    def text(
        self,
        question: str,
        option: str,
        variable: str,
        given: str | None,
        *,
        default: str | None = None,
        asked: bool = True,
    ) -> str:
        """A valid value. SettingsError names the option if there is none, or a wrong one."""
        if given is not None:
            if not given.strip():
                raise SettingsError("is empty", place=option)
            return _valid(variable, given, option)
        # A command that says what is needed runs without questions.
        if self._asks and asked and (default is None or self._has_asked):
            self._has_asked = True
            return self._ask(
                lambda: typer.prompt(question, default=default, err=True),
                lambda text: _valid(variable, text, option),
            )
        if default is None:
            self._missing.append((option, question))
        return default or ""

    def require_complete(self) -> None:
        """Raise SettingsError with all options whose answers are missing."""
        if self._missing:
            raise SettingsError(
                "missing",
                place=", ".join(option for option, _ in self._missing),
                hint="\n".join(f"{option}: {question}" for option, question in self._missing),
            )

    def key(self, *, from_input: bool) -> str:
        """SendGrid's API key; empty for the stand-in."""
        option, variable = "--sendgrid-key-stdin", "NEWSLETTER_SENDGRID__API_KEY"
        if from_input:
            key = sys.stdin.readline().strip()
            if not key:
                raise SettingsError("standard input is empty", place=option)
            return _valid(variable, key, option)
        if not self._asks:
            self._missing.append(
                (
                    f"--sandbox or {option}",
                    "a mailbox on this machine instead of SendGrid, or SendGrid's API key",
                )
            )
            return ""
        self._has_asked = True
        question = "SendGrid's API key (not shown; empty: a mailbox on this machine instead)"
        return self._ask(
            lambda: typer.prompt(
                question, default="", show_default=False, hide_input=True, err=True
            ),
            lambda text: _valid(variable, text, option),
        )

    @staticmethod
    def _ask(ask: Callable[[], str], valid: Callable[[str], str]) -> str:
        while True:
            try:
                return valid(ask().strip())
            except SettingsError as error:
                print_error(error)


def _valid(variable: str, value: str, option: str) -> str:
    """The value, if the setting may have it; SettingsError names the option."""
    if value:
        try:
            load({variable: value})
        except SettingsError as error:
            raise SettingsError(error.message, place=option) from None
    return value
