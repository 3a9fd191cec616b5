"""probes: after trouble with the provider one request alone finds out whether it is over"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for name in ("failures", "probes"):
        op.add_column(
            "hold", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"))
        )
    op.add_column(
        "hold", sa.Column("passed", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("hold", sa.Column("probe_send", _ID, nullable=True))
    op.add_column("hold", sa.Column("probe_batch", sa.Integer(), nullable=True))
    op.add_column("hold", sa.Column("probe_attempt", sa.Integer(), nullable=True))
