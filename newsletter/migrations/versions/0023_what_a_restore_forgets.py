"""what tells a restored database, and who had an issue of which it has forgotten the send"""

import secrets
from datetime import UTC, datetime
from hashlib import sha256

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_STATES = (
    "current", "waiting", "missing", "unreadable", "foreign", "short", "unnamed", "set aside",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "identity",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identity")),
    )
    # From the first backup on: a log that was begun later knows that it is the same database.
    at = sa.column("at", sa.DateTime(timezone=True))
    named = sa.table("identity", sa.column("name"), sa.column("value"), at)
    op.get_bind().execute(
        named.insert().values(name="database", value=secrets.token_hex(16), at=datetime.now(UTC))
    )
    op.create_table(
        "departure_log",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(100), nullable=False),
        sa.Column("folder", sa.String(1000), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("detail", sa.String(300), nullable=False),
        sa.Column("read", _JSON, nullable=False),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            " OR ".join(f"state = '{state}'" for state in _STATES),
            name=op.f("ck_departure_log_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_departure_log")),
    )
    op.create_table(
        "forgotten_send",
        sa.Column("id", _ID, nullable=False),
        sa.Column("number", _ID, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("schedule", sa.String(200), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("over_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forgotten_send")),
        sa.UniqueConstraint("number", "made_at", name=op.f("uq_forgotten_send_number_made_at")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_forgotten_send_slug"), "forgotten_send", ["slug"])
    op.create_index(op.f("ix_forgotten_send_content"), "forgotten_send", ["content"])
    op.create_table(
        "forgotten_recipient",
        sa.Column("forgotten_id", _ID, nullable=False),
        sa.Column("address_prefix", sa.LargeBinary(8), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["forgotten_id"],
            ["forgotten_send.id"],
            name=op.f("fk_forgotten_recipient_forgotten_id_forgotten_send"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "forgotten_id", "address_prefix", name=op.f("pk_forgotten_recipient")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_forgotten_recipient_forgotten_id_batch"),
        "forgotten_recipient",
        ["forgotten_id", "batch"],
    )
    op.add_column("send", sa.Column("occasion", _JSON, nullable=False, server_default="{}"))
    op.add_column(
        "revision", sa.Column("content", sa.String(64), nullable=False, server_default="")
    )
    op.create_index(op.f("ix_revision_content"), "revision", ["content"])
    _digest_contents()


def _digest_contents() -> None:
    connection = op.get_bind()
    revision_ = sa.table("revision", sa.column("id"), sa.column("source"), sa.column("content"))
    for number in connection.scalars(sa.select(revision_.c.id)).all():
        wanted = sa.select(revision_.c.source).where(revision_.c.id == number)
        source = str(connection.scalar(wanted))
        connection.execute(
            revision_.update()
            .where(revision_.c.id == number)
            .values(content=_content_digest(source))
        )


def _content_digest(source: str) -> str:
    """newsletter.issues.text.content_digest, as it was when these were written."""
    lines = [line.rstrip() for line in source.rstrip().split("\n")]
    closing = next((n for n, line in enumerate(lines) if n and line == "---"), 0)
    said = [
        line
        for n, line in enumerate(lines)
        if n >= closing or line.partition(":")[0].rstrip() not in {"slug", "archive"}
    ]
    return sha256("\n".join(said).encode(errors="replace")).hexdigest()[:32]
