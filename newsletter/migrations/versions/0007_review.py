"""issues in review: series, states, approvals, archive"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)
_LONG_AGO = "1970-01-01 00:00:00+00:00"


def upgrade() -> None:
    # What was sent before was approved by sending it, and nobody was asked whether the
    # public may read it.
    op.execute(
        "ALTER TABLE issue ADD COLUMN state VARCHAR(10) NOT NULL DEFAULT 'draft' "
        "CONSTRAINT ck_issue_state CHECK (state IN ('draft', 'review', 'approved'))"
    )
    for column in (
        sa.Column("series", sa.String(100), nullable=False, server_default=sa.text("'letter'")),
        sa.Column("since", _MOMENT, nullable=False, server_default=sa.text(f"'{_LONG_AGO}'")),
        sa.Column("archive", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("published_at", _MOMENT, nullable=True),
        sa.Column("published_send", _ID, nullable=True),
    ):
        op.add_column("issue", column)
    for column in (
        sa.Column("title", sa.String(300), nullable=False, server_default=sa.text("''")),
        sa.Column("description", sa.String(300), nullable=False, server_default=sa.text("''")),
        sa.Column("author", sa.String(320), nullable=False, server_default=sa.text("''")),
        sa.Column("author_id", _ID, nullable=True),
    ):
        op.add_column("revision", column)
    op.execute("UPDATE issue SET state = 'approved', since = created_at")
    op.execute(
        "UPDATE revision SET title = "
        "(SELECT issue.title FROM issue WHERE issue.id = revision.issue_id)"
    )
    ended = (
        "FROM send WHERE send.issue_id = issue.id AND send.state IN ('sent', 'cancelled') "
        "AND send.finished_at IS NOT NULL AND EXISTS (SELECT 1 FROM batch "
        "WHERE batch.send_id = send.id AND batch.state = 'accepted')"
    )
    for field, which in (
        ("published_at", "min(send.finished_at)"),
        ("published_send", "max(send.id)"),
    ):
        op.execute(f"UPDATE issue SET {field} = (SELECT {which} {ended})")  # noqa: S608 (our words)
    op.create_index("ix_issue_series_state_since", "issue", ["series", "state", "since"])

    op.create_table(
        "review",
        sa.Column("id", _ID, nullable=False),
        sa.Column("issue_id", _ID, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column("step", sa.String(10), nullable=False),
        sa.Column("actor", sa.String(320), nullable=False),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "step IN ('requested', 'approved', 'returned')", name=op.f("ck_review_step")
        ),
        sa.ForeignKeyConstraint(["issue_id"], ["issue.id"], name=op.f("fk_review_issue_id_issue")),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_review_revision_id_revision")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
    )
    op.create_index("ix_review_issue_id", "review", ["issue_id"])
    op.execute(
        "INSERT INTO review (issue_id, revision_id, step, actor, note, at) "
        "SELECT issue_id, id, 'approved', 'command line', 'by sending it', created_at FROM revision"
    )
