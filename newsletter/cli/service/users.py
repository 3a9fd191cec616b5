"""`newsletter user`: who works with the console, also when nobody can get into it."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.accounts import audit, passwords, sessions, two_factor, users
from newsletter.accounts.models import Role
from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import AccountError
from newsletter.settings.load import load

app = typer.Typer(help="Add and remove people who work with the console.", no_args_is_help=True)

_FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Email = Annotated[str, typer.Argument(help="Their email address.")]


@app.command("create")
def create(
    email: Email,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.VIEWER,
    name: Annotated[str, typer.Option(help="What others see.")] = "",
    password_stdin: _FromInput = False,
) -> None:
    """Add somebody, with a password that is printed once unless you give one."""
    parts, now = Container(load()), datetime.now(UTC)
    password = _password(email, given=password_stdin)
    hashed = parts.passwords.hashed(password)
    with transaction(parts.database) as session:
        user = users.add(
            session,
            email,
            name=name,
            role=role,
            max_owners=parts.settings.console.max_owners,
            now=now,
            hashed=hashed,
        )
        if role is Role.OWNER:
            _tell_owners(session, parts, f"{user.email} was made an owner", but=user.id)
        audit.record(session, who(), "user created", now=now, subject=user.email, role=role)
    err.print(f"{email} is {role} of the console, at {parts.settings.site.base_url}/console/")
    _print_once(password, given=password_stdin)


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """List the people of the console."""
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
        empty="Nobody yet: newsletter user create EMAIL --role owner",
    )


@app.command("password")
def password(email: Email, password_stdin: _FromInput = False) -> None:
    """Give somebody a new password. All their sessions end."""
    parts, now = Container(load()), datetime.now(UTC)
    new = _password(email, given=password_stdin)
    hashed = parts.passwords.hashed(new)
    with transaction(parts.database) as session:
        user = users.by_email(session, email)
        users.set_password(session, user.id, hashed)
        if user.role == Role.OWNER:
            _tell_owners(session, parts, f"{user.email}: password changed")
        audit.record(session, who(), "password changed", now=now, subject=user.email)
    err.print(f"{email} has a new password.")
    _print_once(new, given=password_stdin)


@app.command("role")
def role(
    email: Email, role: Annotated[Role, typer.Argument(help="What they may do from now on.")]
) -> None:
    """Give somebody another role."""
    parts, now = Container(load()), datetime.now(UTC)
    with transaction(parts.database) as session:
        user = users.by_email(session, email)
        before = users.change_role(
            session, user.id, role, max_owners=parts.settings.console.max_owners
        )
        what = f"role changed from {before} to {role}"
        if Role.OWNER in (before, role):
            _tell_owners(session, parts, f"{user.email}: {what}")
        audit.record(session, who(), what, now=now, subject=user.email)
    out.print(f"{email} is {role} from now on.")


@app.command("remove")
def remove(email: Email) -> None:
    """Remove somebody. What they did stays in the log."""
    parts = Container(load())
    with transaction(parts.database) as session:
        user = users.by_email(session, email)
        subject = user.email
        if user.role == Role.OWNER:
            _tell_owners(session, parts, f"{subject}: user removed", but=user.id)
        users.remove(session, user.id)
        audit.record(session, who(), "user removed", now=datetime.now(UTC), subject=subject)
    out.print(f"{email} is removed.")


@app.command("reset-factor")
def reset_factor(email: Email) -> None:
    """Take somebody's authenticator app and recovery codes away, and end their sessions."""
    parts = Container(load())
    with transaction(parts.database) as session:
        user = users.by_email(session, email)
        two_factor.reset(session, user.id)
        sessions.end_all(session, user.id)
        if user.role == Role.OWNER:
            _tell_owners(session, parts, f"{user.email}: authenticator removed")
        what, now = "authenticator removed", datetime.now(UTC)
        audit.record(session, who(), what, now=now, subject=user.email)
    out.print(f"{email} sets up another app when they sign in.")


@app.command("log")
def log(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many entries.")] = 50,
    check: Annotated[bool, typer.Option("--check", help="Look for changed entries.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show who did what, the youngest first; or check that no entry was changed."""
    with reading(Container(load()).database) as session:
        if check:
            broken = audit.first_broken(session)
            if broken is not None:
                raise AccountError(
                    f"entry {broken} of the log was changed, or one before it is gone",
                    hint="Compare with a backup: somebody wrote to the database itself.",
                )
            out.print("Every entry is as it was written.")
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
        empty="Nothing was done in the console yet.",
    )


def _tell_owners(session: Session, parts: Container, what: str, *, but: int = 0) -> None:
    """Mail all owners: whoever has this machine is none of them."""
    # Pages render mails; a command that changes nobody needs none of that.
    from newsletter.web.console.accounts.account_emails import tell_owners  # noqa: PLC0415

    tell_owners(session, parts, what, by=who().name, but={but})


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
