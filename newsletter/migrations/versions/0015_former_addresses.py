"""keyed hashes of the addresses that people gave up for another one"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "former_address",
        sa.Column("address_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_former_address_subscriber_id_subscriber"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_former_address")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_former_address_subscriber_id"), "former_address", ["subscriber_id"])
