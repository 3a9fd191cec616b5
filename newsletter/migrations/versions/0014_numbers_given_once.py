"""numbers of people, of what they asked for, and of whatever else can go, are given once"""

import re

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

#: What tells of numbers that were given, row or no row. Events do not: anybody who can sign
#: them may have put any number in.
_TOLD = {
    "subscriber": (
        "SELECT max(id) FROM subscriber",
        # Issue by issue, which the key answers without a look at each delivery.
        "SELECT max((SELECT max(subscriber_id) FROM delivery WHERE issue_id = issue.id)) FROM issue",
    ),
    "confirmation": ("SELECT max(id) FROM confirmation",),
    "notice": ("SELECT max(id) FROM notice",),
    "segment": ("SELECT max(id) FROM segment",),
    "schedule": ("SELECT max(id) FROM schedule",),
    "console_user": (
        "SELECT max(id) FROM console_user",
        "SELECT max(actor_id) FROM audit_entry",
        "SELECT max(author_id) FROM revision",
        "SELECT max(user_id) FROM review",
    ),
}
#: Mails that are out carry numbers of these. Of the last few, whose rows are gone, nothing tells.
_IN_MAILS, _CLEAR = ("subscriber", "confirmation"), 1000


def upgrade() -> None:
    """Six seconds for a million people; nothing on PostgreSQL, whose sequences never go back."""
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        return
    # Dropping a table would otherwise delete what refers to its rows.
    if bind.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise RuntimeError("foreign keys are on: newsletter.database switches them off")
    last = {
        table: max(bind.exec_driver_sql(query).scalar() or 0 for query in queries)
        for table, queries in _TOLD.items()
    }
    if last["subscriber"]:
        for table in _IN_MAILS:
            last[table] += _CLEAR
    for table, number in last.items():
        _make_anew(table)
        bind.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        bind.exec_driver_sql("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, number))


def _make_anew(table: str) -> None:
    """The same table by the words that it was made with, and those of its indexes."""
    bind = op.get_bind()
    made = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND type = ? AND sql IS NOT NULL"
    indexes = list(bind.exec_driver_sql(made, (table, "index")).scalars())
    words = bind.exec_driver_sql(made, (table, "table")).scalar_one()
    for pattern, by in (
        (rf'^CREATE TABLE "?{table}"? ', f"CREATE TABLE {table}_anew "),
        (r"\bid INTEGER NOT NULL,", "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"),
        (rf",\s+CONSTRAINT pk_{table} PRIMARY KEY \(id\)", ""),
    ):
        words, found = re.subn(pattern, by, words)
        if found != 1:
            raise RuntimeError(f"the table {table} is not as this program made it")
    for statement in (
        words,
        f"INSERT INTO {table}_anew SELECT * FROM {table}",  # noqa: S608 (our words)
        f"DROP TABLE {table}",
        f"ALTER TABLE {table}_anew RENAME TO {table}",
        *indexes,
    ):
        bind.exec_driver_sql(statement)
