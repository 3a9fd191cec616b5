"""`newsletter user`: manage users, even when nobody can sign in to the console."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.accounts import audit, notifications, passwords, users
from newsletter.accounts.models import Role
from newsletter.accounts.operator_messages import MessageKind
from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import AccountError
from newsletter.operations import users as user_operations
from newsletter.scheduling.message_texts import LABELS
from newsletter.settings.load import load

app = typer.Typer(help="Manage the users of the console.", no_args_is_help=True)

_FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Email = Annotated[str, typer.Argument(help="The user's email address.")]


@app.command("create")
def create(
    email: Email,
    role: Annotated[Role, typer.Option(help="The role.")] = Role.VIEWER,
    name: Annotated[str, typer.Option(help="The name that other users see.")] = "",
    password_stdin: _FromInput = False,
) -> None:
    """Add a user. Without --password-stdin, a new password is printed once."""
    container, now = Container(load()), datetime.now(UTC)
    password = _password(email, given=password_stdin)
    hashed = container.passwords.hashed(password)
    with transaction(container.database) as session:
        user_operations.create(
            session,
            container,
            email,
            by=who(),
            now=now,
            role=role,
            name=name,
            hashed_password=hashed,
        )
    err.print(f"{email} is {role} of the console, at {container.settings.site.base_url}/console/")
    _print_once(password, given=password_stdin)


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List the users of the console."""
    with reading(Container(load()).database) as session:
        records = [
            {
                "user": one.email,
                "name": one.name,
                "role": one.role.value,
                "password": one.joined,
                "second factor": one.has_factor,
                "sessions": one.sessions,
                "signed in": one.signed_in_at,
            }
            for one in users.listing(session, now=datetime.now(UTC))
        ]
    rows(
        records,
        ["user", "name", "role", "password", "second factor", "sessions", "signed in"],
        as_json=as_json,
        empty="No users yet: newsletter user create EMAIL --role owner",
    )


@app.command("password")
def password(email: Email, password_stdin: _FromInput = False) -> None:
    """Set a user's password. All their sessions end."""
    container, now = Container(load()), datetime.now(UTC)
    new = _password(email, given=password_stdin)
    hashed = container.passwords.hashed(new)
    with transaction(container.database) as session:
        user = users.by_email(session, email)
        user_operations.set_password(session, container, user, hashed, by=who(), now=now)
    err.print(f"{email} has a new password.")
    _print_once(new, given=password_stdin)


@app.command("role")
def role(email: Email, role: Annotated[Role, typer.Argument(help="The new role.")]) -> None:
    """Change a user's role."""
    container, now = Container(load()), datetime.now(UTC)
    with transaction(container.database) as session:
        user = users.by_email(session, email)
        user_operations.change_role(session, container, user, role, by=who(), now=now)
    out.print(f"{email} is {role} from now on.")


@app.command("notify")
def notify(
    email: Email,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A kind of message to email; repeat it for several kinds."),
    ] = None,
    all_kinds: Annotated[bool, typer.Option("--all", help="Email every kind.")] = False,
    none: Annotated[bool, typer.Option("--none", help="Email no message.")] = False,
    daily: Annotated[
        bool | None,
        typer.Option("--daily/--at-once", help="One email each morning, or one for each message."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose which messages a user gets by email. Without a choice, show what the user gets.

    Owners and approvers get every kind unless somebody chooses otherwise, editors and viewers none.
    """
    if bool(only) + all_kinds + none > 1:
        raise typer.BadParameter("choose one of --only, --all and --none")
    container, now = Container(load()), datetime.now(UTC)
    if only or all_kinds or none or daily is not None:
        with transaction(container.database) as session:
            user = users.by_email(session, email)
            before = notifications.of_user(user)
            kinds = notifications.parse_kinds(only) if only else before.kinds
            kinds = frozenset(MessageKind) if all_kinds else frozenset() if none else kinds
            user_operations.choose_notifications(
                session,
                user,
                kinds,
                digest=before.digest if daily is None else daily,
                by=who(),
                now=now,
            )
    with reading(container.database) as session:
        gets = notifications.of_user(users.by_email(session, email))
    when = "each morning" if gets.digest else "at once"
    rows(
        [
            {"kind": kind.value, "email": when if kind in gets.kinds else "no", "about": label}
            for kind, label in LABELS.items()
        ],
        ["kind", "email", "about"],
        as_json=as_json,
        empty="",
    )


@app.command("remove")
def remove(email: Email) -> None:
    """Remove a user. Their entries stay in the audit log."""
    container = Container(load())
    with transaction(container.database) as session:
        user = users.by_email(session, email)
        user_operations.remove(session, container, user, by=who(), now=datetime.now(UTC))
    out.print(f"{email} is removed.")


@app.command("reset-factor")
def reset_factor(email: Email) -> None:
    """Remove a user's authenticator app and recovery codes, and end their sessions."""
    container = Container(load())
    with transaction(container.database) as session:
        user = users.by_email(session, email)
        user_operations.reset_two_factor(session, container, user, by=who(), now=datetime.now(UTC))
    out.print(f"{email} has to set up an authenticator app at the next sign-in.")


@app.command("end-sessions")
def end_sessions(email: Email) -> None:
    """End all sessions of a user."""
    with transaction(Container(load()).database) as session:
        user = users.by_email(session, email)
        user_operations.end_sessions(session, user, by=who(), now=datetime.now(UTC))
    out.print(f"{email} is signed out everywhere.")


@app.command("log")
def log(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many entries.")] = 50,
    check: Annotated[bool, typer.Option("--check", help="Look for changed entries.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the audit log, newest first, or check that no entry was changed."""
    with reading(Container(load()).database) as session:
        if check:
            broken = audit.first_broken(session)
            if broken is not None:
                raise AccountError(
                    f"entry {broken} of the audit log was changed, or one before it is missing",
                    hint="Compare with a backup: someone has changed the database directly.",
                )
            out.print("No entry was changed.")
            return
        records = [
            {
                "at": row.at,
                "who": row.actor,
                "what": row.action,
                "to": row.subject,
                "from": row.ip,
                "detail": ", ".join(f"{name}: {value}" for name, value in row.detail.items()),
            }
            for row in audit.entries(session, limit=limit)
        ]
    rows(
        records,
        ["at", "who", "what", "to", "from", "detail"],
        as_json=as_json,
        empty="The audit log is empty.",
    )


def _password(email: str, *, given: bool) -> str:
    if not given:
        return passwords.generated()
    new = sys.stdin.readline().rstrip("\r\n")
    passwords.check(new, email=email)
    return new


def _print_once(password: str, *, given: bool) -> None:
    if not given:
        err.print("The password, shown only now:")
        out.print(password)
