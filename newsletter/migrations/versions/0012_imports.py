"""lists uploaded to the console"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)
_OPEN = "state NOT IN ('done', 'failed', 'stopped')"


def upgrade() -> None:
    op.create_table(
        "import_job",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("size", _ID, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("found", _JSON, nullable=False),
        sa.Column("report", _JSON, nullable=False),
        sa.Column("problem", sa.String(1000), nullable=False),
        sa.Column("hint", sa.String(1000), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("made_by", sa.String(320), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.Column("worker", sa.String(100), nullable=False),
        sa.Column("alive_until", _MOMENT, nullable=True),
        sa.Column("interruptions", sa.Integer(), nullable=False),
        sa.Column("stop_asked", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "state IN ('uploaded', 'checking', 'checked', 'queued', 'running', 'done', "
            "'failed', 'stopped')",
            name=op.f("ck_import_job_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_import_job")),
    )
    op.create_index(
        "ix_import_job_open",
        "import_job",
        ["id"],
        sqlite_where=sa.text(_OPEN),
        postgresql_where=sa.text(_OPEN),
    )
